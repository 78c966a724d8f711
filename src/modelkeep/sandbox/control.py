"""Messages between the supervisor and the processes around it, and the channel they travel on.

    server -> supervisor   Want (declarative: all versions it serves, and with how many replicas), Accept, Ready, Used, Wake,
                           Kill
    worker -> supervisor   Inspect (one runner for one validation), Ready, Kill
    supervisor -> both     Configure, Connected (with the runner's socket), Gone, Held, Drain
    supervisor -> server   Leave (a runner that is to go), Asleep (a version that has no runners until it is asked), Renew,
                           Begin, Tell, Yield, Resume, Alone
    server -> supervisor   Coverage, Yielded, Left
    supervisor -> the one that takes over (app/succession.py)   Given (with a descriptor), Offer, Frozen, Yours
    the one that takes over -> supervisor   Warm, Accepting, Settled
    either of them         Refused
    any role -> supervisor Started
    supervisor -> template Fork (with the artifact, the runner's own channel and its stderr)
    template -> supervisor Grounded, Forked (with a pidfd), Exited
    supervisor -> runner   Attach (with the runner's end of a socket to one server or worker), Drain

A channel is a Unix stream socketpair. Each message is a u32 length, a u8 count of descriptors, and msgpack. Descriptors
travel beside the bytes (SCM_RIGHTS) and are handed out in order. A runner's own channel goes one way: nobody ever reads what
a runner might write there, so no descriptor and no message can come out of a runner but as frames on its sockets.
"""

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.contracts.runner import Column
from modelkeep.contracts.snapshot import Memory, RunnerSpec
from modelkeep.sandbox.succeeding import (
    Accepting,
    Alone,
    Begin,
    Coverage,
    Frozen,
    Given,
    Left,
    Offer,
    Refused,
    Resume,
    Settled,
    Tell,
    Warm,
    Yield,
    Yielded,
    Yours,
)

MAX_MESSAGE = 64 * 1024 * 1024
_HEAD = struct.Struct("<IB")
_MAX_FDS = 8


class Cause(StrEnum):
    """Why a runner is gone."""

    EXIT = "exit"  # it ended by itself
    SIGNAL = "signal"  # a crash: it died of a signal that nobody here sent
    MEMORY = "memory"  # its memory limit
    DEADLINE = "deadline"  # a load or a run took too long
    STOPPED = "stopped"  # no longer wanted
    PROTOCOL = "protocol"  # it sent something that is no frame
    MISMATCH = "mismatch"  # it answered golden rows otherwise than at validation
    NOT_STARTED = "not_started"  # it could not be started at all


