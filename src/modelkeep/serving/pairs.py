"""What a rollout's step in the shadow is judged by: requests that both versions were asked, and which of them was bad.

A version in the shadow runs on what is left of the machine: it starves, is put out of memory first, and may not come up at all.
So of `errors` and `poor` only that counts which a model does by itself, on either side: it fails, or answers with numbers that
are none. A request that one of the two did not bring to an end, for want of time, memory or a process, is no pair; nor is one
that the response cache has answered, since there a version would be bad once and good for as long as its answer is kept.
"""

from typing import Final, NamedTuple

from modelkeep.contracts.errors import ModelFailed
from modelkeep.contracts.traffic import Counted, Signal
from modelkeep.serving.calls import Share
from modelkeep.serving.codec import AnswerNotFinite

BY_ITSELF: Final = (ModelFailed, AnswerNotFinite)
"""Errors that a model causes by itself, whatever else runs on the machine."""


class Poor(NamedTuple):
    """Which of two answers holds numbers that are none."""

    shadow: bool
    promoted: bool


class Pairs:
    """The pairs of one trial. Bad are those that one of the two alone is to blame for: on both sides they say nothing."""

    __slots__ = ("_asked", "_errors", "_otherwise", "_poor", "trial")

    def __init__(self, trial: str) -> None:
        self.trial = trial
        self._asked = self._otherwise = 0
        self._errors, self._poor = [0, 0, 0], [0, 0, 0]

    @property
    def counts(self) -> dict[Signal, Counted]:
        """The numbers, as they are sent. The promoted version is what answers are compared with: none of its own differ."""
        return {
            "errors": _counted(self._errors),
            "poor": _counted(self._poor),
            "disagreement": Counted(self._asked, self._otherwise, self._asked, 0),
        }

    def compared(self, *, otherwise: bool) -> None:
        """Take a request that the promoted version has answered, and the shadow likewise or otherwise."""
        self._asked += 1
        self._otherwise += otherwise

    def answered(self, promoted: Share | None, poor: Poor) -> None:
        """Take a request that the shadow has answered; None where the promoted version has failed it."""
        if _is_kept(promoted):
            return
        _take(self._errors, shadow=False, promoted=promoted is None)
        if promoted is not None:
            _take(self._poor, shadow=poor.shadow, promoted=poor.promoted)

    def failed(self, promoted: Share | None, error: Exception) -> None:
        """Take a request that the shadow has failed."""
        if isinstance(error, ModelFailed) and not _is_kept(promoted):
            _take(self._errors, shadow=True, promoted=promoted is None)


def _is_kept(promoted: Share | None) -> bool:
    return promoted is not None and promoted.run.age_s is not None


def _take(tally: list[int], *, shadow: bool, promoted: bool) -> None:
    tally[0] += 1
    tally[1] += shadow and not promoted
    tally[2] += promoted and not shadow


def _counted(tally: list[int]) -> Counted:
    requests, bad, others_bad = tally
    return Counted(requests, bad, requests, others_bad)
