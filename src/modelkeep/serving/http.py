"""The door of the predict path: plain ASGI. Predictions are answered here; everything else goes on to the api process."""

import asyncio
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import msgspec
import structlog

from modelkeep.contracts.access import Scope as KeyScope
from modelkeep.contracts.access import decide
from modelkeep.contracts.confinement import Confinement, Level, in_force
from modelkeep.contracts.errors import Forbidden, Internal, ModelkeepError
from modelkeep.infra.addresses import Proxies
from modelkeep.infra.failures import Failures
from modelkeep.infra.tls import Renewing
from modelkeep.serving.choice import Choice
from modelkeep.serving.codings import ASKED_FROM, Coding, is_long
from modelkeep.serving.dialects.dialect import Dialect, as_problem, reads
from modelkeep.serving.dialects.mlflow import PATHS, Mlflow
from modelkeep.serving.dialects.native import Native
from modelkeep.serving.dialects.open_inference.rest import OpenInference
from modelkeep.serving.dialects.sagemaker import SageMaker
from modelkeep.serving.dialects.tf_serving import TfServing
from modelkeep.serving.dialects.vertex import Vertex
from modelkeep.serving.edge import Edge
from modelkeep.serving.engine import Engine
from modelkeep.serving.forward import ApiBroke, Forward
from modelkeep.serving.gate import Gate
from modelkeep.serving.keys import Keys
from modelkeep.serving.messages import PREDICT, ClientGone, Receive, Request, Response, Scope, Send, segments
from modelkeep.serving.metrics import CONTENT_TYPE, OPENMETRICS, Metrics, wants_openmetrics
from modelkeep.serving.router import Router
from modelkeep.serving.settings import ServingSettings
from modelkeep.serving.stand_in import SAGEMAKER_ROUTES, StandIn

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class Door:
    """The ASGI application of a server process. `stand_in` is the SHA-256 of the key for callers without one, b"" for none."""

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
        stand_in: bytes = b"",
        edge: Edge | None = None,
        proxies: Proxies | None = None,
        failures: Failures | None = None,
        locates: bool = False,
    ) -> None:
        self._edge = edge = edge or Edge()
        self._known_hosts, self._origins = edge.known, edge.origins
        self._acceptable = acceptable
        self._settings = settings
        self._router = router
        self._keys = keys
        covered = StandIn(keys, stand_in, [*SAGEMAKER_ROUTES, settings.predict_route])
        self.gate = Gate(keys, covered, proxies=proxies, failures=failures, locates=locates)
        self._metrics = metrics
        self._forward = forward
        choice = Choice(engine.view, settings.default_model, settings.deployments_by_host)
        self._native = native = Native(engine, choice, version)
        self._open_inference = open_inference = OpenInference(engine, metrics, version, lambda: self.ready)
        self._dialects: dict[str, Dialect] = {"predict": native, "info": native, "v2": open_inference}
        self._dialects |= {"endpoints": SageMaker(engine)} | dict.fromkeys(PATHS, Mlflow(engine, choice, version))
        self._dialects["v1"] = self._tf_serving = TfServing(engine)
        vertex = Vertex(settings, engine, choice, native=native, health=self._health, ready=lambda: self.ready)
        self._exact: dict[str, Dialect] = dict.fromkeys(vertex.routes, vertex)
        self._version = version
        self._started = time.monotonic()
        self._draining = False
        self.confinement: Confinement | None = None  # how well runners are locked in, once that is known
        self.certificate: Renewing | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection (uvicorn calls this)."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        request = Request.of(scope, receive)
        path, metrics = request.path, self._metrics
        parts = segments(path)
        dialect = self._native if _is_native(path) else self._exact.get(path) or self._dialects.get(parts[0])
        route, status = _route(parts) if dialect is None else dialect.route, 500
        metrics.inflight_changed(1)
        try:
            response = self._preflight(request)
            if response is None:
                needed = None if dialect is None else dialect.needs(request, parts)
                if dialect is not None and needed is None:
                    route = "health"
                if route != "health" and path != _ALIVE:
                    self._edge.check(request)
                response = await self._respond(request, dialect, parts, needed)
            if response is None:
                self.gate.locate(request)
                status = await self._forward(request, scope, receive, _with(request.beside, send))
            else:
                status = response.status
                await request.answer(await _packed(request, response), send)
        except ClientGone:
            status = 499
        except ApiBroke:
            log.warning("an answer was broken off", request_id=request.id, path=path)  # and so is ours: it has begun
        except ModelkeepError as error:
            status = await _refuse(send, request, dialect, error)
        except Exception:
            log.exception("a request failed", request_id=request.id, path=path)
            status = await _refuse(send, request, dialect, Internal())
        finally:
            metrics.inflight_changed(-1)
            metrics.request(route, request.method if request.method in _METHODS else "OTHER", status)

    def _preflight(self, request: Request) -> Response | None:
        """Answer a browser that asks whether it may ask; else let the asking page read the answer, where it may."""
        if not self._origins:
            return None
        request.beside = self._edge.beside(request)
        return self._edge.preflight(request)

    async def _respond(
        self, request: Request, dialect: Dialect | None, parts: list[str], needed: KeyScope | None
    ) -> Response | None:
        """Answer a request that is meant for this server; None sends it on."""
        if dialect is None:
            return self._own(parts, request)
        if needed is KeyScope.MODELS_WRITE:  # the control plane's, and it alone says who may: it takes a provider's tokens, too
            return None
        if needed is not None:
            self.gate.enter(request, needed)
        return await dialect.answer(request, parts)

    def drain(self) -> None:
        """Say that this process is about to end: not ready any more, and no endless streams."""
        self._draining = True
        self._forward.drain()

    def go_on(self) -> None:
        """Take back what `drain` said."""
        self._draining = False
        self._forward.go_on()

    @property
    def accepted(self) -> Level | None:
        """The lower level of the lock-down that is in force: an administrator accepts it, and the settings let them."""
        return in_force(self._router.snapshot.accepted, self._acceptable)

    def _own(self, parts: list[str], request: Request) -> Response | None:
        """Answer what is the server's own; None sends the request on."""
        match parts:
            case ["healthz"]:
                reads(request)
                return _json({"status": "ok", "version": self._version})
            case ["readyz"]:
                reads(request)
                return self._readiness()
            case ["health"]:
                reads(request)
                return self._health()
            case ["metrics"]:
                reads(request)
                self.gate.enter(request, KeyScope.METRICS_READ)
                if request.key is not None and not decide(request.key.standing, KeyScope.METRICS_READ).allowed:
                    raise Forbidden("You may not read metrics: that needs a role that gives 'metrics:read'.")
                openmetrics = wants_openmetrics(request.header(b"accept"))
                page = self._metrics.text(openmetrics=openmetrics)
                return Response(200, page, OPENMETRICS if openmetrics else CONTENT_TYPE)
            case _:
                return None

    @property
    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        return not self._reasons()

    def needs(self, method: str, path: str) -> KeyScope | None:
        """Return the scope that an address of Open Inference asks of a key, None where it is open to everyone."""
        return self._open_inference.needs(Request(method, path, ()), segments(path))

    def _reasons(self) -> list[str]:
        """Say why not. Ready: there is news, fresh enough to trust, every model that can answer does, and no end is near."""
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
        return reasons

    def _readiness(self) -> Response:
        reasons = self._reasons()
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "snapshot": self._router.snapshot.number,
            "news_age_s": round(self._keys.staleness_s, 1) if self._router.snapshot.number else None,
            "models": self._counts(),
            "sandbox": self._sandbox(),
            "certificate": None if self.certificate is None else self.certificate.state(),
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
        served = {one for name in self._router.routes() for one in self._router.serving(name)}
        ready = sum(one.ready for one in served)
        asleep = sum(one.asleep for one in served)
        failing = sum(bool(one.failing) and not one.answers for one in served)
        differing = sum(one.ready and bool(one.golden.differs) for one in served)
        loading = len(served) - ready - asleep - failing
        return {"ready": ready, "asleep": asleep, "loading": loading, "failing": failing, "differing": differing}

    def predict_whole(self, request: Request, body: bytes, reply: Callable[[Response], None]) -> None:
        """Answer a prediction that came in one piece, without ASGI: `reply` is called once, now or later."""
        metrics, path = self._metrics, request.path
        dialect: Native | OpenInference | TfServing
        if path.startswith(PREDICT):
            dialect, name = self._native, path[len(PREDICT) :]
        elif path.startswith("/v1"):
            dialect, name = self._tf_serving, segments(path)[2].removesuffix(":predict")
        else:
            dialect, name = self._open_inference, segments(path)[2]
        metrics.inflight_changed(1)

        def tell(result: Response | Exception) -> None:
            metrics.inflight_changed(-1)
            response = result if isinstance(result, Response) else _excuse(request, dialect, result)
            metrics.request(dialect.route, "POST", response.status)
            coding = request.coding_for(response) if len(response.body) >= ASKED_FROM else None
            if coding is None:
                reply(response)
            else:
                _reply_packed(response, coding, reply)

        try:
            if request.headers.get(b"host") not in self._known_hosts:
                self._edge.check(request)
            if self._origins:
                request.beside = self._edge.beside(request)
            self.gate.enter(request, KeyScope.PREDICT)
            dialect.predict_whole(name, request, body, tell)
        except Exception as error:  # noqa: BLE001 - told, and logged where it is our fault
            tell(error)


