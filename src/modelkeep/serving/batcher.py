"""Many requests, one run: whatever arrives while a run is in flight forms the next one; a lone caller never waits.

Each request gets exactly its own rows. A run that fails with several requests in it is repeated with each of them alone, so
one bad row fails alone. When the runner is lost, its requests are tried once more, alone, on the next runner.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

import numpy as np

from modelkeep.contracts.errors import (
    FieldError,
    InvalidInput,
    ModelFailed,
    ModelkeepError,
    OutOfMemory,
    Overloaded,
    RunnerLost,
    Timeout,
)
from modelkeep.sandbox import frames
from modelkeep.sandbox.connection import RunnerConnection, RunnerGone

if TYPE_CHECKING:
    from modelkeep.serving.codec import Tensors

_ATTEMPTS = 2
_MAX_DETAIL = 200


class Answer:
    """One request's share of a run: its outputs by name, and how long the run took in seconds."""

    __slots__ = ("outputs", "run_s")

    def __init__(self, outputs: "Tensors", run_s: float) -> None:
        self.outputs = outputs
        self.run_s = run_s


class Replica(Protocol):
    """What the batcher needs of a runner process."""

    connection: RunnerConnection

    def kill(self) -> None:
        """End the process: its run has passed the limit."""
        ...


class _Request:
    __slots__ = ("alone", "answer", "attempts", "kind", "rows", "tensors")

    def __init__(self, tensors: "Tensors", rows: int, answer: "asyncio.Future[Answer]") -> None:
        self.tensors = tensors
        self.rows = rows
        self.answer = answer
        self.attempts = 0
        self.alone = False
        self.kind = tuple((name, array.dtype.str, array.shape[1:]) for name, array in tensors.items())


