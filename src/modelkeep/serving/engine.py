"""predict(): the whole story of one prediction on one screen. Dialects decode within it, and encode when the run has ended."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput, Kind, ModelkeepError, Overloaded, Timeout
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.choice import version_asked
from modelkeep.serving.codec import values_of
from modelkeep.serving.coercion import Array
from modelkeep.serving.deadlines import Deadlines
from modelkeep.serving.large import LARGE, Large
from modelkeep.serving.limits import Limits, TooManyAtOnce
from modelkeep.serving.matrix import Matrix
from modelkeep.serving.messages import ClientGone, Request, Response
from modelkeep.serving.pool import Served
from modelkeep.serving.recorder import Recorder
from modelkeep.serving.router import Route, Router
from modelkeep.serving.settings import ServingSettings
from modelkeep.serving.view import Doors, View

_ROWS_AXES = 2
_REJECTED = frozenset({Kind.INVALID, Kind.TOO_LARGE, Kind.NOT_FOUND})

Read = Callable[[Call], None]
"""A dialect's decoder: reads `call.body`, and gives the call its rows and the function that writes its answer."""


Tell = Callable[[Response | Exception], None]


class InvalidTimeout(Invalid):
    """`X-Request-Timeout` is a number of seconds above 0."""

    code = "invalid_timeout"


class TooManyRequests(Overloaded):
    """As many requests of this deployment are under way as its settings allow: try again soon."""

    code = "deployment_concurrency"


