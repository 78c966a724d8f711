"""How a tree of processes has another one take its place: asked on a local socket, it starts its successor and hands over.

Who asks is somebody of the same user, as the kernel says, and may choose nothing but when: what is started is the command line
by which this tree was started itself, with the program and the settings that lie there now. See `takeover` for what follows.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import structlog

from modelkeep.app.estate import Estate, local_socket
from modelkeep.app.places import Places
from modelkeep.app.supervisor import RoleEnded, Supervisor
from modelkeep.app.takeover import FORM, NotTakenOver, Takeover
from modelkeep.infra.listeners import listening
from modelkeep.sandbox import control, succeeding
from modelkeep.sandbox.control import Channel, ChannelClosed

log = structlog.get_logger(__name__)

SOCKET = "upgrade.sock"
OPTION = "--take-over"
_MOST_ASKED = 1024
_ASK_S = 5.0
_STEP_S = 60.0
_MOST_PATIENCE_S = 86_400.0
_PEER = struct.Struct("3i")

M = TypeVar("M", bound=control.Message)
Say = Callable[[str], Awaitable[None]]


class Asked(msgspec.Struct, frozen=True):
    """What somebody asks for: that a new tree takes over. It has so many seconds to get its models ready."""

    patience_s: float


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer, one a line: how it goes on, and, with the last one, how it ended."""

    text: str
    ended: bool = False
    failed: bool = False


def command() -> list[str]:
    """Return the command line of this process, without what only it was told."""
    given = list(sys.orig_argv[1:])
    if OPTION in given:
        at = given.index(OPTION)
        del given[at : at + 2]
    return [sys.executable, *given]


