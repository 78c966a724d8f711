"""One prediction on its way through the server: what is asked, by when, who waits, and how the answer is written."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import structlog

from modelkeep.contracts.errors import Internal, ModelkeepError
from modelkeep.serving.codec import PIECE, check_rows, values_of
from modelkeep.serving.matrix import Matrix, fitted

if TYPE_CHECKING:
    from modelkeep.contracts.snapshot import NotFinite
    from modelkeep.serving.cache import Asked
    from modelkeep.serving.codec import Tensors
    from modelkeep.serving.coercion import Array
    from modelkeep.serving.messages import Request, Response
    from modelkeep.serving.router import Route

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class Run:
    """The answer to one micro-batch. Lists for JSON are made once for all requests that share it."""

    __slots__ = ("_lists", "age_s", "large", "outputs", "preprocess_s", "run_s")

    def __init__(self, outputs: "Tensors", run_s: float, preprocess_s: float = 0.0) -> None:
        self.outputs = outputs
        self.run_s = run_s
        self.preprocess_s = preprocess_s
        self.large = False
        """Whether a thread writes its answers, piece by piece."""
        self.age_s: float | None = None
        """Seconds since it ran, where that was for another call (`serving/cache.py`)."""
        self._lists: dict[str, list[Any]] = {}

    @property
    def size(self) -> int:
        """How many values it has, of all its rows."""
        return sum([array.size for array in self.outputs.values()])

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(next(iter(self.outputs.values())))

    def lists(self, name: str) -> list[Any]:
        """Return an output as nested lists for JSON, all rows."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = values_of(self.outputs[name])
        return found


class Share:
    """One request's rows of a run."""

    __slots__ = ("_end", "_start", "run")

    def __init__(self, run: Run, start: int, end: int) -> None:
        self.run = run
        self._start = start
        self._end = end

    @property
    def names(self) -> "list[str]":
        """The outputs' names."""
        return list(self.run.outputs)

    def tensor(self, name: str) -> "Array":
        """Return this request's rows of an output."""
        return self.run.outputs[name][self._start : self._end]

    def values(self, name: str, not_finite: "NotFinite" = "null") -> list[Any]:
        """Return this request's rows of an output as nested lists; raises `AnswerNotFinite` where that is refused."""
        if not_finite != "null":
            return values_of(self.tensor(name), not_finite)
        return self.run.lists(name)[self._start : self._end]

    def json(self, values: list[Any]) -> list[Any] | msgspec.Raw:
        """Return lists as they are to be encoded: those of a large answer already are, which took many short steps, not one."""
        run = self.run
        return msgspec.Raw(_in_pieces(values, run.size * (self._end - self._start) // run.rows)) if run.large else values


def _in_pieces(values: list[Any], size: int) -> bytes:
    """Encode lists that hold about so many values. While one list is encoded, no other thread goes on."""
    step = max(1, len(values) * PIECE // max(1, size))
    if step == 1 and values and isinstance(values[0], list):
        pieces = [_in_pieces(row, size // len(values)) for row in values]
    else:
        pieces = [_encode(values[at : at + step])[1:-1] for at in range(0, len(values), step)]
    return b"[%s]" % b",".join(pieces)


class Answer(Protocol):
    """Where a call's answer goes: a future, or what stands for one."""

    def done(self) -> bool:
        """Whether it has its answer."""
        ...

    def set_result(self, response: "Response", /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Take why there is none."""
        ...


class Call:
    """One request for a prediction. `write(call, share)` makes its answer; `answer` is what its caller waits for.

    `asked`: what it asks of the response cache, where there is one.

    `kept`: what is written down of its inputs and of its answer, each with a note, where that has been made ready already.

    `kind`: calls of equal kind may share a run. `owner`: the person or service whose call it is, for fairness, and `key_id`
    what they asked with. `started` and `deadline` are seconds of the monotonic clock. `unit` is there where the deployment's
    traffic chose the route: whose requests stay together with it, None for nobody's.
    """

    __slots__ = (
        "answer",
        "answer_type",
        "asked",
        "attempts",
        "body",
        "bucket",
        "content_type",
        "deadline",
        "dialect",
        "id",
        "kept",
        "key_id",
        "kind",
        "owner",
        "payload",
        "request_id",
        "route",
        "rows",
        "share",
        "started",
        "unit",
        "write",
    )

    def __init__(self, route: "Route", request: "Request", dialect: str, body: bytes, started: float) -> None:
        self.route = route
        self.dialect = dialect
        self.body = body
        self.started = started
        self.id = f"prd_{request.ulid}"
        self.request_id = request.id
        key = request.key
        self.owner, self.key_id = (key.standing.user, key.id) if key is not None else ("", "")
        self.content_type = request.headers.get(b"content-type", b"application/json")
        self.answer: Answer
        self.answer_type = "application/json"
        self.payload: Matrix | Tensors = {}
        self.rows = 0
        self.kind: object = None
        self.share: Share | None = None
        self.kept: tuple[bytes | None, str, bytes | None, str] | None = None
        self.asked: Asked | None = None
        self.attempts = 0
        self.bucket = 0
        self.deadline = 0.0
        self.unit: int | None
        self.write: Callable[[Call, Share], Response]

    def ask(self, payload: "Matrix | Tensors", write: "Callable[[Call, Share], Response]") -> None:
        """Take what is asked for; raises `InvalidInput` when the tensors have no rows, or not equally many."""
        if isinstance(payload, Matrix):
            self.rows = len(payload.rows)
            spec = payload.spec
            self.kind = spec if spec.shape[1] >= 0 else (spec, len(payload.rows[0]))
        else:
            self.rows = check_rows(payload)
            self.kind = tuple((name, array.dtype.char, array.shape[1:]) for name, array in payload.items())
        self.payload = payload
        self.write = write

    def tensors(self) -> "Tensors":
        """Return what is asked for as tensors; raises `InvalidInput` where a number does not fit the model's datatype."""
        return self.payload.tensors() if isinstance(self.payload, Matrix) else self.payload

    @property
    def done(self) -> bool:
        """Whether it has been answered or refused, or its caller has left."""
        return self.answer.done()

    def fail(self, error: Exception) -> None:
        """Refuse it, unless it has been answered."""
        if not self.answer.done():
            self.answer.set_exception(error)


def together(calls: list[Call]) -> "Tensors | None":
    """Return the inputs of calls of one kind, their rows one after another; None where a value fits no float of the model's."""
    first = calls[0].payload
    if isinstance(first, Matrix):
        rows = first.rows if len(calls) == 1 else [row for call in calls for row in call.payload.rows]  # type: ignore[union-attr]
        array = fitted(first.spec, rows)
        return None if array is None else {first.spec.name: array}
    if len(calls) == 1:
        return first
    return {name: np.concatenate([call.payload[name] for call in calls]) for name in first}  # type: ignore[index]


def written(batch: list[Call], run: Run) -> "list[tuple[Call, Response | ModelkeepError]]":
    """Return the answers, or what is wrong with them, of those in a run who still wait for one."""
    finished: list[tuple[Call, Response | ModelkeepError]] = []
    start = 0
    for call in batch:
        end = start + call.rows
        if not call.done:
            call.share = Share(run, start, end)
            try:
                finished.append((call, call.write(call, call.share)))
            except ModelkeepError as error:
                finished.append((call, error))
            except Exception:
                log.exception("an answer cannot be written", prediction_id=call.id, request_id=call.request_id)
                finished.append((call, Internal()))
        start = end
    return finished
