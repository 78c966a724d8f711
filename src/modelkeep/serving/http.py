"""The door of the predict path: plain ASGI. Predictions are answered here; everything else goes on to the api process."""

import time
from collections.abc import Callable

import msgspec
import structlog

from modelkeep.contracts.confinement import Confinement, Level, in_force
from modelkeep.contracts.errors import Internal, MethodNotAllowed, ModelkeepError, NotFound
from modelkeep.contracts.snapshot import Scope as KeyScope
from modelkeep.infra.headers import presented_key
from modelkeep.infra.problems import problem
from modelkeep.serving.dialects import open_inference
from modelkeep.serving.dialects.native import Native
from modelkeep.serving.dialects.open_inference import OpenInference
from modelkeep.serving.engine import Engine
from modelkeep.serving.forward import ApiBroke, Forward
from modelkeep.serving.keys import Keys
from modelkeep.serving.messages import PREDICT, ClientGone, Receive, Request, Response, Scope, Send, encoded, segments
from modelkeep.serving.metrics import CONTENT_TYPE, OPENMETRICS, Metrics, wants_openmetrics
from modelkeep.serving.router import Router
from modelkeep.serving.settings import ServingSettings

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class ModelNeeded(NotFound):
    """Several models answer here: name one with `?model=NAME`, or set `serving.default_model`."""

    code = "model_needed"


