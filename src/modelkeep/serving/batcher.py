"""Many requests, one run: whatever arrives while a run is in flight forms the next one; a lone caller never waits.

Each request gets exactly its own rows. A run that fails with several requests in it is repeated with each of them alone, so
one bad row fails alone. When a runner is lost, its requests are tried once more, alone, on another or on the next one.
Callers take turns: one that asks for much waits behind itself, not the others behind it.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import structlog

from modelkeep.contracts.errors import (
    FieldError,
    Internal,
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
from modelkeep.serving.calls import Call, Run, together, written
from modelkeep.serving.large import LARGE_ANSWER, AnswerNotWritten, Large, TooMuchAtOnce
from modelkeep.serving.modes import Plan

if TYPE_CHECKING:
    from modelkeep.serving.codec import Tensors
    from modelkeep.serving.messages import Response

log = structlog.get_logger(__name__)

_ATTEMPTS = 2
_MAX_DETAIL = 200
_SMOOTHING = 0.2
_BYTES_A_VALUE = 32  # of an answer that is being written: a number of Python's, and its digits
_CAUTION = 1.25  # under a lasting overload everyone who is let in is answered at the edge: half of them too late without it

Finished = list[tuple[Call, "Response | ModelkeepError"]]


class TooLate(Overloaded):
    """So many requests wait for this model that the answer would come after the request's deadline: try again soon."""

    code = "deadline_unreachable"


class Replica(Protocol):
    """What the batcher needs of a runner process."""

    connection: RunnerConnection

    def kill(self) -> None:
        """End the process: its run has passed the limit."""
        ...

    def release(self) -> None:
        """It was detached, and has finished what it had."""
        ...


class _Flight:
    """A run on its way: whose it is, since when, and the timer of its limit."""

    __slots__ = ("calls", "late", "limit", "replica", "since")

    def __init__(self, calls: list[Call], replica: Replica, since: float) -> None:
        self.calls = calls
        self.replica = replica
        self.since = since
        self.late = False
        self.limit: asyncio.TimerHandle


