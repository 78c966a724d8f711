"""Shadows: a version is asked the same as the promoted one, beside it; what it says is compared, and answers nobody.

What the promoted version's callers wait for never waits for a shadow: calls are taken once they have been answered, into a
short queue, and go on from there only while the promoted version has nothing waiting and the machine has a core to spare. A
call that finds no place, or no such moment in time, is dropped and counted. A shadow has runners of its own, even where the
same version answers by an alias: at the lowest priority, and first to go when memory is short (`RunnerSpec.spare`).
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np
import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.shadow import SECONDS, Compared, ShadowSeen
from modelkeep.contracts.snapshot import Memory, Recording, ServedVersion
from modelkeep.contracts.traffic import Counted
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.disagreement import Disagreement, Pair
from modelkeep.serving.large import LARGE, LARGE_ANSWER
from modelkeep.serving.matrix import Matrix, plain_matrix
from modelkeep.serving.messages import Response
from modelkeep.serving.pairs import Pairs, Poor
from modelkeep.serving.recorder import in_sample
from modelkeep.serving.trials import is_poor

if TYPE_CHECKING:
    from modelkeep.contracts.snapshot import ServedDeployment
    from modelkeep.serving.codec import Tensors
    from modelkeep.serving.pool import Served

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 64
MOST_BYTES: Final = 64 << 20
PATIENCE_S: Final = 5.0
MEMORY: Final = Memory("on_demand")
"""A shadow has runners from the first call for it until there was none for a while."""

_MARK: Final = "~shadow"
_SOON_S: Final = 0.002  # the answers that have just been told go out first
_LOOK_AGAIN_S: Final = 0.02
_TOLD: Final = Response(200, b"")
_BOUNDS: Final = np.array(SECONDS)


def spare_id(version_id: str) -> str:
    """Return by which id a version's runners are known that run for a shadow."""
    return f"{version_id}{_MARK}"


def spare(version: ServedVersion) -> ServedVersion:
    """Return a version as a shadow: with runners of its own, on spare capacity alone."""
    as_shadow = spare_id(version.id)
    spec = msgspec.structs.replace(version.spec, version_id=as_shadow, spare=True)
    return msgspec.structs.replace(version, id=as_shadow, spec=spec)


def shadow_of(deployment: "ServedDeployment") -> str:
    """Return the id of the version that shadows a deployment's promoted one, "" for none."""
    split = deployment.traffic.shadow
    return "" if split is None or split.version_id == deployment.version_id else split.version_id


class _Waiting:
    """A call that was answered, and is to be asked of the shadow.

    One that was not `heard`, since the promoted version has failed it, is asked for a trial's sake alone. It has a share
    all the same where the model answered, with numbers that are none.
    """

    __slots__ = ("at", "call", "heard", "recording", "share", "size", "wall")

    def __init__(self, call: Call, share: Share | None, size: int, recording: Recording | None, *, heard: bool) -> None:
        self.call = call
        self.share = share
        self.heard = heard
        self.size = size
        self.recording = recording
        self.at = time.monotonic()
        self.wall = time.time()


class _Asked(Call):
    """The same call again, for the shadow: whoever waits for it is no caller."""

    __slots__ = ()

    def __init__(self, waiting: _Waiting, payload: "Matrix | Tensors", told: "_Told") -> None:
        call = waiting.call
        self.route = call.route
        self.dialect, self.body, self.started = call.dialect, b"", time.monotonic()
        self.id, self.request_id = call.id, call.request_id
        self.owner = self.key_id = ""
        self.content_type, self.answer_type = call.content_type, ""
        self.share, self.kept = None, None
        self.attempts = self.bucket = 0
        self.deadline = float("inf")
        self.answer = told
        told.call = self
        self.ask(payload, lambda _call, _share: _TOLD)


class _Told:
    """Where a shadow's answer goes."""

    __slots__ = ("_done", "_shadow", "_waiting", "call")

    def __init__(self, shadow: "Shadow", waiting: _Waiting) -> None:
        self._shadow = shadow
        self._waiting = waiting
        self._done = False
        self.call: Call | None = None

    def done(self) -> bool:
        """Whether it has been told."""
        return self._done

    def set_result(self, _response: Response, /) -> None:
        """Hand on what the shadow says, to be compared."""
        call, self.call = self.call, None
        self._done = True
        assert call is not None  # noqa: S101 - nobody is told twice
        assert call.share is not None  # noqa: S101 - whoever is answered has a share of the run
        self._shadow.answered(self._waiting, call.share)

    def set_exception(self, error: Exception, /) -> None:
        """Note why the shadow says nothing."""
        self._done, self.call = True, None
        self._shadow.failed(self._waiting, error)


class _Found(NamedTuple):
    """In how many rows two answers differ (None: they cannot be compared), and which of them holds numbers that are none."""

    differ: int | None
    poor: Poor