class Batcher:
    """The queue in front of one version's runner."""

    def __init__(self, *, max_rows: int, max_queue: int, run_timeout_s: float) -> None:
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._run_timeout_s = run_timeout_s
        self._queue: deque[_Request] = deque()
        self._replica: Replica | None = None
        self._running: list[_Request] = []
        self._held: ModelkeepError | None = None
        self._late = False
        self.runs = 0

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nothing runs."""
        return not self._running and not self.waiting

    @property
    def attached(self) -> bool:
        """Whether a runner stands behind the queue."""
        return self._replica is not None

    @property
    def waiting(self) -> int:
        """How many requests wait for a run."""
        return sum(not one.answer.done() for one in self._queue)

    def submit(self, tensors: "Tensors", rows: int) -> "asyncio.Future[Answer]":
        """Queue one request of `rows` rows; the future has its own rows' answer. Raises when it cannot be taken at all."""
        if self._held is not None:
            raise _again(self._held)
        if len(self._queue) >= self._max_queue:
            self._queue = deque(one for one in self._queue if not one.answer.done())  # callers that have left take no place
            if len(self._queue) >= self._max_queue:
                raise Overloaded(retry_after_s=1)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(tensors, rows, answer))
        self._next()
        return answer

    def attach(self, replica: Replica) -> None:
        """A runner is ready: run what waits."""
        self._replica = replica
        self._held = None
        self._next()

    def detach(self, replica: Replica) -> None:
        """The runner is gone or going: what waits, waits for the next one."""
        if self._replica is replica:
            self._replica = None

    def hold(self, error: ModelkeepError) -> None:
        """There will be no runner for a while: refuse what waits, and what comes, with `error`."""
        self._held = error
        while self._queue:
            _fail(self._queue.popleft(), _again(error))

    def _next(self) -> None:
        """Start the next run, if there is a runner, nothing runs, and somebody waits."""
        while self._replica is not None and not self._running:
            batch = self._gather()
            if not batch:
                return
            self._start(self._replica, batch)

    def _start(self, replica: Replica, batch: list[_Request]) -> None:
        if len(batch) == 1:
            tensors = batch[0].tensors
        else:
            tensors = {name: np.concatenate([one.tensors[name] for one in batch]) for name in batch[0].tensors}
        try:
            running = replica.connection.run(tensors)
        except frames.FrameError:
            if len(batch) == 1:
                _fail(batch[0], InvalidInput("The inputs are larger than one run may hold: send fewer rows."))
            else:
                self._each_alone(batch)
            return
        except RunnerGone:
            self.detach(replica)
            self._queue.extendleft(reversed(batch))
            return
        self._running = batch
        self._late = False
        self.runs += 1
        limit = asyncio.get_running_loop().call_later(self._run_timeout_s, self._overdue, replica)
        running.add_done_callback(lambda done: self._finish(done, limit, replica))

    def _gather(self) -> list[_Request]:
        """Take the next requests that may share a run: same inputs, no more rows than allowed, callers still there."""
        batch: list[_Request] = []
        rows = 0
        while self._queue:
            one = self._queue[0]
            if one.answer.done():
                self._queue.popleft()
                continue
            if batch and (one.alone or batch[0].alone or one.kind != batch[0].kind or rows + one.rows > self._max_rows):
                break
            batch.append(self._queue.popleft())
            rows += one.rows
        return batch

    def _overdue(self, replica: Replica) -> None:
        self._late = True
        replica.kill()

    def _finish(
        self,
        done: "asyncio.Future[tuple[frames.Result | frames.RunFailed, Tensors]]",
        limit: asyncio.TimerHandle,
        replica: Replica,
    ) -> None:
        limit.cancel()
        batch, self._running = self._running, []
        if done.cancelled() or done.exception() is not None:
            self.detach(replica)
            self._retry(batch)
        else:
            message, tensors = done.result()
            if isinstance(message, frames.RunFailed):
                self._failed(batch, message)
            elif any(array.shape[:1] != (sum(one.rows for one in batch),) for array in tensors.values()):
                self._failed(batch, frames.RunFailed(message.id, "output_invalid", "not one answer a row"))
            else:
                _share(batch, message, tensors)
        self._next()

    def _retry(self, batch: list[_Request]) -> None:
        for one in reversed(batch):
            one.attempts += 1
            if self._late and len(batch) == 1:
                _fail(one, Timeout("The model did not answer within the time that one run may take."))
            elif one.attempts >= _ATTEMPTS:
                _fail(one, RunnerLost(retry_after_s=1))
            elif self._held is not None:
                _fail(one, _again(self._held))
            else:
                one.alone = True
                self._queue.appendleft(one)

    def _failed(self, batch: list[_Request], message: frames.RunFailed) -> None:
        if len(batch) == 1:
            _fail(batch[0], _error(message))
        else:
            self._each_alone(batch)

    def _each_alone(self, batch: list[_Request]) -> None:
        for one in reversed(batch):
            one.alone = True
            self._queue.appendleft(one)


def _share(batch: list[_Request], message: frames.Result, tensors: "Tensors") -> None:
    if len(batch) == 1:
        if not batch[0].answer.done():
            batch[0].answer.set_result(Answer(tensors, message.run_s))
        return
    start = 0
    for one in batch:
        end = start + one.rows
        if not one.answer.done():
            one.answer.set_result(Answer({name: array[start:end] for name, array in tensors.items()}, message.run_s))
        start = end


def _fail(one: _Request, error: ModelkeepError) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)


def _again(error: ModelkeepError) -> ModelkeepError:
    """Return an equal error: one that is raised to many callers would carry, and keep, the stacks of them all."""
    return type(error)(error.message, fields=error.fields, retry_after_s=error.retry_after_s)


def _error(message: frames.RunFailed) -> ModelkeepError:
    detail = message.detail[:_MAX_DETAIL]  # a runner's word, sent on to the caller
    path = "inputs" if message.row is None else f"inputs[{message.row}]"
    match message.code:
        case "memory":
            return OutOfMemory(retry_after_s=1)
        case "bad_image":
            return InvalidInput(f"{path}: {detail}", fields=(FieldError(path, "bad_image", detail),))
        case "refused":
            text = "The model does not accept these values."
            return InvalidInput(text, fields=(FieldError(path, "refused_by_model", text),))
        case _:
            return ModelFailed()
