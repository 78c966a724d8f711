"""How the requests of a deployment are shared out among versions, and what is counted while one of them is on trial.

Whoever the promoted version does not answer is answered by one of the `splits`, or by whatever a rule says of them.
"""

from typing import Literal

import msgspec

Signal = Literal["errors", "slow", "poor", "disagreement", "feedback"]
"""What a request may be bad by: it failed, was slower than the target, was answered with numbers that are none, differs from
what the promoted version answers, or was told to be wrong."""


class Split(msgspec.Struct, frozen=True):
    """A version beside the promoted one, and its share of the requests in percent; the promoted one has what is left."""

    version_id: str
    share: float


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests that a version answers whatever the shares are: those for which all that is named here holds.

    `callers` are ids of people, services, keys and groups. `header` is a header's name in small letters, `values` what it may
    say (none: anything). `percent` is the part of these requests that the rule is for, always the same callers: a cohort.
    """

    version_id: str
    name: str = ""
    callers: tuple[str, ...] = ()
    header: str = ""
    values: tuple[str, ...] = ()
    percent: float = 100.0


class Traffic(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is answered by what, beside the promoted version. Rules come before splits, and the first that holds decides.

    `sticky` says whose requests stay together: "" for nobody's, "caller" (person or service), "key", or "header:NAME"; requests
    without that header are shared out one by one. `shadow` is asked the same beside them for its share of the requests, and
    what it says is compared and answers nobody.
    """

    splits: tuple[Split, ...] = ()
    rules: tuple[Rule, ...] = ()
    sticky: str = ""
    shadow: Split | None = None

    @property
    def sharing_ids(self) -> tuple[str, ...]:
        """The versions that answer for somebody beside the promoted one, each once."""
        return tuple(dict.fromkeys([one.version_id for one in self.splits] + [one.version_id for one in self.rules]))

    @property
    def version_ids(self) -> tuple[str, ...]:
        """The versions that are asked beside the promoted one, each once: those that answer, and the shadow."""
        shadow = () if self.shadow is None else (self.shadow.version_id,)
        return tuple(dict.fromkeys((*self.sharing_ids, *shadow)))


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step of a rollout as servers count it: between whom, by what, and what each of them may end alone.

    `share` is the candidate's part of the requests that it and the promoted version share out, within (0, 1). A request is slow
    above `slow_ms`; 0 has each server learn that from what the promoted version does first. `alphas` is, for each signal that
    is judged, the probability of a wrong rollback that one server may spend alone, and `before` the evidence that earlier steps
    have left (`stats/evidence.py`). In the `shadow` the candidate answers nobody: of requests that one of the two alone answers
    badly, each is as likely the one, so that `share` is 1/2.
    """

    rollout: str
    step: int
    version_id: str
    share: float
    slow_ms: float = 0.0
    alphas: dict[Signal, float] = {}
    before: dict[Signal, tuple[float, ...]] = {}
    shadow: bool = False

    @property
    def id(self) -> str:
        """What its counts are known by."""
        return f"{self.rollout}:{self.step}"


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """Requests, and bad ones, of the candidate and of the promoted version; of sticky callers each is bad once at most.

    In the shadow both had the same requests, and bad are those that one of the two alone answered badly.
    """

    requests: int = 0
    bad: int = 0
    others: int = 0
    others_bad: int = 0


class TrialSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one server has counted of a trial so far. `halted` is the signal by which it sends the candidate nothing more."""

    counts: dict[Signal, Counted] = {}
    slow_ms: float = 0.0
    halted: Signal | Literal[""] = ""
