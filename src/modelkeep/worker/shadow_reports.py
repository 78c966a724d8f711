"""What servers leave of their shadows, file by file, brought up to the database.

A server replaces its file every few seconds while it counts. A file that nobody has touched for a while, and that has been
brought up, goes: the server that left it has ended, or its shadow has. If it goes on after all, it leaves the file again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from modelkeep.contracts.shadow import ShadowSeen

_log = structlog.get_logger(__name__)
_LOOK_EVERY_S: Final = 1.0
_KEPT_S: Final = 3600.0
_LARGEST: Final = 4 << 20


class ShadowReports:
    """The files in one folder; `hear` is told what is in them."""

    def __init__(self, folder: Path, hear: Callable[[ShadowSeen], Awaitable[None]]) -> None:
        self._folder = folder
        self._hear = hear
        self._looked = 0.0
        self._known: dict[str, int] = {}

    async def carry(self) -> None:
        """Bring up what is new, if it is time to look; raises what `hear` does, after which it is tried again."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        for file, changed in await asyncio.to_thread(self._files):
            if self._known.get(file.name) == changed:
                if time.time() - changed / 1e9 > _KEPT_S:
                    file.unlink(missing_ok=True)
                    del self._known[file.name]
                continue
            seen = await asyncio.to_thread(_read, file)
            if seen is not None:
                await self._hear(seen)
            self._known[file.name] = changed

    def _files(self) -> list[tuple[Path, int]]:
        found = []
        for file in sorted(self._folder.glob("*.shadow")):
            try:
                found.append((file, file.stat().st_mtime_ns))
            except FileNotFoundError:  # another courier was quicker
                continue
        return found


def _read(file: Path) -> ShadowSeen | None:
    """Read a report; None for what is none, or has gone."""
    try:
        with file.open("rb") as opened:
            return msgspec.msgpack.decode(opened.read(_LARGEST), type=ShadowSeen)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        _log.warning("no_report_of_a_shadow", file=file.name, reason=str(error))
        return None
