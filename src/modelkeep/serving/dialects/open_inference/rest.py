"""The Open Inference Protocol's paths over REST: health, metadata, inference, and the extensions' paths."""

from collections.abc import Callable
from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError, NotFound
from modelkeep.serving.choice import version_asked
from modelkeep.serving.dialects.dialect import as_error
from modelkeep.serving.dialects.native import InvalidJson
from modelkeep.serving.dialects.open_inference import NAME, describe
from modelkeep.serving.dialects.open_inference.body import read
from modelkeep.serving.engine import Engine, Tell
from modelkeep.serving.messages import Request, Response
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.pool import Served

_OPEN: Final = (["v2", "health", "live"], ["v2", "health", "ready"])
_LARGEST_WISH: Final = 64 * 1024


class _Index(msgspec.Struct):
    ready: bool = False


_encode = msgspec.json.Encoder().encode
_decode_index = msgspec.json.Decoder(_Index).decode


class OpenInference:
    """Answers everything below `/v2`, except for loading and unloading, which the control plane does."""

    route: Final = NAME

    def __init__(self, engine: Engine, metrics: Metrics, version: str, ready: Callable[[], bool]) -> None:
        self._engine = engine
        self._metrics = metrics
        self._version = version
        self._ready = ready

    def needs(self, request: Request, parts: list[str]) -> Scope | None:
        """Return the scope that a path asks of a key: none for health; to write models, for what changes who answers."""
        if parts in _OPEN:
            return None
        return Scope.MODELS_WRITE if _changes(request, parts) else Scope.PREDICT

    async def answer(self, request: Request, parts: list[str]) -> Response:
        """Answer any path below `/v2` but those; raises `NotFound` for unknown ones."""
        match (request.method, parts):
            case ("POST", ["v2", "models", name, "infer"]):
                return await self._infer(name, None, request)
            case ("POST", ["v2", "models", name, "versions", version, "infer"]):
                return await self._infer(name, version, request)
            case ("POST", ["v2", "repository", "index"]):
                return await self._index(request)
            case ("GET" | "HEAD", ["v2", "health", "live" | "ready" as what]):
                return self._health(what)
            case ("GET", ["v2", *rest]):
                return await self._described(request, rest)
            case _:
                raise _no_such_path()

    def predict_whole(self, deployment: str, request: Request, body: bytes, tell: Tell) -> None:
        """Answer a prediction whose body is there: `tell` gets the answer, or why there is none."""
        self._engine.predict_whole(deployment, request, NAME, body, read=lambda call: read(call, request), tell=tell)

    def refusal(self, request: Request, error: ModelkeepError) -> Response:  # noqa: ARG002 - the protocol's errors name no request
        """Return an error in the protocol's own shape."""
        return as_error(error)

    def _health(self, what: str) -> Response:
        """Both keys on both paths: the protocol's text calls readiness `live`, its clients look for `ready`."""
        ready = self._ready()
        return _json({"live": True, "ready": ready}, 200 if ready or what == "live" else 503)

    async def _described(self, request: Request, rest: list[str]) -> Response:
        """Answer what is asked with GET; a path without a version means the one that the header names, or that answers."""
        match rest:
            case [] | [""]:
                return _json(describe.server(self._version))
            case ["models", "stats"]:
                return await self._statistics(request)
            case ["models", name]:
                return await self._model(request, name, version_asked(request), "")
            case ["models", name, "versions", version]:
                return await self._model(request, name, version, "")
            case ["models", name, "ready" | "config" | "stats" as what]:
                return await self._model(request, name, version_asked(request), what)
            case ["models", name, "versions", version, "ready" | "config" | "stats" as what]:
                return await self._model(request, name, version, what)
            case _:
                raise _no_such_path()

    async def _model(self, request: Request, name: str, version: str | None, what: str) -> Response:
        if what == "stats":
            return await self._statistics(request, name, version)
        match what:
            case "ready":
                return _readiness(name, self._engine.view(request).find(name, version).served)
            case "config":
                return _json(describe.config(self._engine.view(request), name, version))
            case _:
                return _json(describe.metadata(self._engine.view(request), name, version))

    async def _statistics(self, request: Request, name: str | None = None, version: str | None = None) -> Response:
        found = describe.statistics(self._engine.view(request), self._metrics.statistics, name, version)
        return _json({"model_stats": [one async for one in found]})

    async def _index(self, request: Request) -> Response:
        body = await request.body(_LARGEST_WISH)
        try:
            wish = _decode_index(body) if body.strip() else _Index()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidJson('The body is empty, or {"ready": true} or {"ready": false}.') from error
        return _json(describe.repository(self._engine.view(request), ready=wish.ready))

    async def _infer(self, name: str, version: str | None, request: Request) -> Response:
        return await self._engine.predict(name, version, request, NAME, lambda call: read(call, request))


def _changes(request: Request, parts: list[str]) -> bool:
    """Whether a request loads or unloads a model."""
    match (request.method, parts):
        case ("POST", ["v2", "repository", "models", _, "load" | "unload"]):
            return True
        case _:
            return False


def _no_such_path() -> NotFound:
    return NotFound("The Open Inference Protocol has no such path, or not with this method.")


def _json(value: object, status: int = 200) -> Response:
    return Response(status, _encode(value))


def _readiness(name: str, served: Served) -> Response:
    return _json({"name": name, "ready": served.answers}, 200 if served.answers else 503)
