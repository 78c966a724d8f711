"""The versions this server can answer with, and their runners. It starts and kills nothing itself: the supervisor does."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import numpy as np
import structlog

from modelkeep.contracts.errors import VersionQuarantined
from modelkeep.contracts.signature import Dtype, Layout, Signature
from modelkeep.contracts.snapshot import ServedVersion
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.connection import RunnerConnection, RunnerGone
from modelkeep.serving.batcher import Batcher
from modelkeep.serving.codec import Tensors
from modelkeep.serving.settings import ServingSettings

log = structlog.get_logger(__name__)

_LONGEST_REASON = 500

Send = Callable[[control.Message], None]


class Replica:
    """One runner process of a version, by its name at the supervisor and its socket."""

    def __init__(self, name: str, connection: RunnerConnection, send: Send) -> None:
        self.name = name
        self.connection = connection
        self._send = send

    def kill(self, cause: control.Cause = control.Cause.DEADLINE) -> None:
        """Ask the supervisor to end the process, and wait for nothing more from it: its socket may have other holders."""
        with contextlib.suppress(control.ChannelClosed):  # the supervisor has gone, and this process with it
            self._send(control.Kill(self.name, cause))
        self.connection.abort()


class Served:
    """One version on this server: its queue, and whether a warm runner stands behind it."""

    def __init__(self, version: ServedVersion, settings: ServingSettings) -> None:
        self.version = version
        self.batcher = Batcher(
            max_rows=settings.max_batch_rows,
            max_queue=settings.max_queue,
            run_timeout_s=version.spec.limits.run_timeout_s,
        )
        self.ready = False
        self.failing = ""


class Pool:
    """All versions that the router wants, each with a runner or waiting for one."""

    def __init__(self, settings: ServingSettings, send: Send, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._send = send
        self._changed = changed
        self._served: dict[str, Served] = {}
        self._openings: set[asyncio.Task[None]] = set()
        self._connections: dict[str, RunnerConnection] = {}

    def want(self, versions: Iterable[ServedVersion]) -> None:
        """Keep runners for these versions and let go of all others. A version is immutable: its id is enough."""
        wanted = {version.id: version for version in versions}
        if wanted.keys() == self._served.keys():
            return
        for version_id in self._served.keys() - wanted.keys():
            del self._served[version_id]
        for version_id, version in wanted.items():
            if version_id not in self._served:
                self._served[version_id] = Served(version, self._settings)
        self._send(control.Want(tuple(control.Wanted(version.spec) for version in wanted.values())))

    def get(self, version_id: str) -> Served | None:
        """Return the version, if it is wanted."""
        return self._served.get(version_id)

    def all(self) -> list[Served]:
        """Return every wanted version."""
        return list(self._served.values())

    def take(self, message: control.Message, fds: list[int]) -> None:
        """Act on a message of the supervisor about runners."""
        match message:
            case control.Connected():
                task = asyncio.get_running_loop().create_task(self._open(message, fds[0]))
                self._openings.add(task)
                task.add_done_callback(self._openings.discard)
            case control.Gone():
                self._gone(message)
            case control.Held():
                self._held(message)
            case _:
                log.warning("unexpected message from the supervisor", message=type(message).__name__)

    async def _open(self, message: control.Connected, fd: int) -> None:
        """Wait until the runner has loaded, run one made-up row to warm it, then let it answer."""
        connection = self._connections[message.runner] = await RunnerConnection.open(fd)
        connection.closed.add_done_callback(lambda _closed: self._connections.pop(message.runner, None))
        served = self._served.get(message.version_id)
        if served is None:
            connection.close()
            return
        replica = Replica(message.runner, connection, self._send)
        limits = served.version.spec.limits
        try:
            async with asyncio.timeout(limits.load_timeout_s):
                loaded = await connection.loaded
                if isinstance(loaded, frames.LoadFailed):
                    served.failing = f"{loaded.reason}: {loaded.detail}"[:_LONGEST_REASON]
                    log.error("model cannot be loaded", version=served.version.id, reason=loaded.reason, detail=loaded.detail)
                    return
                await connection.run(made_up_row(served.version.signature))
        except TimeoutError:
            served.failing = f"loading took longer than {limits.load_timeout_s:g} s"
            replica.kill()
            return
        except RunnerGone as gone:
            if gone.protocol_error:
                replica.kill(control.Cause.PROTOCOL)
            return
        connection.closed.add_done_callback(lambda closed: self._closed(served, replica, closed.result()))
        served.batcher.attach(replica)
        served.ready = True
        served.failing = ""
        log.info(
            "runner ready", version=served.version.id, model=served.version.model, runner=message.runner, seconds=loaded.seconds
        )
        self._changed()

    def _closed(self, served: Served, replica: Replica, gone: RunnerGone) -> None:
        served.batcher.detach(replica)
        served.ready = served.batcher.attached
        if gone.protocol_error:
            log.error("runner broke the protocol", version=served.version.id, error=gone.protocol_error)
        # A runner that closes its socket and lives on is of no use to anyone.
        replica.kill(control.Cause.PROTOCOL if gone.protocol_error else control.Cause.EXIT)
        self._changed()

    def _gone(self, message: control.Gone) -> None:
        connection = self._connections.pop(message.runner, None)
        if connection is not None:
            connection.abort()  # a child that the runner left behind may still hold the other end
        served = self._served.get(message.version_id)
        if served is not None and message.cause is not control.Cause.STOPPED:
            served.failing = served.failing or f"{message.cause}: {message.detail}"
            log.warning(
                "runner gone", version=message.version_id, cause=message.cause, detail=message.detail, stderr=message.stderr
            )

    def _held(self, message: control.Held) -> None:
        served = self._served.get(message.version_id)
        if served is None:
            return
        served.failing = message.detail
        served.batcher.hold(VersionQuarantined(retry_after_s=message.retry_after_s))
        log.error("version held back", version=message.version_id, detail=message.detail, retry_after_s=message.retry_after_s)
        self._changed()


# A grey picture of one pixel, as a PNG.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def made_up_row(signature: Signature) -> Tensors:
    """Return one row of zeros, empty texts and grey pictures: what a fresh runner runs first, so that no caller pays for it."""
    tensors: Tensors = {}
    for spec in signature.inputs:
        shape = tuple(1 if length == -1 else length for length in spec.shape)
        if spec.dtype is Dtype.BYTES:
            array = np.empty(shape, dtype=object)
            array[...] = _PIXEL if signature.layout is Layout.IMAGE else ""
            tensors[spec.name] = array
        else:
            tensors[spec.name] = np.zeros(shape, dtype=spec.dtype.numpy)
    return tensors