class Shadow:
    """One deployment's shadow: what waits for it, and what has been seen of it.

    `room` says whether the machine has capacity to spare; `count` is told what became of each call.
    """

    def __init__(
        self, deployment: str, primary: "Served", served: "Served", share: float, *, around: "Around", recording: Recording
    ) -> None:
        self.deployment = deployment
        self.primary = primary
        self.served = served
        self.share = share / 100
        self.recording = recording
        self._around = around
        version = primary.version
        columns = {one.name: one.columns for one in version.signature.inputs if one.columns}
        self._disagreement = Disagreement(version.scores, version.labels, columns)
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._bytes = self._underway = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pairs: deque[tuple[_Waiting, Share]] = deque()
        self._comparing = self._ended = self.changed = False
        self._id, self._since = new_id("shd"), time.time()
        self._asked = self._bad = self._heard = 0
        self.pairs: Pairs | None = None
        """What is counted for a rollout that is in the shadow."""
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._primary_s = np.zeros(len(SECONDS) + 1, dtype=np.int64)
        self._shadow_s = np.zeros(len(SECONDS) + 1, dtype=np.int64)

    @property
    def version_id(self) -> str:
        """The version that is asked."""
        return self.served.version.id.removesuffix(_MARK)

    # ---- calls

    def try_for(self, trial: str) -> None:
        """Count for this trial from now on; "" for none."""
        if trial != (self.pairs.trial if self.pairs is not None else ""):
            self.pairs = Pairs(trial) if trial else None

    def offer(self, call: Call, share: Share | None, *, heard: bool = True) -> None:
        """Take a call that has been answered, or that the promoted version has failed, if there is a place for it."""
        outputs = () if share is None else share.run.outputs.values()
        size = len(call.body) + sum([array.nbytes for array in outputs])
        shown = self.recording if heard and self.recording.enabled and in_sample(self.recording, call.id) else None
        waiting = _Waiting(call, share, size, shown, heard=heard)
        if heard:
            self._asked += 1
            self.changed = True
        if len(self._queue) >= MOST_WAITING or self._bytes + size > MOST_BYTES:
            self._drop(waiting, "full")
            return
        self._queue.append(waiting)
        self._bytes += size
        self._look_in(_SOON_S)

    def answered(self, waiting: _Waiting, share: Share) -> None:
        """The shadow has answered a call: compare, in another turn of the loop."""
        self._pairs.append((waiting, share))
        self._settled()
        if not self._comparing:
            self._comparing = True
            self._loop.call_soon(self._compare)

    def failed(self, waiting: _Waiting, error: Exception) -> None:
        """The shadow has not answered a call."""
        if self._ended:
            self._drop(waiting, "ended")
        else:
            if waiting.heard:
                self._failed[error.code if isinstance(error, ModelkeepError) else "internal"] += 1
                self._bad += 1
                self._around.count(self.deployment, "failed")
            if self.pairs is not None:
                self.pairs.failed(waiting.call, waiting.share, error, heard=waiting.heard)
        self._settled()

    def end(self) -> None:
        """It is not asked any more: what waits is dropped."""
        self._ended = True
        while self._queue:
            self._drop(self._take(), "ended")
        if self._timer is not None:
            self._timer.cancel()

    def _settled(self) -> None:
        self._underway -= 1
        if not self._underway and self._queue:
            self._look_in(0.0)

    def _drop(self, waiting: _Waiting, reason: str) -> None:
        if waiting.heard:
            self._dropped[reason] += 1
            self._around.count(self.deployment, "dropped")

    def _take(self) -> _Waiting:
        waiting = self._queue.popleft()
        self._bytes -= waiting.size
        return waiting

    def _look_in(self, seconds: float) -> None:
        if self._timer is None and not self._ended:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Ask what waits, all of it, if this is the moment; drop what has waited for too long."""
        self._timer = None
        ready, now = self.served.ready, time.monotonic()
        while self._queue and now - self._queue[0].at > PATIENCE_S:
            self._drop(self._take(), "busy" if ready else "not_loaded")
        if not self._queue:
            return
        if not ready:
            self.served.rouse()
        if not ready or self._underway or self.primary.batcher.waiting or not self._around.room():
            self._look_in(_LOOK_AGAIN_S)
            return
        while self._queue and not self.primary.batcher.waiting:
            self._ask(self._take())

    def _ask(self, waiting: _Waiting) -> None:
        payload = same_inputs(waiting.call.payload, self.served.version)
        if payload is None:
            self._drop(waiting, "other_inputs")
            return
        self._underway += 1
        told = _Told(self, waiting)
        try:
            self.served.batcher.submit(_Asked(waiting, payload, told))
        except ModelkeepError as error:
            told.set_exception(error)

    # ---- comparing

    def _compare(self) -> None:
        """Compare one pair: here where that is short, else in a thread; then the next, in another turn."""
        waiting, share = self._pairs.popleft()
        ours = waiting.share
        if ours is not None and waiting.heard:
            for seconds, run in ((self._primary_s, ours.run), (self._shadow_s, share.run)):
                seconds[np.searchsorted(_BOUNDS, run.run_s + run.preprocess_s, side="left")] += 1
        size = max(0 if ours is None else _size(ours), _size(share))
        if size <= LARGE_ANSWER // 8 and len(waiting.call.body) <= LARGE // 8:
            self._compared(waiting, self._taken(waiting, share))
            return
        self._around.aside(lambda: self._taken(waiting, share), lambda found: self._compared(waiting, found))

    def _taken(self, waiting: _Waiting, share: Share) -> _Found:
        """Compare, wherever this is."""
        ours = waiting.share
        poor = Poor(is_poor(share), ours is not None and is_poor(ours))
        return _Found(self._differ(waiting, ours, share) if ours is not None and waiting.heard else None, poor)

    def _differ(self, waiting: _Waiting, ours: Share, share: Share) -> int | None:
        """Return in how many rows two answers differ; None where they cannot be compared."""
        call = waiting.call
        try:
            primary = {name: ours.tensor(name) for name in ours.names}
            shadow = {name: share.tensor(name) for name in share.names}
            pair = Pair(call.id, waiting.wall, call.rows, call.tensors(), primary, shadow, waiting.recording)
            return self._disagreement.take(pair)
        except Exception:
            log.exception("answers cannot be compared", deployment=self.deployment, prediction_id=call.id)
            return None

    def _compared(self, waiting: _Waiting, found: _Found) -> None:
        differ = found.differ
        if self.pairs is not None:
            self.pairs.answered(waiting.call, waiting.share, found.poor)
            if differ is not None:
                self.pairs.compared(otherwise=differ > 0)
        if waiting.heard:
            self._heard += differ is not None
            self._bad += bool(differ)
            if differ is None:
                self._failed["not_compared"] += 1
            self._around.count(self.deployment, "failed" if differ is None else "differed" if differ else "agreed")
            self.changed = True
        if self._pairs:
            self._loop.call_soon(self._compare)
        else:
            self._comparing = False

    # ---- what is told

    @property
    def disagreement(self) -> Counted:
        """How many requests it was asked to the end, and how many of these it failed or answered otherwise.

        Both versions had the same requests; the promoted one is what it is compared with, so none of its are bad.
        """
        asked = self._heard + self._failed.total() - self._failed["not_compared"]
        return Counted(asked, self._bad, asked, 0)

    def telling(self) -> "Callable[[], ShadowSeen] | None":
        """Return what makes the report, in a thread; None while that thread may be comparing."""
        if self._comparing:
            return None
        dropped, failed, asked, at = dict(self._dropped), dict(self._failed), self._asked, time.time()
        primary_s, shadow_s = tuple(self._primary_s.tolist()), tuple(self._shadow_s.tolist())
        self.changed = False
        self._comparing = True

        def seen() -> ShadowSeen:
            return ShadowSeen(
                id=self._id,
                server=self._around.server,
                deployment=self.deployment,
                primary_id=self.primary.version.id,
                version_id=self.version_id,
                share=self.share * 100,
                since=self._since,
                at=at,
                asked=asked,
                dropped=dropped,
                failed=failed,
                primary_s=primary_s,
                shadow_s=shadow_s,
                compared=self._disagreement.seen(),
            )

        return seen

    def told(self) -> None:
        """The report has been made: compare on."""
        self._comparing = bool(self._pairs)
        if self._pairs:
            self._loop.call_soon(self._compare)

    def seen(self) -> Compared:
        """Return how answers have compared so far."""
        return self._disagreement.seen()


class Around:
    """What shadows need to know of the server around them, and the one thread beside it that they share."""

    def __init__(self, server: str, room: Callable[[], bool], count: Callable[[str, str], None]) -> None:
        self.server = server
        self.room = room
        self.count = count
        self._thread = ThreadPoolExecutor(1, "shadow")

    def aside(self, work: Callable[[], object], then: Callable[..., None]) -> None:
        """Have something done in the thread, and `then` told in the event loop."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, work)
        future.add_done_callback(lambda done: then(done.result()))


def same_inputs(payload: "Matrix | Tensors", version: ServedVersion) -> "Matrix | Tensors | None":
    """Return the inputs as this version takes them; None where it takes others."""
    inputs = version.signature.inputs
    if isinstance(payload, Matrix):
        spec = plain_matrix(version.signature)
        if spec is None or (spec.name, spec.columns) != (payload.spec.name, payload.spec.columns):
            return None
        if spec.shape != payload.spec.shape and spec.shape[1] not in {-1, len(payload.rows[0])}:
            return None
        return Matrix(version.signature, payload.rows)
    if {one.name for one in inputs} != payload.keys():
        return None
    found: Tensors = {}
    for one in inputs:
        array, wanted = payload[one.name], one.dtype.numpy
        fits = len(one.shape) == array.ndim and all(want in (-1, got) for want, got in zip(one.shape, array.shape, strict=True))
        if not fits or not np.can_cast(array.dtype, wanted, "same_kind"):
            return None
        found[one.name] = array.astype(wanted, copy=False)
    return found


def _size(share: Share) -> int:
    return sum([share.tensor(name).size for name in share.names])
