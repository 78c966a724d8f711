"""The near end of a runner's socket, for asyncio: send runs, get answers by id, learn that it is gone."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from modelkeep.sandbox import frames

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RunnerGone(Exception):
    """The runner's socket has closed: the process has ended, or its frames could not be trusted (`protocol_error`)."""

    def __init__(self, protocol_error: str = "") -> None:
        self.protocol_error = protocol_error
        super().__init__(protocol_error or "the runner has ended")


class RunnerConnection(asyncio.Protocol):
    """One runner, seen from serving or from a validation.

    `loaded` resolves to the runner's first message (`Loaded` or `LoadFailed`), or raises `RunnerGone`.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.loaded: asyncio.Future[frames.Loaded | frames.LoadFailed] = loop.create_future()
        self.closed: asyncio.Future[RunnerGone] = loop.create_future()
        self._waiting: dict[int, asyncio.Future[tuple[frames.Result | frames.RunFailed, dict[str, NDArray[np.generic]]]]] = {}
        self._compiled: asyncio.Future[tuple[frames.Compiled | frames.NotCompiled, dict[str, NDArray[np.generic]]]] | None = (
            None
        )
        self._splitter = frames.Splitter()
        self._next = 0
        self._transport: asyncio.Transport | None = None
        self._protocol_error = ""

    @classmethod
    async def open(cls, fd: int) -> "RunnerConnection":
        """Take over the descriptor of a connected stream socket."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        _transport, connection = await asyncio.get_running_loop().create_connection(cls, sock=sock)
        return connection

    def run(
        self, tensors: frames.Tensors
    ) -> "asyncio.Future[tuple[frames.Result | frames.RunFailed, dict[str, NDArray[np.generic]]]]":
        """Send one micro-batch; the future has the answer, or raises `RunnerGone`. Raises `FrameError` over the cap."""
        if self._transport is None or self._transport.is_closing():
            raise RunnerGone(self._protocol_error)
        self._next += 1
        number = self._next
        pieces = frames.encode(frames.Run(number), tensors)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._transport.writelines(pieces)
        return answer

    def compile(self) -> "asyncio.Future[tuple[frames.Compiled | frames.NotCompiled, dict[str, NDArray[np.generic]]]]":
        """Ask for a faster form of the model, once; the future has the answer, or raises `RunnerGone`."""
        if self._transport is None or self._transport.is_closing():
            raise RunnerGone(self._protocol_error)
        self._compiled = asyncio.get_running_loop().create_future()
        self._transport.writelines(frames.encode(frames.Compile()))
        return self._compiled

    def close(self) -> None:
        """Close the socket; the runner ends when it reads the end of file."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket at once, whatever is still on its way; who waits for an answer gets `RunnerGone`."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read what arrived (asyncio calls this); anything that is no answer ends the connection."""
        try:
            for frame in self._splitter.feed(data):
                self._take(*frames.decode(frame))
        except frames.FrameError as error:
            self._protocol_error = str(error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, message: frames.Message, tensors: "dict[str, NDArray[np.generic]]") -> None:
        match message:
            case frames.Result() | frames.RunFailed():
                answer = self._waiting.pop(message.id, None)
                if answer is None:
                    raise frames.FrameError("an answer to a run that was not asked for")
                if not answer.done():
                    answer.set_result((message, tensors))
            case frames.Loaded() | frames.LoadFailed():
                if self.loaded.done():
                    raise frames.FrameError("loaded twice")
                self.loaded.set_result(message)
            case frames.Compiled() | frames.NotCompiled():
                if self._compiled is None or self._compiled.done():
                    raise frames.FrameError("a compiled model that was not asked for")
                self._compiled.set_result((message, tensors))
            case frames.Run() | frames.Compile():
                raise frames.FrameError("a runner does not ask for runs")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who waits (asyncio calls this)."""
        del exc
        gone = RunnerGone(self._protocol_error)
        everyone: list[asyncio.Future[Any]] = [self.loaded, *self._waiting.values(), *filter(None, [self._compiled])]
        for waiting in everyone:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # taken here: not every run has someone left to hear it
        self._waiting.clear()
        if not self.closed.done():
            self.closed.set_result(gone)