class Succession:
    """Waits to be asked for a successor, and hands over to it: then `heir` is its process.

    `before` is how this tree took over itself, None where it was started. Its last callers have `leave_s` seconds to leave.
    """

    def __init__(
        self, places: Places, estate: Estate, leave_s: float, before: Takeover | None = None, program: Sequence[str] = ()
    ) -> None:
        self._places = places
        self._estate = estate
        self._leave_s = leave_s
        self._before = before
        self._program = list(program) or command()
        self._under_way = asyncio.Lock()
        self._over = asyncio.Event()
        self._supervisor: Supervisor
        self.heir: subprocess.Popen[bytes] | None = None
        self.channel: Channel | None = None

    async def run(self, supervisor: Supervisor) -> None:
        """Return when another tree has taken over and the last callers have left. Raises `NotTakenOver` where we did not."""
        self._supervisor = supervisor
        freed = None
        if self._before is not None:
            await self._before.run(supervisor)
            freed = asyncio.create_task(self._before.wait_until_alone(supervisor))
        try:
            with local_socket(self._places.run, SOCKET) as door:
                async with await asyncio.start_unix_server(self._visit, sock=door, limit=_MOST_ASKED, backlog=8):
                    await self._over.wait()
        finally:
            if freed is not None:
                freed.cancel()
            if self.heir is not None and not self._over.is_set():
                self.heir.send_signal(signal.SIGTERM)  # we are told to end, and mean all of us

    # ---- who asks

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one visitor asks for, and tell how it goes. It may leave in the middle of it."""

        async def say(text: str, *, ended: bool = False, failed: bool = False) -> None:
            with contextlib.suppress(OSError):
                writer.write(msgspec.json.encode(Said(text, ended, failed)) + b"\n")
                await writer.drain()

        try:
            asked = await self._read(reader, writer)
            if asked is None:
                return
            await self._upgrade(asked, say)
        except NotTakenOver as error:
            log.error("no upgrade", reason=error.message)  # noqa: TRY400 - the text says it all
            await say(error.message, ended=True, failed=True)
        else:
            await say("The upgrade is done.", ended=True)
            self._over.set()
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
        """Return what is asked for, None for a stranger and for what cannot be understood."""
        peer: socket.socket = writer.get_extra_info("socket")
        _pid, uid, _gid = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != os.geteuid():
            log.warning("somebody else asks for an upgrade", uid=uid)
            return None
        try:
            async with asyncio.timeout(_ASK_S):
                asked = msgspec.json.decode(await reader.readuntil(b"\n"), type=Asked)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, msgspec.DecodeError) as error:
            log.warning("a visitor cannot be understood", reason=type(error).__name__)
            return None
        return asked if 0 < asked.patience_s <= _MOST_PATIENCE_S else None

    # ---- what is done

    async def _upgrade(self, asked: Asked, say: Say) -> None:
        if self._under_way.locked() or self.heir is not None:
            raise NotTakenOver("Another upgrade is under way.")
        async with self._under_way:
            if self._before is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._before.gone.wait(), _ASK_S)
                if not self._before.gone.is_set():
                    raise NotTakenOver(
                        "The upgrade of before is not over: the last callers of the old server have not left yet."
                    )
            try:
                coverages = await self._supervisor.coverages()
            except RoleEnded:
                raise NotTakenOver("A server process has just ended: try again.") from None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            channel = Channel(ours)
            self._offer(channel, coverages)  # first of all: from now on it is there, whatever becomes of us
            with theirs:
                heir = self._start(theirs, channel)
            await say(f"A new server has been started (process {heir.pid}): it loads the models.")
            try:
                leaving = await self._hand_over(channel, asked.patience_s, say)
            except BaseException as error:
                await self._give_up(heir, channel, error)
                raise
            self.heir, self.channel = heir, channel
            log.info("another tree has taken over", pid=heir.pid)
            await say("The new server answers. The old one waits for its last callers to leave.")
            done, missing = await asyncio.wait(leaving, timeout=self._leave_s)
            if missing:
                log.warning("the last callers did not leave in time", servers=len(missing))
            for one in done:
                with contextlib.suppress(RoleEnded):
                    one.result()

    def _start(self, theirs: socket.socket, channel: Channel) -> "subprocess.Popen[bytes]":
        """Start the successor. It must survive us, and a Ctrl-C is ours to pass on."""
        line = [*self._program, OPTION, str(theirs.fileno())]
        try:
            return subprocess.Popen(line, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), process_group=0)
        except OSError as error:
            channel.close()
            raise NotTakenOver(f"The new server cannot be started: {error.strerror}.") from error

    async def _hand_over(self, channel: Channel, patience_s: float, say: Say) -> "list[asyncio.Future[succeeding.Left]]":
        """Go through all steps; whatever goes wrong, all is as before. Returns when the last callers will have left."""
        supervisor = self._supervisor
        try:
            await _next(channel, succeeding.Warm, patience_s)
            await say("The new server is ready.")
        except ChannelClosed:
            raise NotTakenOver("The new server ended before it was ready: its log says why.") from None
        try:
            await supervisor.end_roles("courier")
            behind = listening(self._estate.rpcs_port) if self._estate.rpcs is not None else 0
            channel.send(succeeding.Frozen(await supervisor.coverages()))
            await _next(channel, succeeding.Accepting, _STEP_S)
            leaving = await supervisor.yield_callers(behind)
            await supervisor.end_roles("api", "worker")
            channel.send(succeeding.Yours())
            await _next(channel, succeeding.Settled, patience_s)
        except BaseException as error:
            supervisor.go_on()
            if isinstance(error, ChannelClosed):
                raise NotTakenOver("The new server ended in the middle of taking over: its log says why.") from None
            if isinstance(error, RoleEnded):
                raise NotTakenOver("A process of the old server ended in the middle of the upgrade.") from None
            raise
        return leaving

    def _offer(self, channel: Channel, coverages: tuple[succeeding.Coverage, ...]) -> None:
        estate, supervisor = self._estate, self._supervisor
        for name, fd in estate.descriptors().items():
            channel.send(succeeding.Given(name), [fd])
        rpcs = estate.rpcs.address if estate.rpcs is not None else ""
        channel.send(
            succeeding.Offer(FORM, 1 - estate.generation, os.getpid(), rpcs, estate.worker, supervisor.held_bytes, coverages),
        )

    async def _give_up(self, heir: "subprocess.Popen[bytes]", channel: Channel, error: BaseException) -> None:
        """End a successor of which nothing came."""
        with contextlib.suppress(ChannelClosed):
            channel.send(succeeding.Refused(error.message if isinstance(error, NotTakenOver) else "The old server ends."))
        heir.terminate()
        try:
            await asyncio.to_thread(heir.wait, self._supervisor.drain_s)
        except subprocess.TimeoutExpired:
            heir.kill()
            await asyncio.to_thread(heir.wait)
        finally:
            channel.close()


async def _next(channel: Channel, kind: type[M], patience_s: float) -> M:
    """Return the successor's next message, which is of this kind. Raises `ChannelClosed` and `NotTakenOver`."""
    try:
        async with asyncio.timeout(patience_s):
            message, fds = await channel.receive()
    except TimeoutError:
        raise NotTakenOver(f"The new server was not ready after {patience_s:g} s.") from None
    for fd in fds:
        os.close(fd)
    if isinstance(message, succeeding.Refused):
        raise NotTakenOver(message.reason)
    if not isinstance(message, kind):
        raise NotTakenOver("What the new server says cannot be understood.")
    return message