class Door:
    """The ASGI application of a server process."""

    def __init__(
        self,
        *,
        settings: ServingSettings,
        router: Router,
        engine: Engine,
        keys: Keys,
        metrics: Metrics,
        forward: Forward,
        version: str,
        acceptable: Level | None = None,
    ) -> None:
        self._acceptable = acceptable
        self._settings = settings
        self._router = router
        self._keys = keys
        self._metrics = metrics
        self._forward = forward
        self._native = Native(router, engine)
        self._open_inference = OpenInference(router, engine, version)
        self._version = version
        self._started = time.monotonic()
        self._draining = False
        self.confinement: Confinement | None = None  # how well runners are locked in, once that is known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection (uvicorn calls this)."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        request = Request.of(scope, receive)
        path, metrics = request.path, self._metrics
        status = 500
        response: Response | None
        metrics.inflight_changed(1)
        try:
            if path.startswith(PREDICT) and "/" not in path[len(PREDICT) :]:
                route, parts = "predict", _PREDICT_PARTS
                response = await self._predict(path[len(PREDICT) :], request)
            else:
                parts = segments(path)
                route = _route(parts)
                response = await self._local(parts, request)
            if response is None:
                status = await self._forward(request, scope, receive, send)
            else:
                status = response.status
                await request.answer(response, send)
        except ClientGone:
            status = 499
        except ApiBroke:
            log.warning("an answer was broken off", request_id=request.id, path=path)  # and so is ours: it has begun
        except ModelkeepError as error:
            status = await self._refuse(send, request, parts, error)
        except Exception:
            log.exception("a request failed", request_id=request.id, path=path)
            status = await self._refuse(send, request, parts, Internal())
        finally:
            metrics.inflight_changed(-1)
            metrics.request(route, request.method if request.method in _METHODS else "OTHER", status)

    def drain(self) -> None:
        """Say that this process is about to end: not ready any more, and no endless streams."""
        self._draining = True
        self._forward.drain()

    @property
    def accepted(self) -> Level | None:
        """The lower level of the lock-down that is in force: an administrator accepts it, and the settings let them."""
        return in_force(self._router.snapshot.accepted, self._acceptable)

    async def _local(self, parts: list[str], request: Request) -> Response | None:
        """Answer what is served here; None sends the request on."""
        match parts:
            case ["v2", *_]:
                health = self._open_inference.health(parts)
                if health is not None:
                    return health
                self._check(request, KeyScope.PREDICT)
                return await self._open_inference.answer(parts, request)
            case ["healthz"]:
                return _json({"status": "ok", "version": self._version})
            case ["readyz"]:
                return self._readiness()
            case ["health"]:
                return self._health()
            case ["metrics"]:
                self._check(request, KeyScope.METRICS_READ)
                openmetrics = wants_openmetrics(request.header(b"accept"))
                page = self._metrics.text(openmetrics=openmetrics)
                return Response(200, page, OPENMETRICS if openmetrics else CONTENT_TYPE)
            case ["predict"]:
                _only("POST", request)
                self._check(request, KeyScope.PREDICT)
                return await self._native.predict(self._model(request), request, flat=True)
            case ["info"]:
                self._check(request, KeyScope.PREDICT)
                return self._info(request)
            case _:
                return None

    async def _predict(self, deployment: str, request: Request) -> Response:
        _only("POST", request)
        self._check(request, KeyScope.PREDICT)
        return await self._native.predict(deployment, request)

    def _check(self, request: Request, scope: KeyScope) -> None:
        request.key = self._keys.check(presented_key(request.headers), scope)

    def _model(self, request: Request) -> str:
        """Return the deployment that a request without one in its path means."""
        name = request.query("model") or self._settings.default_model
        if name:
            return name
        routes = self._router.routes()
        if len(routes) == 1:
            return next(iter(routes))
        raise ModelNeeded if routes else NotFound("No model answers here yet: push one first.")

    def _info(self, request: Request) -> Response:
        name = request.query("model") or self._settings.default_model
        names = [name] if name else sorted(self._router.routes())
        models = [self._native.info(one) for one in names]
        return _json(models[0] | {"product": "modelkeep", "product_version": self._version} if name else self._product(models))

    def _product(self, models: list[dict[str, object]]) -> dict[str, object]:
        return {"product": "modelkeep", "product_version": self._version, "models": models}

    def _readiness(self) -> Response:
        """Ready: there is news, it is fresh enough to trust, every model that can answer does, and no end is near."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        if self._router.snapshot.number == 0:
            reasons.append("no news from the control plane yet")
        elif self._keys.staleness_s > self._settings.max_staleness_s:
            reasons.append("the news from the control plane is too old")
        if not self._router.warm:
            reasons.append("models are being loaded")
        if self.confinement is not None and self.confinement.level is Level.OPEN and self.accepted is not Level.OPEN:
            reasons.append(f"no model can be locked in on this machine ({self.confinement.missing})")
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "snapshot": self._router.snapshot.number,
            "news_age_s": round(self._keys.staleness_s, 1) if self._router.snapshot.number else None,
            "models": self._counts(),
            "sandbox": self._sandbox(),
        }
        return _json(body, 503 if reasons else 200)

    def _health(self) -> Response:
        counts = self._counts()
        status = "healthy" if counts["failing"] == 0 else "degraded"
        return _json(
            {
                "status": status,
                "version": self._version,
                "uptime_s": round(time.monotonic() - self._started, 1),
                "models": counts,
                "sandbox": self._sandbox(),
            }
        )

    def _sandbox(self) -> dict[str, object] | None:
        """How well runners are locked in, and the lower level that is accepted; None until that has been tried."""
        if self.confinement is None:
            return None
        accepted = self.accepted
        return {
            "level": self.confinement.level.short,
            "missing": self.confinement.missing,
            "accepted": None if accepted is None else accepted.short,
        }

    def _counts(self) -> dict[str, int]:
        served = list(self._router.routes().values())
        ready = sum(one.ready for one in served)
        asleep = sum(one.asleep for one in served)
        failing = sum(bool(one.failing) and not one.answers for one in served)
        differing = sum(one.ready and bool(one.golden.differs) for one in served)
        loading = len(served) - ready - asleep - failing
        return {"ready": ready, "asleep": asleep, "loading": loading, "failing": failing, "differing": differing}

    def predict_whole(self, request: Request, body: bytes, reply: Callable[[Response], None]) -> None:
        """Answer a prediction that came in one piece, without ASGI: `reply` is called once, now or later."""
        metrics, path = self._metrics, request.path
        if path.startswith(PREDICT):
            route, parts, name, answer = "predict", _PREDICT_PARTS, path[len(PREDICT) :], self._native.predict_whole
        else:
            parts = segments(path)
            route, name, answer = _route(parts), parts[2], self._open_inference.predict_whole
        metrics.inflight_changed(1)

        def tell(result: Response | Exception) -> None:
            metrics.inflight_changed(-1)
            response = result if isinstance(result, Response) else _excuse(request, parts, result)
            metrics.request(route, "POST", response.status)
            reply(response)

        try:
            self._check(request, KeyScope.PREDICT)
            answer(name, request, body, tell)
        except Exception as error:  # noqa: BLE001 - told, and logged where it is our fault
            tell(error)

    async def _refuse(self, send: Send, request: Request, parts: list[str], error: ModelkeepError) -> int:
        response = _refusal(request, parts, error)
        await request.answer(response, send)
        return response.status


_PREDICT_PARTS = ["api", "v1", "predict", ""]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _route(parts: list[str]) -> str:
    """Name the kind of address, for the counters: few names, whatever is asked for."""
    match parts:
        case ["predict"]:
            return "predict"
        case ["healthz" | "readyz" | "health"] | ["v2", "health", "live" | "ready"]:
            return "health"
        case ["v2", *_]:
            return "v2"
        case ["metrics" | "info" as name]:
            return name
        case _:
            return "control"


def _refusal(request: Request, parts: list[str], error: ModelkeepError) -> Response:
    """Return an error in the shape of the door that was knocked at."""
    if parts[0] == "v2":
        return open_inference.refusal(error)
    status, headers, body = problem(error, request.id)
    content_type = headers.pop("content-type").encode()
    return Response(status, body, content_type, encoded(headers))


def _excuse(request: Request, parts: list[str], error: Exception) -> Response:
    """Return the answer to a prediction that failed."""
    if isinstance(error, ClientGone):
        return Response(499, b"")
    if not isinstance(error, ModelkeepError):
        log.error("a request failed", request_id=request.id, path=request.path, exc_info=error)
        error = Internal()
    return _refusal(request, parts, error)


def _only(method: str, request: Request) -> None:
    if request.method != method:
        raise MethodNotAllowed(f"This address takes {method} only.", allow=(method,))


def _json(value: object, status: int = 200) -> Response:
    return Response(status, _encode(value))