class Engine:
    """Answers predictions within their deadlines and limits; counts them, and has them written down."""

    def __init__(
        self, settings: ServingSettings, router: Router, limits: Limits, recorder: Recorder, large: Large | None = None
    ) -> None:
        self._settings = settings
        self._large = large or Large()
        self._max_body = settings.max_body_mb * 1024 * 1024
        self._router = router
        self._doors = Doors(router)
        self._limits = limits
        self._recorder = recorder
        self._deadlines = Deadlines(_overdue)

    async def predict(self, deployment: str, version: str | None, request: Request, dialect: str, read: Read) -> Response:
        """Answer one request; raises `Timeout` at its deadline, `Limited` or `Overloaded` at once where it is not taken."""
        started = time.monotonic()
        version = version_asked(request, version)
        admitted = self.admit(deployment, version, request)  # refused before its body is read
        try:
            body = await self._body(admitted, request, dialect, started)
            call = Call(self._router.find(deployment, version), request, dialect, body, started)
            if call.route.sharing is not None and version is None:
                call.route.sharing.assign(call, request)
            answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            call.answer = answer
            self._begin(call, request, read)
            try:
                return await answer
            except ModelkeepError as error:
                self.failed(call, error)
                raise
            finally:
                self._end(call, request)
        finally:
            self._release(admitted, request)

    async def _body(self, route: Route, request: Request, dialect: str, started: float) -> bytes:
        """Return the request's body; its time is the request's, so that none holds a place for longer by sending slowly."""
        try:
            seconds = self._seconds(route, request)
            async with asyncio.timeout(seconds) as patience:
                return await request.body(self._max_body)
        except TimeoutError as error:
            if not patience.expired():
                raise
            late = Timeout(f"The request had not come by its deadline of {seconds:g} s.")
            self.failed(Call(route, request, dialect, b"", started), late, came=False)
            raise late from error
        except InvalidTimeout as error:
            self.failed(Call(route, request, dialect, b"", started), error)
            raise

    def view(self, request: Request) -> View:
        """Return what answers here as far as whoever asks may know it."""
        return View(self._router, self._doors, request.key)

    def admit(self, deployment: str, version: str | None, request: Request) -> Route:
        """Return what answers; raises `NotFound` or `Forbidden`, `Limited` or `Overloaded` where something is at its limits."""
        if request.key is not None:
            self._doors.check(request.key, deployment)
        route = self._router.find(deployment, version)
        most = route.settings.concurrency
        if most and (route.underway.count >= most or not self._limits.enter(route.name, most)):
            route.meter.turned_away("concurrency")
            raise TooManyRequests(retry_after_s=1)
        try:
            self._limits.admit(request, route.name, route.settings.rate)
        except ModelkeepError as error:
            if most:
                self._limits.leave(route.name)
            route.meter.turned_away("concurrency" if isinstance(error, TooManyAtOnce) else "limit")
            raise
        route.underway.count += 1
        return route

    def check_limits(self, request: Request) -> None:
        """Raise `Limited` where the request's key is at its limits now; nothing is counted."""
        self._limits.check(request)

    def predict_whole(
        self,
        deployment: str,
        request: Request,
        dialect: str,
        body: bytes,
        *,
        read: Read,
        tell: Tell,
        version: str | None = None,
    ) -> None:
        """Do what `predict` does, for a request that is there with its body, without a task: `tell` gets answer or error."""
        started = time.monotonic()
        version = version_asked(request, version)
        route = self.admit(deployment, version, request)
        try:
            call = Call(route, request, dialect, body, started)
            if route.sharing is not None and version is None:
                route.sharing.assign(call, request)
            call.answer = _Told(self, call, request, tell)
            self._begin(call, request, read)
        except BaseException:
            self._release(route, request)
            raise

    def settled(self, call: Call, request: Request, error: Exception | None) -> None:
        """A call of `predict_whole` has been answered, or refused with `error`."""
        self._end(call, request)
        self._release(call.route, request)
        if isinstance(error, ModelkeepError):
            self.failed(call, error)

    def _begin(self, call: Call, request: Request, read: Read) -> None:
        """Read the call's rows and queue it."""
        try:
            call.deadline = call.started + self._seconds(call.route, request)
            if len(call.body) > LARGE:
                self._begin_large(call, request, read)
                return
            read(call)
            self._deadlines.add(call)
            request.when_gone(lambda: _leave(call))
            if call.route.cache is None:
                call.route.served.batcher.submit(call)
            else:
                call.route.cache.submit(call, request)
        except BaseException as error:
            self._end(call, request)
            if isinstance(error, ModelkeepError):
                self.failed(call, error)
            raise

    def _begin_large(self, call: Call, request: Request, read: Read) -> None:
        """Have the call's rows read in a thread, then queue it; its deadline passes and its caller leaves meanwhile as ever."""
        self._deadlines.add(call)
        request.when_gone(lambda: _leave(call))
        self._large.do(
            call.owner,
            len(call.body),
            lambda: self._read_large(call, request, read),
            lambda error: self._queue(call, request, error),
        )
        call.route.served.batcher.reading += 1

    def _read_large(self, call: Call, request: Request, read: Read) -> None:
        """Read a call's rows in a thread, unless nobody waits for it any more; leave the event loop nothing to convert."""
        if call.done:
            return
        read(call)
        self._recorder.prepare(call)  # of the numbers that were sent, before they are rounded to the model's datatype
        if isinstance(call.payload, Matrix):
            call.ask(call.payload.tensors(), call.write)
        if call.route.cache is not None:
            call.asked = call.route.cache.ask(call, request)  # which reads all of the rows

    def _queue(self, call: Call, request: Request, error: Exception | None) -> None:
        """Queue a call whose rows have been read, or refuse it with what was wrong with them."""
        batcher = call.route.served.batcher
        batcher.reading -= 1
        if call.done:
            return
        if error is not None:
            call.fail(error)
            return
        try:
            self._deadlines.discard(call)
            self._deadlines.add(call)  # what was read may have brought it forward
            if call.route.cache is None:
                batcher.submit(call)
            else:
                call.route.cache.submit(call, request)
        except Exception as refusal:  # noqa: BLE001 - told, and logged where it is our fault
            call.fail(refusal)

    def _end(self, call: Call, request: Request) -> None:
        request.when_gone(None)
        self._deadlines.discard(call)
        if call.asked is not None:
            call.asked.end(call)

    def _release(self, route: Route, request: Request) -> None:
        route.underway.count -= 1
        if route.settings.concurrency:
            self._limits.leave(route.name)
        if request.key is not None:
            self._limits.release(request.key)

    def failed(self, call: Call, error: ModelkeepError, *, came: bool = True) -> None:
        """Count a prediction that was not answered; write it down, unless it was turned away unrun.

        Only what `came` counts for a trial: that a body is late is the caller's own slowness.
        """
        meter = call.route.meter
        if isinstance(error, Overloaded):
            meter.turned_away("deadline" if error.code == "deadline_unreachable" else "queue")
            return
        outcome: Literal["rejected", "error"] = "rejected" if error.kind in _REJECTED else "error"
        if call.route.arm is not None and came and outcome == "error":
            call.route.arm.failed(call, error)
        meter.refused(outcome)
        meter.sums.failed(time.monotonic() - call.started)
        self._recorder.refused(call, error, outcome)

    def _seconds(self, route: Route, request: Request) -> float:
        """Return how long this request may take: its own wish, never more than its deployment or the installation allows."""
        most = route.settings.deadline_s or self._settings.deadline_s
        wish = request.headers.get(b"x-request-timeout")
        if wish is None:
            return most
        try:
            seconds = float(wish)
        except ValueError as error:
            raise InvalidTimeout from error
        if not 0 < seconds < float("inf"):
            raise InvalidTimeout
        return min(seconds, most)