class Batcher:
    """The queue in front of one version's runners.

    `finish` is handed every answered call of a run at once, before anyone hears of it: what must be written down, is then. It
    returns the error to answer with instead, or None. `missed` hears of each call that finds no runner.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        max_queue: int,
        run_timeout_s: float,
        finish: Callable[[Finished, Run], ModelkeepError | None],
        missed: Callable[[], None] = lambda: None,
        large: Large | None = None,
    ) -> None:
        self._plan = plan
        self._max_queue = max_queue
        self._run_timeout_s = run_timeout_s
        self._finish_all = finish
        self._missed = missed
        self._large = large or Large()
        self._loop = asyncio.get_running_loop()
        self._callers: OrderedDict[str, OrderedDict[Call, None]] = OrderedDict()
        self._again: deque[Call] = deque()
        self._queued = 0
        self._members: set[Replica] = set()
        self._idle: list[Replica] = []
        self._flights: dict[Replica, _Flight] = {}
        self._held: ModelkeepError | None = None
        self._expected = 1
        self._scheduled = False
        self._waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pace_s = 0.0
        self._run_s = 0.0
        self._busy_s = 0.0
        self.told: Callable[[Finished], None] | None = None
        """Hears of a run's calls once all of them have been told: what they were answered, or why the model did not."""
        self.runs = 0
        self.reading = 0
        """How many calls will be queued here once a thread has read them."""

    # ---- what others see

    @property
    def replicas(self) -> int:
        """How many runners stand behind it."""
        return len(self._members)

    @property
    def busy(self) -> int:
        """How many of them run."""
        return len(self._flights)

    @property
    def attached(self) -> bool:
        """Whether there is a runner."""
        return bool(self._members)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing runs, and nothing is read that will."""
        return not self._flights and not self.waiting and not self.reading

    @property
    def waiting(self) -> int:
        """How many requests wait for a run."""
        return self._queued + len(self._again)

    @property
    def predicted_wait_s(self) -> float:
        """Seconds that a request which came now would wait for its run to start, by the pace of the last runs."""
        if self._idle or not self._flights:
            return 0.0
        return (self.waiting + 1) * self._pace_s / len(self._flights)

    def busy_s(self) -> float:
        """Return the seconds that all runners together have run so far, and run now."""
        now = time.monotonic()
        return self._busy_s + sum(now - flight.since for flight in self._flights.values())

    def reconsider(self, plan: Plan) -> None:
        """Form runs by another plan from now on."""
        self._plan = plan

    # ---- calls

    def submit(self, call: Call) -> None:
        """Queue a call. Raises `Overloaded` or another error when it cannot be taken at all."""
        if self._held is not None and not self._members:
            raise _again(self._held)
        mine = self._callers.get(call.owner)
        if self._queued >= self._max_queue and not self._has_room(mine):
            raise Overloaded(retry_after_s=max(1.0, self.predicted_wait_s))
        now = time.monotonic()
        wait = self.predicted_wait_s
        if wait and now + _CAUTION * (wait + self._run_s) > call.deadline:
            raise TooLate(retry_after_s=max(1.0, wait))
        if mine is None:
            mine = self._callers[call.owner] = OrderedDict()
        mine[call] = None
        self._queued += 1
        if self._idle and not self._scheduled:
            if self._expected <= 1 and self._plan.mode == "cheap":
                self._next()  # the last run was a lone caller's, and so will this be
                return
            self._soon()
        elif not self._members:
            self._missed()

    def _has_room(self, mine: "OrderedDict[Call, None] | None") -> bool:
        """Whether a full queue takes a call yet: one of a caller that holds less than its share, up to twice the bound."""
        if self._queued >= 2 * self._max_queue:
            return False
        return mine is None or (len(mine) + 1) * len(self._callers) <= self._max_queue

    def answer(self, call: Call, run: Run) -> None:
        """Answer a call, which is not queued, by a run that was another's: its rows are those of the call."""
        self._share([call], run)

    def leave(self, call: Call) -> None:
        """A call's caller has gone, or its time is up: it takes no place any more. What runs already, runs on."""
        mine = self._callers.get(call.owner)
        if mine is not None and call in mine:
            del mine[call]
            self._queued -= 1
            if not mine:
                del self._callers[call.owner]
        elif call in self._again:
            self._again.remove(call)

    # ---- runners

    def attach(self, replica: Replica) -> None:
        """A runner is ready: run what waits."""
        self._members.add(replica)
        self._idle.append(replica)
        self._held = None
        self._next()

    def detach(self, replica: Replica) -> None:
        """A runner is gone or to go: it gets nothing more, and is released when it has finished what it has."""
        self._members.discard(replica)
        if replica in self._idle:
            self._idle.remove(replica)
        if replica not in self._flights:
            replica.release()
        self._give_up()

    def hold(self, error: ModelkeepError) -> None:
        """There will be no more runners for a while: once none is left, refuse what waits, and what comes, with `error`."""
        self._held = error
        self._give_up()

    def unhold(self) -> None:
        """Let calls wait again: somebody will be asked for a runner."""
        self._held = None

    def _give_up(self) -> None:
        error = self._held
        if error is None or self._members:
            return
        waiting = [*self._again, *(call for mine in self._callers.values() for call in mine)]
        self._again.clear()
        self._callers.clear()
        self._queued = 0
        for call in waiting:
            call.fail(_again(error))

    # ---- runs

    def _soon(self) -> None:
        """Start runs at the end of this turn of the event loop: whoever comes in the same turn goes along."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        self._next()

    def _next(self) -> None:
        """Start as many runs as there are idle runners and somebody waits, unless it pays to wait for more."""
        while self._idle and (self._queued or self._again):
            if self._plan.max_wait_s and not self._again and self._should_wait():
                return
            batch = self._gather()
            if not batch:
                return
            self._start(self._idle.pop(), batch)

    def _should_wait(self) -> bool:
        """Whether callers that were here a moment ago are about to come back, and there is time to wait for them."""
        if self._queued >= min(self._expected, self._plan.max_rows):
            return False
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        left = self._waiting_since + self._plan.max_wait_s - now
        if left <= 0:
            return False
        if self._timer is None:
            self._timer = self._loop.call_later(left, self._waited)
        return True

    def _waited(self) -> None:
        self._timer = None
        self._next()

    def _start(self, replica: Replica, batch: list[Call]) -> None:
        flight = _Flight(batch, replica, time.monotonic())
        try:
            tensors = together(batch)
            if tensors is None:
                self._unfit(replica, batch)
                return
            replica.connection.ask(tensors, lambda result: self._finish(result, flight))
        except frames.FrameError:
            self._idle.append(replica)
            if len(batch) == 1:
                batch[0].fail(InvalidInput("The inputs are larger than one run may hold: send fewer rows."))
            else:
                self._each_alone(batch)
            return
        except RunnerGone:
            self._again.extendleft(reversed(batch))
            return
        self._flights[replica] = flight
        self._waiting_since = None
        self._expected = len(batch) + self._queued
        self.runs += 1
        flight.limit = self._loop.call_later(self._run_timeout_s, self._overdue, flight)

    def _unfit(self, replica: Replica, batch: list[Call]) -> None:
        """Some value is too large for the model's datatype: whose, is found out one at a time."""
        self._idle.append(replica)
        if len(batch) > 1:
            self._each_alone(batch)
            return
        try:
            batch[0].payload.check()  # type: ignore[union-attr]
        except InvalidInput as error:
            batch[0].fail(error)

    def _gather(self) -> list[Call]:
        """Take the next calls that may share a run: of one kind, no more rows than allowed; each caller in turn."""
        suspect = self._suspect()
        if suspect is not None:
            return [suspect]
        batch: list[Call] = []
        rows, most, callers = 0, self._plan.max_rows, self._callers
        passed = 0
        passed_over: str | None = None
        while callers and passed < len(callers):
            owner, mine = next(iter(callers.items()))
            call = next(iter(mine))
            if batch and ((call.kind is not batch[0].kind and call.kind != batch[0].kind) or rows + call.rows > most):
                if len(callers) == 1:
                    break
                callers.move_to_end(owner)
                passed += 1
                if passed_over is None:
                    passed_over = owner
                continue
            passed = 0
            del mine[call]
            self._queued -= 1
            if mine:
                if len(callers) > 1:
                    callers.move_to_end(owner)
            else:
                del callers[owner]
            batch.append(call)
            rows += call.rows
            if not self._plan.together:
                break
        if passed_over is not None:
            self._begin_with(passed_over)
        return batch

    def _begin_with(self, owner: str) -> None:
        """Let this caller, who was passed over, begin the next run; the turns of all others stay as they are."""
        while (first := next(iter(self._callers))) != owner:
            self._callers.move_to_end(first)

    def _suspect(self) -> Call | None:
        """Take the next call that is to be run alone."""
        while self._again:
            call = self._again.popleft()
            if not call.done:
                return call
        return None

    def _overdue(self, flight: _Flight) -> None:
        flight.late = True
        flight.replica.kill()

    def _finish(self, result: "tuple[frames.Result | frames.RunFailed, Tensors] | RunnerGone", flight: _Flight) -> None:
        flight.limit.cancel()
        del self._flights[flight.replica]
        took = time.monotonic() - flight.since
        self._busy_s += took
        batch = flight.calls
        if isinstance(result, RunnerGone):
            self._retry(flight)
        else:
            if flight.replica in self._members:
                self._idle.append(flight.replica)
            else:
                flight.replica.release()
            self._pace(took, len(batch))
            message, tensors = result
            if isinstance(message, frames.RunFailed):
                self._failed(batch, message)
            elif any(array.shape[:1] != (sum(one.rows for one in batch),) for array in tensors.values()):
                self._failed(batch, frames.RunFailed(message.id, "output_invalid", "not one answer a row"))
            else:
                self._share(batch, Run(tensors, message.run_s, message.preprocess_s))
        if self._queued or self._again:
            self._soon()

    def _pace(self, took: float, calls: int) -> None:
        """Note how long a run took, and a request of it: what the next ones will wait for."""
        weight = _SMOOTHING if self._pace_s else 1.0
        self._pace_s += (took / calls - self._pace_s) * weight
        self._run_s += (took - self._run_s) * weight

    def _share(self, batch: list[Call], run: Run) -> None:
        """Give everyone in a run its answer. Where one of them is large, a thread writes the run's answers."""
        if run.size <= LARGE_ANSWER or run.size * (most := max(batch, key=attrgetter("rows"))).rows // run.rows <= LARGE_ANSWER:
            self._tell(written(batch, run), run)
            return
        run.large = True
        try:
            self._large.do(
                most.owner, run.size * _BYTES_A_VALUE, lambda: written(batch, run), lambda done: self._tell_large(done, run)
            )
        except TooMuchAtOnce:
            self._tell([(call, AnswerNotWritten(retry_after_s=1)) for call in batch if not call.done], run)

    def _tell_large(self, finished: Finished | Exception, run: Run) -> None:
        """Tell the answers that a thread has written to those who still wait for theirs."""
        assert not isinstance(finished, Exception)  # noqa: S101 - each call has its own trouble
        still = [one for one in finished if not one[0].done]
        if still:
            self._tell(still, run)

    def _tell(self, finished: Finished, run: Run) -> None:
        trouble: ModelkeepError | None
        try:
            trouble = self._finish_all(finished, run)
        except Exception:
            log.exception("answers cannot be written down", predictions=len(finished))
            trouble = Internal()
        for call, response in finished:
            try:
                if trouble is not None:
                    call.fail(_again(trouble))
                elif isinstance(response, ModelkeepError):
                    call.fail(response)
                else:
                    call.answer.set_result(response)
            except Exception:  # whoever is told may be told at once, and its trouble is not the others'
                log.exception("an answer cannot be given", prediction_id=call.id, request_id=call.request_id)
        if self.told is not None and trouble is None:
            self.told(finished)

    def _retry(self, flight: _Flight) -> None:
        batch = flight.calls
        for call in reversed(batch):
            if call.done:
                continue
            call.attempts += 1
            if flight.late and len(batch) == 1:
                call.fail(Timeout("The model did not answer within the time that one run may take."))
            elif call.attempts >= _ATTEMPTS:
                call.fail(RunnerLost.of(flight.since))
            elif self._held is not None and not self._members:
                call.fail(_again(self._held))
            else:
                self._again.appendleft(call)

    def _failed(self, batch: list[Call], message: frames.RunFailed) -> None:
        if len(batch) > 1:
            self._each_alone(batch)
            return
        error, waited = _error(message), not batch[0].done
        batch[0].fail(error)
        if self.told is not None and waited:
            self.told([(batch[0], error)])

    def _each_alone(self, batch: list[Call]) -> None:
        for call in reversed(batch):
            if not call.done:
                self._again.appendleft(call)


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
            return InvalidInput.at(path, "bad_image", detail)
        case "refused":
            text = "The model does not accept these values."
            return InvalidInput(text, fields=(FieldError(path, "refused_by_model", text),))
        case _:
            return ModelFailed()
