"""The gRPC server of one server process: its services, its port and its bounds, and how it ends."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import grpc
import structlog
from grpc import aio

from modelkeep.infra.listeners import Listeners
from modelkeep.infra.tls import Certificate, Renewing
from modelkeep.serving.engine import Engine
from modelkeep.serving.forward import Forward
from modelkeep.serving.gate import Gate
from modelkeep.serving.grpc import health, inference, reflection
from modelkeep.serving.grpc.door import GrpcDoor
from modelkeep.serving.grpc.health import Health
from modelkeep.serving.grpc.inference import Inference, Needs
from modelkeep.serving.grpc.places import MOST_AT_ONCE
from modelkeep.serving.grpc.reflection import Reflection
from modelkeep.serving.grpc.settings import GrpcAddress
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.settings import ServingSettings

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.01
_LOOKS: Final = 1000
_BOUNDS: Final = (
    ("grpc.so_reuseport", 1),  # several server processes listen on one port
    ("grpc.max_concurrent_streams", 512),  # of one connection
    ("grpc.per_message_decompression", 0),  # the library unpacks all of a message before it looks at its size: see `packing`
    ("grpc.http2.bdp_probe", 0),  # or it takes up to 4 MiB of a message that nobody reads, instead of 64 KiB
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    # whoever is gone without a word is noticed within 80 s, and whoever asks for that too often is sent away
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
    # of a connection that has been told to end: it bounds how long one that does not read holds what it asked for
    ("grpc.max_connection_age_grace_ms", 300_000),
)


class GrpcServer:
    """Answers on its address from `start` to `stop`. `ready` says whether health does; `tls` is None without."""

    def __init__(
        self,
        address: GrpcAddress,
        settings: ServingSettings,
        *,
        engine: Engine,
        gate: Gate,
        metrics: Metrics,
        forward: Forward,
        needs: Needs,
        ready: Callable[[], bool],
        version: str,
        tls: Renewing | None = None,
    ) -> None:
        services = frozenset({inference.SERVICE, health.SERVICE, reflection.SERVICE})
        self._health = Health(services, ready)
        rpcs = [
            *Inference(
                engine=engine,
                gate=gate,
                metrics=metrics,
                forward=forward,
                needs=needs,
                ready=ready,
                version=version,
            ).rpcs(),
            *self._health.rpcs(),
            *Reflection(services).rpcs(),
        ]
        largest = settings.max_body_mb * 1024 * 1024
        self._door = GrpcDoor(
            rpcs,
            gate,
            metrics,
            check_limits=engine.check_limits,
            largest=largest,
            asks_certificates=_asks_certificates(tls),
        )
        options = (
            *_BOUNDS,
            ("grpc.max_receive_message_length", largest),
            # a connection's end is no event to a client; see `leave`
            ("grpc.max_connection_age_ms", int(address.connection_s * 1000)),
        )
        self._server = aio.server(options=options, maximum_concurrent_rpcs=MOST_AT_ONCE)
        self._server.add_generic_rpc_handlers((self._door,))
        self.port = self._listen(address.address, tls)
        self._listeners = Listeners(self.port)
        logging.getLogger("grpc._cython.cygrpc").addFilter(_without_values)

    async def start(self) -> None:
        """Begin to answer."""
        self._health.tend()
        await self._server.start()

    def tend(self) -> None:
        """Tell those who watch the health what has changed; to be called about once a second, and when it has."""
        self._health.tend()

    async def leave(self, behind: int) -> None:
        """Take no new callers, and have those that are here leave: who listens after `behind` others takes them all.

        The library knows one way to send callers away at once, and it cancels calls that come before they know. But each
        connection comes to its age within `GrpcAddress.connection_s`: it is told so, and what it still asks is answered.
        """
        self._door.end_conversations()
        self._health.tend()
        try:
            self._listeners.steer(behind)
        except OSError as error:
            log.warning("new callers over gRPC may be cut off: this kernel does not choose who gets them", reason=str(error))
            return
        for _ in range(_LOOKS):
            if not self._listeners.waiting:
                break
            await asyncio.sleep(_LOOK_S)

    def go_on(self) -> None:
        """Take new callers again."""
        self._door.go_on()
        self.alone()

    def alone(self) -> None:
        """Nobody else's callers come here any more: they come to all who listen."""
        self._listeners.unsteer()

    @property
    def connections(self) -> int:
        """How many callers are connected."""
        return self._listeners.connections

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, tell callers so, and finish what is under way, within `grace_s` seconds."""
        self._door.end_conversations()
        await self._server.stop(grace_s)

    def _listen(self, address: str, tls: Renewing | None) -> int:
        if tls is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, _credentials(tls)))


def _asks_certificates(tls: Renewing | None) -> bool:
    """Whether callers are asked for certificates: the library has no way to take those that come, and do without."""
    return tls is not None and tls.files.client == "required"


def _credentials(tls: Renewing) -> grpc.ServerCredentials:
    """Return what the library asks at each new connection for the certificate of that time."""
    shown = tls.current

    def another() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        if tls.current is shown:
            return None
        shown = tls.current
        return _configured(shown)

    return grpc.dynamic_ssl_server_credentials(
        _configured(shown), another, require_client_authentication=_asks_certificates(tls)
    )


def _configured(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    pair = (certificate.key, certificate.chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=certificate.authorities or None)


def _without_values(record: logging.LogRecord) -> bool:
    """Keep out of the log what the library says of metadata that are no UTF-8: it would be a caller's key, for one."""
    return not record.getMessage().startswith("Invalid encoding")
