"""The near end of a runner's socket, for asyncio: send runs, get answers by id, learn that it is gone.

The socket is read and written directly, not through a transport: a micro-batch then costs one `sendmsg` and one `recv`, and
large tensors can go as shared memory.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from modelkeep.sandbox import frames

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]
    Answer = tuple[frames.Result | frames.RunFailed, Arrays]
    Told = Callable[[Answer | "RunnerGone"], None]

_RECEIVE: Final = 1 << 18
_MOST_PIECES: Final = 512  # IOV_MAX is 1024


class RunnerGone(Exception):
    """The runner's socket has closed: the process has ended, or its frames could not be trusted (`protocol_error`)."""

    def __init__(self, protocol_error: str = "") -> None:
        self.protocol_error = protocol_error
        super().__init__(protocol_error or "the runner has ended")


class _Outgoing:
    """A frame on its way out, and the descriptor that goes with its first bytes."""

    __slots__ = ("_pieces", "_shared")

    def __init__(self, pieces: "list[bytes | memoryview]", shared: int | None) -> None:
        self._pieces = pieces
        self._shared = shared

    def send(self, sock: socket.socket) -> bool:
        """Send what the socket takes; whether that was all of it."""
        if self._shared is None:
            sent = sock.sendmsg(self._pieces)
        else:
            sent = sock.sendmsg(self._pieces, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._shared]))])
            self.close()
        for at, piece in enumerate(self._pieces):
            if sent < len(piece):
                self._pieces = [memoryview(piece)[sent:], *self._pieces[at + 1 :]]
                return False
            sent -= len(piece)
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None


class RunnerConnection:
    """One runner, seen from serving or from a validation.

    `loaded` resolves to the runner's first message (`Loaded` or `LoadFailed`), or raises `RunnerGone`; `closed` resolves when
    the connection has ended.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[frames.Loaded | frames.LoadFailed] = loop.create_future()
        self.closed: asyncio.Future[RunnerGone] = loop.create_future()
        self._sock = sock
        self._waiting: dict[int, Told] = {}
        self._compiled: asyncio.Future[tuple[frames.Compiled | frames.NotCompiled, Arrays]] | None = None
        self._splitter = frames.Splitter()
        self._outgoing: deque[_Outgoing] = deque()
        self._next = 0
        self._open = True
        loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def open(cls, fd: int) -> "RunnerConnection":
        """Take over the descriptor of a connected stream socket."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        return cls(sock)

    def run(self, tensors: frames.Tensors) -> "asyncio.Future[Answer]":
        """Send one micro-batch; the future has the answer, or raises `RunnerGone`. Raises `FrameError` over the cap."""
        answer: asyncio.Future[Answer] = self._loop.create_future()

        def told(result: "Answer | RunnerGone") -> None:
            if answer.done():
                return
            if isinstance(result, RunnerGone):
                answer.set_exception(result)
                answer.exception()  # taken here: not every run has someone left to hear it
            else:
                answer.set_result(result)

        self.ask(tensors, told)
        return answer

    def ask(self, tensors: frames.Tensors, told: "Told") -> None:
        """Send one micro-batch; `told` is called once with the answer as it arrives, never from here. Raises like `run`."""
        if not self._open:
            raise RunnerGone
        self._next += 1
        number = self._next
        pieces, shared = frames.encode_run(number, tensors)
        self._waiting[number] = told
        self._send(pieces, shared)

    def compile(self) -> "asyncio.Future[tuple[frames.Compiled | frames.NotCompiled, Arrays]]":
        """Ask for a faster form of the model, once; the future has the answer, or raises `RunnerGone`."""
        if not self._open:
            raise RunnerGone
        self._compiled = self._loop.create_future()
        self._send(frames.encode(frames.Compile()))
        return self._compiled

    def quantise(
        self, tensors: frames.Tensors, *, narrow: bool, spare_ends: bool
    ) -> "asyncio.Future[tuple[frames.Compiled | frames.NotCompiled, Arrays]]":
        """Ask for the model in 8-bit integers, when nothing like it is being waited for; as `compile`, and like `run`."""
        if not self._open:
            raise RunnerGone
        pieces = frames.encode(frames.Quantise(narrow, spare_ends), tensors)
        self._compiled = self._loop.create_future()
        self._send(pieces)
        return self._compiled

    def close(self) -> None:
        """Close the socket; the runner ends when it reads the end of file. Who waits for an answer gets `RunnerGone`."""
        self._end("")

    abort = close

    def _send(self, pieces: "list[bytes | memoryview]", shared: int | None = None) -> None:
        """Send now what the socket takes, and the rest as it takes it. Nobody may change the pieces until then."""
        if len(pieces) > _MOST_PIECES:
            pieces = [b"".join(pieces)]
        self._outgoing.append(_Outgoing(pieces, shared))
        if len(self._outgoing) == 1:
            self._flush()
            if self._outgoing and self._open:
                self._loop.add_writer(self._sock.fileno(), self._writable)

    def _flush(self) -> None:
        """Send until the socket is full."""
        outgoing = self._outgoing
        try:
            while outgoing:
                if outgoing[0].send(self._sock):
                    outgoing.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._loop.call_soon(self._end, "")  # the caller is in the middle of asking; it hears of it from its future

    def _writable(self) -> None:
        self._flush()
        if not self._outgoing and self._open:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        """Read what arrived; anything that is no answer ends the connection."""
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end("")
            return
        try:
            for frame in self._splitter.feed(data):
                self._take(*frames.decode(frame))
        except frames.FrameError as error:
            self._end(str(error))

    def _take(self, message: frames.Message, tensors: "Arrays") -> None:
        match message:
            case frames.Result() | frames.RunFailed():
                told = self._waiting.pop(message.id, None)
                if told is None:
                    raise frames.FrameError("an answer to a run that was not asked for")
                told((message, tensors))
            case frames.Loaded() | frames.LoadFailed():
                if self.loaded.done():
                    raise frames.FrameError("loaded twice")
                self.loaded.set_result(message)
            case frames.Compiled() | frames.NotCompiled():
                if self._compiled is None or self._compiled.done():
                    raise frames.FrameError("a compiled model that was not asked for")
                self._compiled.set_result((message, tensors))
            case frames.Run() | frames.Compile() | frames.Quantise():
                raise frames.FrameError("a runner does not ask for runs")

    def _end(self, protocol_error: str) -> None:
        """Close, and tell everyone who waits; once."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._outgoing:
            self._outgoing.popleft().close()
        gone = RunnerGone(protocol_error)
        for waiting in (self.loaded, self._compiled):
            if waiting is not None and not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # taken here: not everyone has someone left to hear it
        self.closed.set_result(gone)
        while self._waiting:
            self._waiting.popitem()[1](gone)
