"""How messages come in: one by one within their bounds, and out of their codings; and how a stream goes back and forth."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from grpc import aio

from modelkeep.contracts.errors import Timeout, TooLarge, Unavailable
from modelkeep.serving.codings import Coding
from modelkeep.serving.dialects.open_inference.grpc import InvalidMessage
from modelkeep.serving.grpc.packing import ALGORITHMS, coding_of, pays, unpack
from modelkeep.serving.messages import ClientGone

_READ_S: Final = 60.0
_IDLE_S: Final = 300.0


class Draining(Unavailable):
    """This server is about to end: ask again, another one answers."""

    code = "draining"


class Conversation:
    """A stream in both directions. `drained` is done when the server is about to end.

    A message may have `most` bytes; what is said goes out by `say`.
    """

    def __init__(
        self,
        context: Any,  # noqa: ANN401 - the library has no types
        drained: "asyncio.Future[None]",
        most: int,
        say: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._context = context
        self._most = most
        self._say = say
        self._coding: Coding | None = None
        self._begun = False
        self.drained = drained

    @property
    def seconds_left(self) -> float | None:
        """The time until the stream's deadline; None where it has none."""
        left: float | None = self._context.time_remaining()
        return left

    async def next(self) -> bytes | None:
        """Return the next message, None after the last.

        Raises `Draining` where the server ends before it comes, `Timeout` where it does not come within 5 minutes, `TooLarge`.
        """
        reading = asyncio.ensure_future(self._context.read())
        try:
            await asyncio.wait({reading, self.drained}, timeout=_IDLE_S, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise Draining if self.drained.done() else Timeout(f"No message came for {_IDLE_S:g} s: open the stream again.")
            message: bytes = reading.result()
        except aio.InternalError as error:
            raise ClientGone from error
        finally:
            reading.cancel()
        if message is aio.EOF:
            return None
        message, self._coding = await _plain(message, self._most)
        return message

    async def say(self, message: bytes) -> None:
        """Send a message."""
        if self._coding is not None and not self._begun:
            self._context.set_compression(ALGORITHMS[self._coding])  # told with the first message; it holds for all
        self._begun = True
        if not pays(self._coding, message):
            self._context.disable_next_message_compression()
        try:
            await self._say(message)
        except aio.InternalError as error:
            raise ClientGone from error


async def read_message(context: Any, reading: asyncio.Semaphore, most: int) -> tuple[bytes, Coding | None]:  # noqa: ANN401 - as above
    """Return the message of an RPC that has one, read and unpacked while `reading` is held, and the coding in which it came."""
    try:
        async with asyncio.timeout(_READ_S), reading:
            message = await context.read()
            if message is aio.EOF:
                raise InvalidMessage("There is no message.")
            return await _plain(message, most)
    except TimeoutError as error:
        raise Timeout(f"The message did not come within {_READ_S:g} s.") from error
    except aio.InternalError as error:
        raise ClientGone from error


async def _plain(message: bytes, most: int) -> tuple[bytes, Coding | None]:
    """Return a message of at most `most` bytes out of its coding, and the coding."""
    coding = coding_of(message)
    if coding is not None:
        message = await unpack(coding, message, most, _too_large(most))
    if len(message) > most:
        raise _too_large(most)
    return message, coding


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The message is larger than the limit of {most // (1024 * 1024)} MiB.")