_ALIVE = "/api/v1/health"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _with(headers: Iterable[tuple[bytes, bytes]], send: Send) -> Send:
    """Return a `send` that adds headers to an answer which is passed on."""
    if not headers:
        return send

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return sending


def _is_native(path: str) -> bool:
    return path.startswith(PREDICT) and "/" not in path[len(PREDICT) :]


def _route(parts: list[str]) -> str:
    """Name the kind of an address without a dialect, for the counters: few names, whatever is asked for."""
    match parts:
        case ["healthz" | "readyz" | "health"]:
            return "health"
        case ["metrics"]:
            return "metrics"
        case _:
            return "control"


async def _refuse(send: Send, request: Request, dialect: Dialect | None, error: ModelkeepError) -> int:
    """Answer with an error in the shape of the door that was knocked at; returns its status."""
    response = as_problem(request, error) if dialect is None else dialect.refusal(request, error)
    await request.answer(response, send)
    return response.status


async def _packed(request: Request, response: Response) -> Response:
    """Return an answer in the content coding that its caller asks for, where that pays."""
    coding = request.coding_for(response) if len(response.body) >= ASKED_FROM else None
    if coding is None:
        return response
    return await asyncio.to_thread(response.packed, coding) if is_long(response.body) else response.packed(coding)


def _reply_packed(response: Response, coding: Coding, reply: Callable[[Response], None]) -> None:
    """Give an answer in a content coding: a long one when a thread has packed it."""
    if is_long(response.body):
        packing = asyncio.get_running_loop().run_in_executor(None, response.packed, coding)
        packing.add_done_callback(lambda done: reply(response if done.exception() else done.result()))
    else:
        reply(response.packed(coding))


def _excuse(request: Request, dialect: Dialect, error: Exception) -> Response:
    """Return the answer to a prediction that failed."""
    if isinstance(error, ClientGone):
        return Response(499, b"")
    if not isinstance(error, ModelkeepError):
        log.error("a request failed", request_id=request.id, path=request.path, exc_info=error)
        error = Internal()
    return dialect.refusal(request, error)


def _json(value: object, status: int = 200) -> Response:
    return Response(status, _encode(value))
