"""One runner as the supervisor holds it: its channel, who is attached to it, what it last wrote, and how it is ended."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import structlog

from modelkeep.app.folders import Folder
from modelkeep.contracts.runner import Column
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import control
from modelkeep.sandbox.control import Cause, Channel, ChannelClosed
from modelkeep.sandbox.golden import INSTEAD
from modelkeep.sandbox.memory import Memory, private_bytes

log = structlog.get_logger(__name__)

Open = Callable[[str], Awaitable[int]]
"""Opens the artifact with a digest, read-only, and returns its descriptor."""

_STDERR_TAIL = 4096
_SOFT = 0.85  # of its memory limit: a runner that has grown so far is replaced before the limit ends it
_GROWN = 1.25  # of what it held when it was ready: one that needs so much from the start would be replaced for ever
_DRIFT = 1 / 16
_LEAST_DRIFT = 4 << 20


class RunnerProcess:
    """A runner from before its fork to after its end.

    Whoever it is to serve is attached at once, even before it runs, so that none of them can miss its first frame; they are
    told when there is a process, and handed `golden`, which is open on its golden rows (-1 for none). `ticket` names the
    validation that it is for, `beside` that of the runner whose `reserve_bytes` it takes. `expected_bytes` is what it counts
    for until it has loaded.
    """

    def __init__(self, name: str, spec: RunnerSpec, ticket: str = "", expected_bytes: int = 0) -> None:
        self.name = name
        self.spec = spec
        self.ticket = ticket
        self.beside = ""
        self.reserve_bytes = 0
        self.pid = 0
        self.cause: Cause | None = None
        self.detail = ""
        self.last_moment: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.shutdown(socket.SHUT_RD)  # a runner has nothing to say here, and cannot
        self._channel = Channel(ours)
        self._stderr, self._stderr_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(self._stderr_write, True)
        self._loop.add_reader(self._stderr, self.hear)
        self._tail = bytearray()
        self._pidfd = -1
        self._memory: Memory | None = None
        self._expected = expected_bytes
        self._private = self._resident = self._resident_then = self._resident_ready = 0
        self._placed = 0
        self.ready = False
        self.golden = -1
        self._attached: dict[Channel, socket.socket] = {}
        self._left: set[Channel] = set()

    def fork(
        self, template: Channel, files: tuple[int, ...], sample: tuple[Column, ...] = (), folder: Folder | None = None
    ) -> None:
        """Ask the template for the process; `files` are closed. Raises `ChannelClosed` where there is no template."""
        artifact, *hooks = files
        try:
            fds = (artifact, self._theirs.fileno(), self._stderr_write)
            if folder is None:
                template.send(control.Fork(self.name, self.spec, sample), (*fds, *hooks))
            else:
                template.send(control.Fork(self.name, self.spec, sample, str(folder.path)), (*fds, folder.fd, *hooks))
        finally:
            self._theirs.close()
            close(*files)
            os.close(self._stderr_write)
            self._stderr_write = -1

    def forked(self, pid: int, pidfd: int) -> None:
        """There is a process: tell those who wait for it, or end it if nobody does any more."""
        self.pid = pid
        self._pidfd = pidfd
        self._memory = Memory(pid)
        if self.cause is not None:
            self._signal()
            return
        for server, near in list(self._attached.items()):
            self._present(server, near)

    # ---- who is attached

    def attach(self, server: Channel) -> None:
        """Have this server or worker served too."""
        if server in self._attached:
            return
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with far:
            for end in (near, far):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
            self._tell(control.Attach(), far.fileno())
        self._attached[server] = near
        self._left.discard(server)
        if self.pid:
            self._present(server, near)

    def detach(self, server: Channel) -> None:
        """Have this server finish with the runner."""
        near = self._attached.pop(server, None)
        if near is None:
            return
        if near.fileno() >= 0:
            near.close()  # it was never told of it
            return
        self._left.add(server)
        report(server, control.Leave(self.name))

    def forget(self, server: Channel) -> None:
        """This server is gone."""
        near = self._attached.pop(server, None)
        if near is not None:
            near.close()
        self._left.discard(server)

    def serves(self, server: Channel) -> bool:
        """Whether this server is attached, or still finishing."""
        return server in self._attached or server in self._left

    def attached(self) -> list[Channel]:
        """Return who is attached."""
        return list(self._attached)

    def finishing(self) -> bool:
        """Whether anyone may have runs left in it though not attached any more."""
        return bool(self._left)

    def _present(self, server: Channel, near: socket.socket) -> None:
        with near:
            fds = (near.fileno(), self.golden) if self.golden >= 0 else (near.fileno(),)
            report(server, control.Connected(self.name, self.pid, self.spec.version_id, self.ticket), *fds)

    # ---- its end

    def drain(self) -> None:
        """Have it end when nobody is attached any more."""
        self._tell(control.Drain())

    def end(self, cause: Cause) -> None:
        """Kill it, for this cause; the first cause counts."""
        self.cause = self.cause or cause
        if self._pidfd >= 0:
            self._signal()

    def ended(self, message: control.Exited) -> control.Gone:
        """Return why it ended, and let go of everything."""
        self.hear()
        cause = self.cause
        if cause in {None, Cause.EXIT}:  # the latter: a server saw its socket close before the template saw its end
            cause = Cause.SIGNAL if message.status < 0 else Cause.EXIT
            if message.status == 0 and self.last_moment is not None:
                cause = Cause.STOPPED
        return self._gone(cause or Cause.EXIT, self.detail or _said(cause, message.status))

    def lost(self) -> control.Gone:
        """The template has ended, and this runner with it."""
        if self._pidfd >= 0:
            self._signal()  # the kernel ends it with its template, unless it has found a way out of that
        return self._gone(Cause.NOT_STARTED, "the process it was started from has ended")

    def _gone(self, cause: Cause, detail: str) -> control.Gone:
        gone = control.Gone(
            self.name, self.spec.version_id, cause, detail, self._tail.decode("utf-8", "replace"), ticket=self.ticket
        )
        for server in {*self._attached, *self._left}:
            report(server, gone)
        self.release()
        return gone

    def release(self) -> None:
        """Close everything that belongs to it."""
        self._loop.remove_reader(self._stderr)
        os.close(self._stderr)
        if self._stderr_write >= 0:
            os.close(self._stderr_write)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if self.golden >= 0:
            os.close(self.golden)
        if self._memory is not None:
            self._memory.close()
        if self.last_moment is not None:
            self.last_moment.cancel()
        for near in self._attached.values():
            near.close()
        self._theirs.close()
        self._channel.close()

    def _signal(self) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("the runner had ended already", runner=self.name)

    def _tell(self, message: control.Message, *fds: int) -> None:
        with contextlib.suppress(ChannelClosed):  # it is ending; its servers hear of that by their sockets
            self._channel.send(message, fds)

    # ---- watching

    def hear(self) -> None:
        """Keep the last of what it writes; it is data, never part of our own log."""
        try:
            data = os.read(self._stderr, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._stderr)
            return
        self._tail += data
        del self._tail[:-_STDERR_TAIL]

    def check_memory(self) -> None:
        """End it when its memory, unpacked files included, passes its limit: RLIMIT_AS does not see every way to hold it."""
        if self._memory is None or self.cause is not None:
            return
        limit = self.spec.limits.memory_mb
        self._resident = self._memory.resident_bytes()
        if self._resident + self._placed > limit << 20:
            self.detail = f"it held more than {limit} MiB of memory"
            self.end(Cause.MEMORY)

    def loaded(self, placed: int = 0) -> None:
        """It has loaded: from now on it counts for what it holds, with the bytes of its unpacked files, if that is in memory.

        Those it tells itself, for they are in file names of its own: so no more is believed than its limit.
        """
        if not self.ready and self._memory is not None:
            self._placed = min(max(0, placed), self.spec.limits.memory_mb << 20)
            self._resident = self._resident_ready = self._memory.resident_bytes()
            self.measure()
            self.ready = True

    def measure(self) -> None:
        """Have the kernel count the pages that are its own, which takes milliseconds."""
        self._private, self._resident_then = private_bytes(self.pid), self._resident

    @property
    def drifted(self) -> bool:
        """Whether it has changed so much since it was measured that it should be again."""
        return abs(self._resident - self._resident_then) > max(_LEAST_DRIFT, _DRIFT * self._resident_then)

    @property
    def held_bytes(self) -> int:
        """What would be free again without it: as measured, what its resident memory has changed by since, and its files.

        Until it has loaded that is at least what it is expected to be.
        """
        held = max(0, self._private + self._resident - self._resident_then) if self._resident_then else 0
        return held + self._placed if self.ready else max(held, self._expected)

    @property
    def overgrown(self) -> bool:
        """Whether it has grown near its limit since it was ready."""
        near = _SOFT * (self.spec.limits.memory_mb << 20)
        held, then = self._resident + self._placed, self._resident_ready + self._placed
        return self.ready and self.cause is None and held > max(near, _GROWN * then)


def report(server: Channel, message: control.Message, *fds: int) -> None:
    """Tell a server or worker, if it is still there."""
    try:
        server.send(message, fds)
    except ChannelClosed:
        log.debug("nobody left to tell", message=type(message).__name__)


async def open_files(opener: Open, spec: RunnerSpec) -> tuple[int, ...]:
    """Open what a runner loads: the artifact, and the hooks where it has some. Raises `OSError`."""
    artifact = await opener(spec.digest)
    if spec.hooks is None:
        return (artifact,)
    try:
        return artifact, await opener(spec.hooks.digest)
    except OSError:
        os.close(artifact)
        raise


def close(*descriptors: int) -> None:
    """Close these descriptors; -1 stands for none."""
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)


async def open_golden(opener: Open, spec: RunnerSpec) -> int:
    """Open a version's golden rows (-1: none). What cannot be checked is served all the same: the artifact has a digest."""
    if not spec.golden:
        return -1
    try:
        return await opener(spec.golden)
    except OSError as error:
        log.error("golden rows cannot be read", version=spec.version_id, error=str(error))  # noqa: TRY400 - it says it all
        return -1


def not_started(name: str, spec: RunnerSpec, error: OSError, ticket: str = "") -> control.Gone:
    """Return the news of a runner that could not be started."""
    detail = f"it could not be started: {error.strerror}"
    return control.Gone(name, spec.version_id, Cause.NOT_STARTED, detail, ticket=ticket)


def _signal_name(number: int) -> str:
    """Real-time signals have numbers only, and a model may die of any of them."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _said(cause: Cause | None, status: int) -> str:
    match cause:
        case Cause.SIGNAL:
            return f"it was ended by {_signal_name(-status)}"
        case Cause.DEADLINE:
            return "it was ended because it took too long"
        case Cause.MISMATCH:
            return f"it answers golden rows otherwise than at validation; {INSTEAD}"
        case Cause.EXIT:
            return f"it ended with status {status}"
        case _:
            return ""
