"""The courier's other load: what servers have spooled of their predictions, into the history.

For each spool: read, make blocks, load them together with the new position, remove what is behind it. Whatever dies between
any two of these, nothing is loaded twice and nothing is lost: the position in the database alone says what has been done.
When there is nothing to load, small blocks are merged and old ones retired.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.snapshot import decode_snapshot
from modelkeep.control.predictions.service import OVER_CAP, Predictions
from modelkeep.infra.loading import Loading, say
from modelkeep.infra.settings import HistorySettings
from modelkeep.infra.spool import Position, SpoolReader
from modelkeep.worker.reading import Asked, Found, IdleReader, NotNow, read

_log = structlog.get_logger(__name__)
_AT_ONCE: Final = 4 << 20
_READS_A_LOOK: Final = 16
_LATE_S: Final = 2.0
_DAY_S: Final = 86_400.0
_SAY_EVERY_S: Final = 1.0
_COMPACT_EVERY_S: Final = 10.0
_RETIRE_EVERY_S: Final = 300.0
_LOOK_FOR_LEFT_EVERY_S: Final = 60.0


class HistoryCourier:
    """Loads the spools below one folder. `loaded`, `lost` and `torn` count since its start; `tell` is where it says so.

    `idle` reads when nothing else wants the processor; without it, and while that is too slow, it is done here. `forget_shown`
    removes what is shown elsewhere of predictions that are gone, and returns how many rows that were.
    """

    def __init__(
        self,
        predictions: Predictions,
        spools: Path,
        snapshot_file: Path,
        settings: HistorySettings,
        *,
        poll_s: float = 0.5,
        tell: Path | None = None,
        idle: IdleReader | None = None,
        forget_shown: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self.loaded = 0
        self.lost = 0
        self.torn = 0
        self._predictions = predictions
        self._spools = spools
        self._snapshot_file = snapshot_file
        self._settings = settings
        self._poll_s = poll_s
        self._tell = tell
        self._idle = idle
        self._forget_shown = forget_shown
        self._forgotten: object = None
        self._hurry = False
        self._positions: dict[str, Position] = {}
        self._due: dict[str, float] = {}
        self._behind_since: float | None = None
        self._troubled = False

    @property
    def progress(self) -> Loading:
        """How far it is, and what was lost."""
        return Loading(time.time(), self._behind_since or 0.0, self.lost + self.torn)

    async def run(self, stop: asyncio.Event) -> None:
        """Load until `stop`; what is in the spools by then is for the next start."""
        while not stop.is_set():
            more = False
            try:
                more = await self.look()
                if not more:
                    await self.tidy()
            except (ModelkeepError, OSError) as error:
                self._positions.clear()
                self._behind_since = self._behind_since or time.time()
                if not self._troubled:
                    _log.warning("history_waits", reason=str(error))
                self._troubled = True
            else:
                if self._troubled:
                    _log.info("history_goes_on")
                self._troubled = False
            await self._every("say", _SAY_EVERY_S, self._say)
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._poll_s)

    async def look(self) -> bool:
        """Load what is there, a bounded part of it from each spool; return whether there is more."""
        await self._every("prepare", _COMPACT_EVERY_S, self._predictions.prepare)
        began, behind = time.time(), list[float]()
        for reader in await asyncio.to_thread(self._readers):
            server, more = reader.folder.name, True
            for _ in range(_READS_A_LOOK):
                more, newest_at = await self._carry(server, reader)
                if not more:
                    break
            if more:
                behind.append(newest_at or began)
        self._behind_since = min(behind, default=None)
        return bool(behind)

    async def tidy(self) -> None:
        """Do what is due of the work that can wait: merge blocks, retire old ones, remove spools that are left behind."""
        await self._every("compact", _COMPACT_EVERY_S, self._predictions.compact)
        await self._every("retire", _RETIRE_EVERY_S, self._retire)
        await self._every("left", _LOOK_FOR_LEFT_EVERY_S, self._remove_left)
        await self._every("forget", _RETIRE_EVERY_S, self._forget)

    async def _say(self) -> None:
        if self._tell is not None:
            say(self._tell, self.progress)

    def _readers(self) -> list[SpoolReader]:
        if not self._spools.is_dir():
            return []
        return [SpoolReader(folder) for folder in sorted(self._spools.iterdir()) if folder.is_dir()]

    async def _carry(self, server: str, reader: SpoolReader) -> tuple[bool, float]:
        """Load one part of one spool; return whether there is more, and the time of the newest record loaded (0: none)."""
        before = self._positions.get(server)
        if before is None:
            before = await self._predictions.position(server)
        got = await self._read(reader, before)
        found = got.gathered
        self._hurry = got.more and time.time() - found.newest_at > _LATE_S
        if got.position != before:
            self._positions.pop(server, None)
            lost = {"unreadable": got.lost + found.unreadable, "torn": got.torn}
            await self._predictions.load(server, before, got.position, found, lost)
            self.loaded += found.readable
            self.lost += got.lost + found.unreadable
            self.torn += got.torn
            if any(lost.values()):
                _log.warning("predictions_lost", server=server, **lost)
            if got.position.segment != before.segment:
                await asyncio.to_thread(reader.forget, got.position)
        self._positions[server] = got.position
        return got.more, found.newest_at

    async def _read(self, reader: SpoolReader, position: Position) -> Found:
        """Read on: by the process that waits for everybody, as long as that is quick enough."""
        asked = Asked(str(reader.folder), position, _AT_ONCE)
        idle = None if self._hurry else self._idle
        if idle is not None and await asyncio.to_thread(reader.waiting_bytes, position) > 0:
            try:
                return await idle.read(asked)
            except NotNow:
                _log.debug("history_reads_itself", server=reader.folder.name)
        return await asyncio.to_thread(read, asked)

    async def _retire(self) -> None:
        kept = await asyncio.to_thread(_kept_days, self._snapshot_file)
        max_bytes = int(self._settings.max_gb * (1 << 30))
        gone = await self._predictions.retire(keep_days=self._settings.keep_days, kept=kept, max_bytes=max_bytes)
        if gone:
            self.lost += gone
            _log.warning("history_is_full", lost=gone, max_gb=self._settings.max_gb)

    async def _forget(self) -> None:
        """Have what is shown of predictions that are gone go, too: once after a start, and whenever any may have gone."""
        kept = await asyncio.to_thread(_kept_days, self._snapshot_file)
        reasons = (kept, (await self._predictions.lost()).get(OVER_CAP, 0), int(time.time() // _DAY_S))
        if self._forget_shown is not None and reasons != self._forgotten:
            try:
                rows = await self._forget_shown()
            except ModelkeepError as error:  # the control plane's database is away: the history does not wait for it
                _log.warning("replays_wait", reason=str(error))
                return
            self._forgotten = reasons
            if rows:
                _log.info("replays_show_less", rows=rows)

    async def _remove_left(self) -> None:
        for server, position in list(self._positions.items()):
            reader = SpoolReader(self._spools / server)
            if await asyncio.to_thread(reader.remove_if_left, position):
                self._positions.pop(server)
                await self._predictions.forget_spool(server)

    async def _every(self, name: str, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Do something now and then. One that fails is tried again as soon as the next look comes."""
        if time.monotonic() >= self._due.get(name, 0.0):
            await work()
            self._due[name] = time.monotonic() + seconds


def _kept_days(snapshot_file: Path) -> Mapping[str, int]:
    """Return how many days each deployment's predictions are kept, as the newest snapshot says; none without one."""
    try:
        snapshot = decode_snapshot(snapshot_file.read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}
    return {one.name: one.settings.recording.keep_days for one in snapshot.deployments}
