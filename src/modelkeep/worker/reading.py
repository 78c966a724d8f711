"""Reads spools and makes blocks of what is in them: most of the courier's work, and none that cannot wait a moment.

    python -m modelkeep.worker.reading

is a process for it alone, which gets the processor when nothing else wants it (SCHED_IDLE). Beside it, the slices of a merely
niced process delay a prediction by milliseconds. It is asked on stdin and answers on stdout, each message a length (u32) and
msgpack, and ends with its stdin, that is with the courier. A courier that falls behind does the work itself.
"""

import asyncio
import contextlib
import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from modelkeep.control.predictions import blocks
from modelkeep.control.predictions.blocks import Gathered
from modelkeep.infra.spool import Position, SpoolReader

_LENGTH: Final = struct.Struct("<I")
_PATIENCE_S: Final = 2.0


class Asked(msgspec.Struct, frozen=True):
    """What to read: a spool's folder, from where, and about how many bytes."""

    folder: str
    position: Position
    max_bytes: int


class Found(msgspec.Struct, frozen=True):
    """Blocks of what was read, where to go on, whether there is more, and what could not be read (see `infra.spool.Read`)."""

    gathered: Gathered
    position: Position
    lost: int
    torn: int
    more: bool


class NotNow(Exception):
    """The process did not answer in time: others want the processor, or it has ended."""


_encode = msgspec.msgpack.Encoder().encode
_asked = msgspec.msgpack.Decoder(Asked).decode
_found = msgspec.msgpack.Decoder(Found).decode


def read(asked: Asked) -> Found:
    """Read a part of a spool."""
    found = SpoolReader(Path(asked.folder)).read(asked.position, asked.max_bytes)
    return Found(blocks.gather(found.records), found.position, found.lost, found.torn, found.more)


class IdleReader:
    """Has a process read; it is started when it is first needed. One request at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def read(self, asked: Asked) -> Found:
        """Do what `read` does there; raises `NotNow`."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                process = await self._started()
                assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
                body = _encode(asked)
                process.stdin.write(_LENGTH.pack(len(body)) + body)
                (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
                return _found(await process.stdout.readexactly(length))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            raise NotNow from error

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        return self._process


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer until stdin ends."""
    while len(head := stdin.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        body = _encode(read(_asked(stdin.read(length))))
        stdout.write(_LENGTH.pack(len(body)) + body)
        stdout.flush()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    serve(sys.stdin.buffer, sys.stdout.buffer)
