"""What Vertex AI asks of a container: a route for predictions and one for health, at paths that it chooses.

    {"instances": [...], "parameters": {...}}    ->    {"predictions": [...]}, as many and in the same order

Rows are those of TensorFlow Serving's API. `parameters` may hold `top_k`: the best classes of each row, with their scores;
others are for models that know them and are passed over. Where the route is `/predict`, which has a form of its own here, an
object with `instances` is Vertex AI's, and all else is native. Errors are problem documents.

Source: cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import FieldError, InvalidInput, ModelkeepError
from modelkeep.contracts.signature import Signature
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.choice import Choice
from modelkeep.serving.codec import Tensors
from modelkeep.serving.dialects import native, rows
from modelkeep.serving.dialects.dialect import as_problem, only
from modelkeep.serving.dialects.native import MAX_TOP_K, InvalidJson, Native
from modelkeep.serving.engine import Engine, answer_headers, no_scores, top_classes
from modelkeep.serving.messages import Request, Response
from modelkeep.serving.settings import NATIVE_PREDICT, ServingSettings

NAME: Final = "vertex"

_ABSENT: Final = msgspec.Raw(b"")
_FILES: Final = (b"multipart/", b"image/", b"application/octet-stream")


class _Body(msgspec.Struct):
    instances: msgspec.Raw = _ABSENT
    parameters: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


class Vertex:
    """Answers the two routes of the settings, exact paths. `health` describes the server; here its status says more."""

    route: Final = NAME

    def __init__(
        self,
        settings: ServingSettings,
        engine: Engine,
        choice: Choice,
        *,
        native: Native,
        health: Callable[[], Response],
        ready: Callable[[], bool],
    ) -> None:
        self._predict_route = settings.predict_route
        self._health_route = settings.health_route
        self._engine = engine
        self._choice = choice
        self._native = native
        self._health = health
        self._ready = ready

    @property
    def routes(self) -> tuple[str, ...]:
        """The paths that are answered: none by default."""
        return tuple(route for route in (self._predict_route, self._health_route) if route)

    def needs(self, request: Request, parts: list[str]) -> Scope | None:  # noqa: ARG002 - the path alone says it
        """Return the scope that a path asks of a key: none for health."""
        if self._asks_for_health(request):
            return None
        only("POST", request)
        return Scope.PREDICT

    async def answer(self, request: Request, parts: list[str]) -> Response:  # noqa: ARG002 - the path alone says it
        """Answer a prediction, or whether predictions are answered."""
        if self._asks_for_health(request):
            return Response(200 if self._ready() else 503, self._health().body)
        version = request.query("version") if request.query_string else None
        return await self._engine.predict(
            self._choice.of(request), version, request, NAME, lambda call: self._read(call, request)
        )

    def _asks_for_health(self, request: Request) -> bool:
        """Whether it does; where both routes are one, the method tells."""
        if request.path != self._health_route:
            return False
        if request.method in {"GET", "HEAD"}:
            return True
        if self._health_route != self._predict_route:
            only("GET", request)
        return False

    def refusal(self, request: Request, error: ModelkeepError) -> Response:
        """Return an error as a problem document."""
        return as_problem(request, error)

    def _read(self, call: Call, request: Request) -> None:
        shared = self._predict_route == NATIVE_PREDICT
        asked = None if shared and call.content_type.startswith(_FILES) else _asked(call.body, shared=shared)
        if asked is None:
            call.dialect = native.NAME
            self._native.read(call, request)
            return
        top_k = _top_k(asked.parameters)
        if top_k is not None and not call.route.served.version.scores:
            raise no_scores()
        payload = rows.payload_of(call.route.served, asked.instances, "instances")
        call.ask(payload, lambda call, share: _written(call, share, top_k))


def tensors_of(signature: Signature, body: bytes) -> Tensors:
    """Return the inputs of a request that came before, read as a new one would be; raises what reading it raises."""
    asked = _asked(body, shared=False)
    assert asked is not None  # noqa: S101 - it is refused then
    return rows.instances_of(signature, asked.instances)


def _asked(body: bytes, *, shared: bool) -> _Body | None:
    """Return what is asked; where the route is `shared`, None for what is none of Vertex AI's, else raises `InvalidJson`."""
    try:
        asked = _decode(body)
    except msgspec.ValidationError as error:
        if shared:
            return None
        raise InvalidJson(f"The request does not fit Vertex AI's form: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if shared:
            return None
        raise InvalidJson("The body is not valid JSON.") from error
    if asked.instances is not _ABSENT:
        return asked
    if shared:
        return None
    raise InvalidJson('"instances" is missing: one item a row.')


def _top_k(parameters: dict[str, Any] | None) -> int | None:
    top_k = (parameters or {}).get("top_k")
    if top_k is None:
        return None
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
        text = f"top_k is a whole number from 1 to {MAX_TOP_K}."
        raise InvalidInput(text, fields=(FieldError("parameters.top_k", "out_of_range", text),))
    return top_k


def _written(call: Call, share: Share, top_k: int | None) -> Response:
    predictions = rows.in_rows(call, share) if top_k is None else share.json(list(top_classes(call, share, top_k)))
    return Response(200, _encode({"predictions": predictions}), headers=answer_headers(call))
