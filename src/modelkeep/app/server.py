"""A server process: the parts of serving put together, and how they begin and end."""

import asyncio
import gc
import itertools
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
import uvicorn

from modelkeep.app.leaving import Leaving
from modelkeep.app.places import Places
from modelkeep.app.port import Port
from modelkeep.app.roles import ServerRole
from modelkeep.contracts import rates
from modelkeep.contracts.confinement import level
from modelkeep.infra import storage_metrics
from modelkeep.infra.addresses import Proxies, networks_in
from modelkeep.infra.failures import Failures
from modelkeep.infra.loading import hear
from modelkeep.infra.quotas import Quotas
from modelkeep.infra.rates import OwnRates, Rates
from modelkeep.infra.spool import SpoolWriter
from modelkeep.infra.tls import InvalidCertificate, Renewing
from modelkeep.sandbox import control, succeeding
from modelkeep.serving.cache import Cache
from modelkeep.serving.edge import Edge
from modelkeep.serving.engine import Engine
from modelkeep.serving.feed import Feed
from modelkeep.serving.forward import Forward
from modelkeep.serving.http import Door
from modelkeep.serving.keys import Keys
from modelkeep.serving.large import SWITCH_S, Large
from modelkeep.serving.limits import Limits
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.pool import Pool
from modelkeep.serving.recorder import Recorder
from modelkeep.serving.router import Router
from modelkeep.serving.shadows import Shadows

if TYPE_CHECKING:
    from modelkeep.infra.redis_answers import RedisAnswers
    from modelkeep.infra.redis_rates import RedisRates
    from modelkeep.serving.cache_shared import SharedAnswers
    from modelkeep.serving.grpc.server import GrpcServer

log = structlog.get_logger(__name__)

_TEND_S = 1.0
_WARN_EVERY = 60
_GC = (50_000, 20, 50)
"""A server makes many short-lived objects and few cycles: with Python's thresholds it would search for cycles all the time."""