class Configure(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the role's own settings, as JSON, which may hold a secret."""

    settings: bytes

    def __repr__(self) -> str:
        return "Configure(hidden)"


class Started(msgspec.Struct, frozen=True, tag=True):
    """Role: up and answering."""


class Wanted(msgspec.Struct, frozen=True):
    """A version that a server wants, and how many runners of it. They serve all servers, so the largest wish is what runs.

    `lazy`: nobody waits for it, so one that is kept on demand is not loaded before it is asked for.
    """

    spec: RunnerSpec
    replicas: int = 1
    memory: Memory = Memory()
    lazy: bool = False


class Want(msgspec.Struct, frozen=True, tag=True):
    """Server: keep runners for each of these versions, and for no others."""

    specs: tuple[Wanted, ...]


class Accept(msgspec.Struct, frozen=True, tag=True):
    """Server: the level of the lock-down that administrators accept below what formats need, by a snapshot of this number."""

    level: Level | None
    snapshot: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Server or worker: this runner has loaded (and answered its first row).

    `placed`: bytes of memory that its unpacked files take.
    """

    runner: str
    placed: int = 0


class Used(msgspec.Struct, frozen=True, tag=True):
    """Server: these versions have run since it last said so."""

    version_ids: tuple[str, ...]


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Server: a request waits for this version, which is asleep."""

    version_id: str


class Inspect(msgspec.Struct, frozen=True, tag=True):
    """Worker: start one runner for a validation, when there is memory for it. It is never restarted.

    `sample` describes the uploader's sample columns. `beside` is the ticket of the runner that the same job has already.
    """

    ticket: str
    spec: RunnerSpec
    sample: tuple[Column, ...] = ()
    beside: str = ""


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Server or worker: end this runner, for this cause. It is gone for all servers, so let it be the runner's own fault.

    A worker may name a ticket instead, for a runner that it waits for no more.
    """

    runner: str
    cause: Cause


class Connected(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: here is a runner, started for you or running already; your end of a socket to it comes with this.

    A second descriptor, where there is one, is the file with its version's golden rows.

    The runner's first frame on it is `Loaded` or `LoadFailed`. `ticket` answers an `Inspect`. After a `Leave` the same runner
    may be connected again, by another socket, when this server wants its version again before it is gone.
    """

    runner: str
    pid: int
    version_id: str
    ticket: str = ""


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: give this runner no new runs, let it finish those that it has, then close your end of its socket.

    Closing it is no reason for a `Kill`: others may still be served. The runner ends when every end is closed, and is ended
    after its version's run limit.
    """

    runner: str


class Gone(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: a runner has ended. `detail` is for people; `stderr` is the last it wrote, as data."""

    runner: str
    version_id: str
    cause: Cause
    detail: str = ""
    stderr: str = ""
    ticket: str = ""


class Held(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: this version died too often; the next try is in so many seconds."""

    version_id: str
    retry_after_s: float
    detail: str = ""


class Asleep(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: this version has no runners, for others need the memory more; a `Wake` brings it back."""

    version_id: str


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: finish what you have, take nothing new, then end.

    To a role: readiness is off from now on. To a runner: end as soon as nobody is attached any more.
    """


class Renew(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: somebody says that the files of TLS are others now; read them."""


class Attach(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to runner: serve whoever is at the other end of this socket, too. Descriptor: the runner's end."""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to template: start a runner. Descriptors: artifact (read-only), the runner's end of its channel, stderr.

    Where it is lent a `folder` to unpack its archive in, that is its path, and a descriptor open on it comes fourth. The last
    one is open on the version's hooks, where `spec` has some.
    """

    runner: str
    spec: RunnerSpec
    sample: tuple[Column, ...] = ()
    folder: str = ""


class Grounded(msgspec.Struct, frozen=True, tag=True):
    """Template: how well runners are locked in on this machine, by a trial."""

    confinement: Confinement


class Forked(msgspec.Struct, frozen=True, tag=True):
    """Template: the runner's process id; its pidfd comes with this."""

    runner: str
    pid: int


class Exited(msgspec.Struct, frozen=True, tag=True):
    """Template: a runner has ended and was reaped. `status` as `os.waitstatus_to_exitcode` gives it (negative: a signal)."""

    runner: str
    status: int
    peak_rss: int


Message = (
    Configure
    | Started
    | Want
    | Accept
    | Ready
    | Used
    | Wake
    | Inspect
    | Kill
    | Connected
    | Leave
    | Gone
    | Held
    | Asleep
    | Drain
    | Renew
    | Attach
    | Fork
    | Grounded
    | Forked
    | Exited
    | Begin
    | Tell
    | Coverage
    | Yield
    | Yielded
    | Left
    | Resume
    | Alone
    | Given
    | Offer
    | Warm
    | Frozen
    | Accepting
    | Yours
    | Settled
    | Refused
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class ChannelClosed(Exception):
    """The other side has gone."""


def pack(message: Message, fds: Sequence[int] = ()) -> bytes:
    """Return the bytes of a message that is sent together with `fds`."""
    body = _encode(message)
    return _HEAD.pack(len(body), len(fds)) + body


class Inbox:
    """Collects bytes and descriptors as they arrive, and gives out whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def receive(self, sock: socket.socket) -> list[tuple[Message, list[int]]]:
        """Read once from `sock`; return the messages that are now complete.

        Raises `ChannelClosed` at end of file, and where what arrived is no message.
        """
        item = array.array("i")
        data, ancillary, flags, _address = sock.recvmsg(
            1 << 16, socket.CMSG_SPACE(_MAX_FDS * item.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % item.itemsize])
                self._fds.extend(received)
        if not data or flags & socket.MSG_CTRUNC:  # the latter: a descriptor was lost, and with it the order of all others
            self.close()
            raise ChannelClosed
        self._buffer += data
        whole: list[tuple[Message, list[int]]] = []
        try:
            while (one := self._next()) is not None:
                whole.append(one)
        except msgspec.DecodeError as error:
            self._fds.extend(fd for _message, fds in whole for fd in fds)
            self.close()
            raise ChannelClosed from error
        return whole

    def _next(self) -> tuple[Message, list[int]] | None:
        if len(self._buffer) < _HEAD.size:
            return None
        size, count = _HEAD.unpack_from(self._buffer)
        end = _HEAD.size + size
        if size > MAX_MESSAGE or count > _MAX_FDS:
            raise msgspec.DecodeError("a message over the cap")
        if len(self._buffer) < end or len(self._fds) < count:
            return None
        message = _decode(bytes(self._buffer[_HEAD.size : end]))
        del self._buffer[:end]
        return message, [self._fds.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close descriptors that no message has claimed."""
        while self._fds:
            os.close(self._fds.popleft())


class Channel:
    """One end of a channel, for asyncio. `send` never blocks; `receive` waits for the next message."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._inbox = Inbox()
        self._ready: deque[tuple[Message, list[int]]] = deque()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self._closed = False
        self._readable: asyncio.Future[None] | None = None

    async def receive(self) -> tuple[Message, list[int]]:
        """Return the next message and its descriptors, which the caller now owns. Raises `ChannelClosed`."""
        while not self._ready:
            if self._closed:
                raise ChannelClosed
            readable = self._readable = self._loop.create_future()
            self._loop.add_reader(self._sock, _settle, readable)
            try:
                await readable
            finally:
                self._readable = None
                if not self._closed:
                    self._loop.remove_reader(self._sock)
            if self._closed:
                raise ChannelClosed
            try:
                self._ready.extend(self._inbox.receive(self._sock))
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChannelClosed from error
        return self._ready.popleft()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue a message. Duplicates of `fds` are sent; the caller keeps and closes its own."""
        if self._closed:
            raise ChannelClosed
        self._out.append((memoryview(pack(message, fds)), [os.dup(fd) for fd in fds]))
        self._flush()

    def _flush(self) -> None:
        while self._out:
            data, fds = self._out[0]
            try:
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
            except BlockingIOError:
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:
                self.close()
                return
            for fd in fds:
                os.close(fd)
            if sent < len(data):
                self._out[0] = (data[sent:], [])
            else:
                self._out.popleft()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)

    def close(self) -> None:
        """Close the channel; a waiting `receive` raises `ChannelClosed`."""
        if self._closed:
            return
        self._closed = True
        if self._readable is not None:
            _settle(self._readable)
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        for _unclaimed, fds in (*self._out, *self._ready):
            for fd in fds:
                os.close(fd)
        self._out.clear()
        self._ready.clear()
        self._inbox.close()
        self._sock.close()


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