class _Told:
    """Stands for a call's future where nobody waits for one: whoever is to be told, is told at once.

    It lets go of all it knows then: call and answer would hold each other for the garbage collector to find.
    """

    __slots__ = ("_asked", "_engine", "_tell")

    def __init__(self, engine: Engine, call: Call, request: Request, tell: Tell) -> None:
        self._engine = engine
        self._asked: tuple[Call, Request] | None = call, request
        self._tell: Tell | None = tell

    def done(self) -> bool:
        """Whether it has been told."""
        return self._asked is None

    def set_result(self, response: Response) -> None:
        """Tell the answer."""
        self._settle(None, response)

    def set_exception(self, error: Exception) -> None:
        """Tell why there is none."""
        self._settle(error, error)

    def _settle(self, error: Exception | None, result: Response | Exception) -> None:
        asked, tell = self._asked, self._tell
        assert asked is not None and tell is not None  # noqa: S101, PT018 - nobody is told twice
        self._asked = self._tell = None
        try:
            self._engine.settled(*asked, error)
        finally:
            tell(result)


def _overdue(call: Call) -> None:
    _end(call, Timeout(f"The prediction took longer than its deadline of {call.deadline - call.started:g} s."))


def _leave(call: Call) -> None:
    _end(call, ClientGone())


def _end(call: Call, error: Exception) -> None:
    """Refuse a call that has not been answered, and free its place."""
    call.route.served.batcher.leave(call)
    call.fail(error)


def answer_headers(call: Call) -> tuple[tuple[bytes, bytes], ...]:
    """Return what every dialect says beside its body."""
    headers = ((b"x-prediction-id", call.id.encode()),) + call.route.served.told  # noqa: RUF005 - unpacking takes longer
    return headers if call.asked is None else (*headers, *call.asked.headers)


def scores_of(call: Call, share: Share) -> Array | None:
    """Return the output that holds one score a class, if the version has one."""
    name = call.route.served.version.scores
    if name not in share.run.outputs:
        return None
    scores = share.tensor(name)
    return scores if scores.ndim == _ROWS_AXES else None


def top_classes(call: Call, share: Share, top_k: int) -> list[list[dict[str, object]]]:
    """Return, for each row, its `top_k` best classes, best first; raises `InvalidInput` where the model has no scores."""
    scores = scores_of(call, share)
    if scores is None:
        raise no_scores()
    names = class_names(call.route.served)
    places, values = best(scores, top_k)
    return [
        [
            {"label": names[index] if index < len(names) else str(index), "index": index, "score": score}
            for index, score in zip(indexes, row, strict=True)
        ]
        for indexes, row in zip(places.tolist(), values_of(values, call.route.settings.not_finite), strict=True)
    ]


def best(scores: Array, count: int) -> tuple[NDArray[np.intp], Array]:
    """Return the places of each row's highest numbers, best first, and these; of equal ones the first is first."""
    if scores.dtype.kind == "f":
        order = np.argsort(np.negative(scores), axis=1, kind="stable")  # NaN last
    else:  # unsigned numbers have no negative
        order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]
    places = order[:, :count]
    return places, np.take_along_axis(scores, places, axis=1)


def no_scores() -> InvalidInput:
    """Return the refusal of `top_k` where there is nothing to rank."""
    text = "This model has no class scores, so there is no top_k."
    return InvalidInput(text, fields=(FieldError("top_k", "no_scores", text),))


def class_names(served: Served) -> tuple[str, ...]:
    """Return the names of the classes: the uploader's labels, else the model's own, else none."""
    if served.version.labels:
        return served.version.labels
    return next((spec.classes for spec in served.version.signature.outputs if spec.name == served.version.scores), ())
