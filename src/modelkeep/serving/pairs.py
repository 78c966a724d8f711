"""What a rollout's step in the shadow is judged by: requests that both versions were asked, and which of them was bad.

A version in the shadow runs on what is left of the machine: it starves, is put out of memory first, and may not come up at all.
So of `errors` and `poor` only that counts which a model does by itself, on either side: it fails, or answers with numbers that
are none. A request that one of the two did not bring to an end, for want of time, memory or a process, is no pair, and tells
nothing of disagreement either, for a copy of the promoted version has such requests as well, and many at once; but for a run
with which the shadow's runner was lost, which is one answer otherwise, however many requests were in it. Nor is one a pair that
the response cache has answered, since there a version would be bad once and good for as long as its answer is kept.

Nobody is given to one of them by chance here, so that it is the requests that have to differ: equal ones are bad once, or a
caller who sends the same one a thousand times would decide.
"""

import hashlib
from collections import OrderedDict, deque
from typing import Final, NamedTuple

from modelkeep.contracts.errors import ModelFailed, RunnerLost
from modelkeep.contracts.traffic import Counted, Signal
from modelkeep.serving.cache_key import SIZE, begun, key_of
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import AnswerNotFinite

BY_ITSELF: Final = (ModelFailed, AnswerNotFinite)
"""Errors that a model causes by itself, whatever else runs on the machine."""

MOST_KNOWN: Final = 100_000
"""How many bad requests of a signal are remembered; the oldest are forgotten, and could then be bad once more."""

_LOST_KNOWN: Final = 64


class Poor(NamedTuple):
    """Which of two answers holds numbers that are none."""

    shadow: bool
    promoted: bool


class Pairs:
    """The pairs of one trial. Bad are those that one of the two alone is to blame for: on both sides they say nothing."""

    __slots__ = ("_asked", "_errors", "_lost", "_otherwise", "_poor", "trial")

    def __init__(self, trial: str) -> None:
        self.trial = trial
        self._asked = self._otherwise = 0
        self._errors, self._poor = _Tally(), _Tally()
        self._lost: deque[float] = deque(maxlen=_LOST_KNOWN)

    @property
    def counts(self) -> dict[Signal, Counted]:
        """The numbers, as they are sent. The promoted version is what answers are compared with: none of its own differ."""
        return {
            "errors": self._errors.counted,
            "poor": self._poor.counted,
            "disagreement": Counted(self._asked, self._otherwise, self._asked, 0),
        }

    def compared(self, *, otherwise: bool) -> None:
        """Take a request that the promoted version has answered, and the shadow likewise or otherwise."""
        self._asked += 1
        self._otherwise += otherwise

    def answered(self, call: Call, promoted: Share | None, poor: Poor) -> None:
        """Take a request that the shadow has answered; None where the promoted version has failed it."""
        if _is_kept(promoted):
            return
        self._errors.take(call, shadow=False, promoted=promoted is None)
        if promoted is not None:
            self._poor.take(call, shadow=poor.shadow, promoted=poor.promoted)

    def failed(self, call: Call, promoted: Share | None, error: Exception, *, heard: bool) -> None:
        """Take a request that the shadow has failed; `heard`: whose caller the promoted version has answered."""
        if isinstance(error, ModelFailed) and not _is_kept(promoted):
            self._errors.take(call, shadow=True, promoted=promoted is None)
        if heard and (isinstance(error, BY_ITSELF) or self._is_another_loss(error)):
            self.compared(otherwise=True)

    def _is_another_loss(self, error: Exception) -> bool:
        """Whether this is the first request of a run with which a runner was lost."""
        if not isinstance(error, RunnerLost) or error.run in self._lost:
            return False
        self._lost.append(error.run)
        return True


class _Tally:
    """Requests of one signal, and of how many different ones the shadow, or the promoted version, alone is to blame."""

    __slots__ = ("_bad", "_known", "_requests")

    def __init__(self) -> None:
        self._requests = 0
        self._bad = [0, 0]
        self._known: OrderedDict[tuple[bytes, bool], None] = OrderedDict()

    def take(self, call: Call, *, shadow: bool, promoted: bool) -> None:
        self._requests += 1
        if shadow == promoted:
            return
        asked = (_question(call), promoted)
        if asked in self._known:
            return
        self._known[asked] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        self._bad[promoted] += 1

    @property
    def counted(self) -> Counted:
        return Counted(self._requests, self._bad[0], self._requests, self._bad[1])


def _question(call: Call) -> bytes:
    """Return what makes two requests one question: the rows, however they were written."""
    return key_of(begun(), b"", call.tensors()) or hashlib.blake2b(call.body, digest_size=SIZE).digest()


def _is_kept(promoted: Share | None) -> bool:
    return promoted is not None and promoted.run.age_s is not None