class Server:
    """Everything in one server process."""

    def __init__(self, role: ServerRole, send: Callable[[control.Message], None]) -> None:
        places = Places(Path(role.data))
        self._role = role
        self._send = send
        self._begun = asyncio.Event()
        self._leaving: Leaving | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._metrics = metrics = Metrics(role.version, places.metrics, role.slot)
        self._spool = spool = SpoolWriter(
            places.spools / role.name,
            segment_bytes=role.history.segment_mb << 20,
            cap_bytes=role.history.spool_mb << 20,
            refuse=role.history.when_full == "refuse",
        )
        recorder = Recorder(spool, max_payload=role.history.max_payload_kb << 10)
        keys = Keys(max_staleness_s=role.serving.max_staleness_s)
        large = Large()
        self._answers: RedisAnswers | None = None
        self._shadows = Shadows(places.shadows, role.name, metrics.shadowed)
        self._router = router = Router(
            lambda changed: Pool(role.serving, send, changed, recorder, large), metrics.meter, self._cache(), self._shadows
        )
        metrics.watch(router, keys)
        metrics.beside = storage_metrics.figures(places.storage_metrics, places.data)
        metrics.watch_confinement(lambda: self._door.confinement, lambda: self._door.accepted)
        metrics.watch_history(lambda: spool.appended, lambda: spool.dropped, lambda: hear(places.loading))
        self._sharing: RedisRates | None = None
        limits = _limits(role, places, metrics.limited, self._shared)
        self._engine = engine = Engine(role.serving, router, limits, recorder, large)
        self._renewed = asyncio.Event()
        self._edge = Edge(role.hosts, role.origins)
        self._forward = forward = Forward(places.run / "api.sock")
        self._door = Door(
            settings=role.serving,
            router=router,
            engine=engine,
            keys=keys,
            metrics=metrics,
            forward=forward,
            version=role.version,
            acceptable=level(role.acceptable),
            stand_in=bytes.fromhex(role.stand_in),
            edge=self._edge,
            proxies=Proxies(networks_in(role.trusted_proxies) or ()),
            failures=Failures(rates.read(role.limits.failure_rate), limited=metrics.limited),
            locates=bool(role.limits.address_rate),
        )
        self._tls = None if role.tls is None else Renewing(role.tls)
        if self._tls is not None:
            self._edge.certify(self._tls.current.names)
            self._door.certificate = metrics.certificate = self._tls
        self._rpcs: GrpcServer | None = None
        self._feed = Feed(
            snapshot_file=places.snapshot,
            run_dir=places.run,
            router=router,
            keys=keys,
            name=role.name,
            bell=places.bell(role.slot, role.generation).name,
        )

    def _cache(self) -> Cache:
        """Return what keeps answers."""
        serving, metrics = self._role.serving, self._metrics
        cache = Cache(
            serving.cache_mb << 20,
            most_waiting=serving.max_queue,
            shared=self._shared_answers(),
            evicted=metrics.evicted,
        )
        metrics.cache = lambda: (cache.memory.bytes, len(cache.memory))
        return cache

    def _shared(self, own: Rates) -> Rates:
        """Return rates that are shared through Redis, where that is wanted; `own` hold without it."""
        if not self._role.limits.redis_url:
            return own
        from modelkeep.infra.redis_rates import RedisRates

        self._sharing = sharing = RedisRates(self._role.limits.redis_url.reveal(), own, told=self._metrics.exchanged)
        self._metrics.watch_sharing(lambda: not sharing.leases.away)
        return sharing.leases

    def _shared_answers(self) -> "SharedAnswers | None":
        """Return the answers that servers share through Redis, where that is wanted."""
        url = self._role.serving.cache_redis_url
        if not url:
            return None
        from modelkeep.infra.redis_answers import RedisAnswers
        from modelkeep.serving.cache_shared import SharedAnswers

        told = self._metrics.answers_shared
        self._answers = store = RedisAnswers(url.reveal(), told=told)
        return SharedAnswers(store, bytes.fromhex(self._role.answers_secret.reveal()), refused=lambda: told("refused"))

    def take(self, message: control.Message, fds: list[int]) -> None:
        """Act on a message of the supervisor."""
        if isinstance(message, control.Grounded):
            self._door.confinement = message.confinement
        elif isinstance(message, control.Renew):
            self._renewed.set()
        elif isinstance(message, succeeding.Begin):
            self._begun.set()
        elif isinstance(message, succeeding.Tell):
            self._feed.read()
            self._send(self._router.coverage())
        elif isinstance(message, succeeding.Yield | succeeding.Resume | succeeding.Alone):
            self._succeed(message)
        else:
            self._router.pool.take(message, fds)

    def _succeed(self, message: succeeding.Yield | succeeding.Resume | succeeding.Alone) -> None:
        """Have callers leave for another process, take them again, or know that there is none."""
        if isinstance(message, succeeding.Alone):
            if self._rpcs is not None:
                self._rpcs.alone()
        elif self._leaving is None:
            log.warning("unexpected message", message=type(message).__name__)
        elif isinstance(message, succeeding.Yield):
            self._leaving.begin(message.behind)
        else:
            self._resuming = asyncio.create_task(self._leaving.go_on())

    async def work(self, door: socket.socket, stop: asyncio.Event, started: Callable[[], None]) -> None:
        """Answer on `door` until `stop`, then finish what is under way."""
        gc.set_threshold(*_GC)
        sys.setswitchinterval(SWITCH_S)
        http = uvicorn.Server(_http(self._door, self._role))
        feeding = asyncio.create_task(self._feed.run(stop))
        stopping = asyncio.create_task(stop.wait())
        begun = asyncio.create_task(self._begun.wait())
        await asyncio.wait({feeding, stopping, begun}, return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            await self._answer(http, Port(http, door, self._role.callers), feeding, stopping, started)
        begun.cancel()
        stop.set()
        await feeding
        if self._answers is not None:
            await self._answers.close()
        self._spool.close()
        self._shadows.close()
        self._metrics.close()

    async def _answer(
        self,
        http: uvicorn.Server,
        port: Port,
        feeding: asyncio.Task[None],
        stopping: "asyncio.Task[Literal[True]]",
        started: Callable[[], None],
    ) -> None:
        """Accept callers until `stopping`, or until `feeding` ends, then finish what is under way."""
        self._rpcs = rpcs = await self._grpc()
        self._leaving = leaving = Leaving(self._door, port, http, rpcs, self._send)
        await port.open(None if self._tls is None else self._tls.current.context())
        serving = asyncio.create_task(http.serve(sockets=[]))
        renewing = asyncio.create_task(self._renew(port))
        beside = [asyncio.create_task(self._tend(port)), renewing]
        if self._sharing is not None:
            beside.append(asyncio.create_task(self._sharing.run()))
        started()
        await asyncio.wait({feeding, *beside, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._door.drain()
        if rpcs is not None:
            rpcs.tend()
        if not leaving.begun:
            await asyncio.sleep(self._role.notice_s)
        await leaving.end()
        renewing.cancel()  # nobody opens the port again
        port.close()
        http.should_exit = True
        if rpcs is not None:
            await rpcs.stop(self._role.drain_s)
        await serving
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)

    async def _grpc(self) -> "GrpcServer | None":
        """Begin to answer over gRPC, where that is wanted."""
        if self._role.grpc is None:
            return None
        from modelkeep.serving.grpc.server import GrpcServer

        server = GrpcServer(
            self._role.grpc,
            self._role.serving,
            engine=self._engine,
            gate=self._door.gate,
            metrics=self._metrics,
            forward=self._forward,
            needs=self._door.needs,
            ready=lambda: self._door.ready,
            version=self._role.version,
            tls=self._tls,
        )
        await server.start()
        return server

    async def _renew(self, port: Port) -> None:
        """Answer new callers with the certificate that lies there now, when that has changed or somebody says so."""
        due = False
        while True:
            said = False
            try:
                async with asyncio.timeout(_TEND_S):
                    said = await self._renewed.wait()
            except TimeoutError:
                pass
            self._renewed.clear()
            if self._tls is not None and (self._tls.tend(anyway=said) or due):
                due = True
                try:
                    await port.open(self._tls.current.context())
                except (OSError, InvalidCertificate) as error:
                    log.warning("callers are answered with the certificate of before", reason=str(error))
                    continue
                self._edge.certify(self._tls.current.names)
                due = False

    async def _tend(self, port: Port) -> None:
        last = time.monotonic()
        for second in itertools.count():
            await asyncio.sleep(_TEND_S)
            now = time.monotonic()
            await port.tend(min(now - last, 2 * _TEND_S))  # where we were held up, nobody else was slow
            last = now
            if second % _WARN_EVERY == 0 and self._role.slot == 0 and self._door.accepted is not None:
                log.warning("runners may be locked in less well than their models need", accepted=self._door.accepted.short)
            self._router.pool.balance()
            self._shadows.tend()
            if self._rpcs is not None:
                self._rpcs.tend()
            self._metrics.publish(alone=self._role.slots == 1)


def _limits(
    role: ServerRole,
    places: Places,
    limited: Callable[[str], None] = lambda _by: None,
    shared: Callable[[Rates], Rates] = lambda own: own,
) -> Limits:
    """Return the limits: those of several servers are shared, and where the disk has no room for that, each server's own.

    `shared` may make of these rates some that are shared with other installations.
    """
    quotas = _quotas(role, places)
    address = rates.read(role.limits.address_rate)
    return Limits(shared(OwnRates() if quotas is None else quotas), shared=quotas, address=address, limited=limited)


def _quotas(role: ServerRole, places: Places) -> Quotas | None:
    """Return the file that several servers share, None for a server that is alone or finds no room for it."""
    if role.slots == 1:
        return None
    try:
        return Quotas(places.quotas, role.slot + role.slots * role.generation, 2 * role.slots)
    except OSError as error:
        log.error("limits hold for each server by itself", error=str(error))  # noqa: TRY400 - the text says it all
        return None


_NO_GUESSES = ("x-content-type-options", "nosniff")
_HSTS = ("strict-transport-security", "max-age=31536000")
"""A browser that has been here over TLS does not try without for a year; without the hosts beside, which are not ours."""


def _http(app: Door, role: ServerRole) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=role.callers.idle_s,  # type: ignore[arg-type] # it is given to a timer
        timeout_graceful_shutdown=int(role.drain_s) or 1,
        headers=[_NO_GUESSES] if role.tls is None else [_NO_GUESSES, _HSTS],
    )
