"""Whether one version is worse than another, judged at any moment, however often somebody looks: exact, always-valid tests.

Of requests that are routed at random with share `w` to a candidate, a *bad* one fell on the candidate with probability exactly
`w` where both versions are equally often bad, whatever that rate is. If the candidate's odds of being bad are `r` times as
high, it is `theta(r, w) = r w / (1 - w + r w)`. The likelihood ratios of some `r` against 1 are martingales where nothing is
wrong, and so is their mean E: by Ville's inequality it ever reaches 1/alpha with probability alpha at most. `w` may change from
step to step, and the evidence of several servers is multiplied (Ramdas, Grunwald, Vovk, Shafer, "Game-theoretic statistics and
safe anytime-valid inference", 2023).

To show that the candidate is *not* worse by a margin, the ratio is turned round (`not_worse`), or its rate of bad requests is
bounded from above by a mixture of binomials (`upper_bound`; Robbins 1970), which holds at any moment, too. The same mixture is
evidence that a rate lies `above` or `below` another, where there is nothing to compare it with.
"""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

FACTORS: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""By how much the odds may have grown, of which the mean is taken: small ones are found late, large ones at once."""

CERTAIN: Final = 700.0
"""Stands for the logarithm of an infinite ratio, which can be neither written down nor drawn: e to this is a number yet."""

_BISECTIONS: Final = 60


class Evidence(msgspec.Struct, frozen=True):
    """The logarithms of the likelihood ratios, one for each of `FACTORS`. Begins at nothing: all 0."""

    logs: tuple[float, ...] = (0.0,) * len(FACTORS)

    def after(self, share: float, bad: int, others_bad: int) -> "Evidence":
        """Return the evidence after so many bad requests of the candidate and of the others, at a `share` within (0, 1)."""
        ratios = (_theta(factor, share) for factor in FACTORS)
        gained = (bad * math.log(theta / share) + others_bad * math.log((1 - theta) / (1 - share)) for theta in ratios)
        return Evidence(tuple(before + gain for before, gain in zip(self.logs, gained, strict=True)))

    def and_of(self, other: "Evidence") -> "Evidence":
        """Return the evidence of both, which were gathered from different requests."""
        return Evidence(tuple(one + two for one, two in zip(self.logs, other.logs, strict=True)))

    @property
    def log_value(self) -> float:
        """The logarithm of E, which stays a number where E itself would be too large for one."""
        highest = max(self.logs)
        return highest + math.log(sum(math.exp(one - highest) for one in self.logs) / len(self.logs))

    @property
    def value(self) -> float:
        """E, infinity where it is too large for a number."""
        return _exp(self.log_value)

    def worse(self, alpha: float) -> bool:
        """Whether the candidate is worse: wrongly said with probability `alpha` at most over its whole life."""
        return self.log_value >= -math.log(alpha)


def not_worse(margin: float, counts: Iterable[tuple[float, int, int]]) -> float:
    """Return the logarithm of the evidence that the candidate's odds of being bad are below `margin` times the others'.

    `counts` are, for each step, its share and the bad requests of the candidate and of the others. Beyond 1/beta it is wrong
    with probability `beta` at most.
    """
    found = 0.0
    for share, bad, others_bad in counts:
        theta = _theta(margin, share)
        found += bad * math.log(share / theta) + others_bad * math.log((1 - share) / (1 - theta))
    return found


def upper_bound(bad: int, requests: int, alpha: float) -> float:
    """Return the rate of bad requests above which the true one is not, but with probability `alpha`, at whatever moment."""
    if requests == 0:
        return 1.0
    low, high = bad / requests, 1.0
    if low == high:
        return 1.0
    wanted = -math.log(alpha)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _log_mixture(bad, requests, middle) < wanted:
            low = middle
        else:
            high = middle
    return high


def above(rate: float, bad: int, requests: int) -> float:
    """Return the logarithm of the evidence that more than `rate` of all requests are bad.

    It is that against the likeliest of all rates up to this one, so that it reaches 1/alpha with probability alpha at most
    where one of them is the true one.
    """
    return _log_mixture(bad, requests, min(rate, bad / requests)) if requests else 0.0


def below(rate: float, bad: int, requests: int) -> float:
    """Return the logarithm of the evidence that fewer than `rate` of all requests are bad, as `above`."""
    return _log_mixture(bad, requests, max(rate, bad / requests)) if requests else 0.0


def _theta(factor: float, share: float) -> float:
    """Return the probability that a bad request is the candidate's where its odds are `factor` times the others'."""
    return factor * share / (1 - share + factor * share)


def _log_mixture(bad: int, requests: int, rate: float) -> float:
    """Return the logarithm of the ratio of a mixture over all rates (Jeffreys' prior) to this rate."""
    good = requests - bad
    mixture = math.lgamma(bad + 0.5) + math.lgamma(good + 0.5) - math.lgamma(requests + 1) - math.log(math.pi)
    if rate >= 1.0:
        return mixture if good == 0 else CERTAIN
    return mixture - (bad * math.log(rate) if bad else 0.0) - good * math.log1p(-rate)


def _exp(log: float) -> float:
    try:
        return math.exp(log)
    except OverflowError:
        return math.inf
