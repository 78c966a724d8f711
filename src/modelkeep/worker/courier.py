"""The courier between the planes: brings the newest snapshot down to a file, and what servers say up to the database.

Serving reads the file, so it starts and goes on without a database. The bell tells it when to look again and how fresh its
news is: each time the courier has seen in the database that the file is the newest, it says so, and touches the file.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import msgspec
import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import News
from modelkeep.control.deployments.news import SNAPSHOT
from modelkeep.control.deployments.service import Deployments
from modelkeep.infra import broadcast
from modelkeep.infra.bell import RING, Bell, Bells, Listener, woken_by
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import wait_until_current
from modelkeep.worker.shadow_reports import ShadowReports

_log = structlog.get_logger(__name__)
_TOUCH_EVERY_S: Final = 5.0
_KEEP_HEARTBEAT_EVERY_S: Final = 10.0
_KEEP_COUNTS_EVERY_S: Final = 0.9  # servers tell twice a second, and not to the millisecond: so each second's are kept


class Courier:
    """Carries snapshots down and heartbeats up."""

    def __init__(
        self,
        db: Database,
        deployments: Deployments,
        snapshot_file: Path,
        run_dir: Path,
        server_bell: Bell | Bells,
        *,
        poll_s: float = 0.5,
        shadows: ShadowReports | None = None,
    ) -> None:
        self._db = db
        self._deployments = deployments
        self._file = snapshot_file
        self._server_bell = server_bell
        self._listener = Listener(run_dir / "courier.sock")
        self._poll_s = poll_s
        self._number = -1
        self._touched = 0.0
        self._kept: dict[str, Heartbeat] = {}
        self._troubled = False
        self._shadows = shadows

    async def run(self, stop: asyncio.Event) -> None:
        """Carry until `stop`."""
        await wait_until_current(self._db, stop)
        with self._listener, woken_by(stop, self._listener):
            datagrams, looked = [RING], 0.0
            while not stop.is_set():
                look = RING in datagrams or time.monotonic() - looked >= self._poll_s
                looked = time.monotonic() if look else looked
                await self._carry(datagrams, look=look)
                datagrams = await self._listener.wait(max(0.0, looked + self._poll_s - time.monotonic()))

    async def _carry(self, datagrams: list[bytes], *, look: bool) -> None:
        """Take in what has arrived; look for news where the bell or the time says so.

        A heartbeat alone is no reason to look: a server answers the news of each look with a heartbeat.
        """
        try:
            if look:
                await self._down()
            await self._up(datagrams)
            if self._shadows is not None:
                await self._shadows.carry()
        except (ModelkeepError, OSError) as error:
            if not self._troubled:
                _log.warning("courier_waits", reason=str(error))
            self._troubled = True
        else:
            if self._troubled:
                _log.info("courier_goes_on")
            self._troubled = False

    async def _down(self) -> None:
        at = time.time()
        async with self._db.read() as tx:
            news = await broadcast.latest(tx, SNAPSHOT, -1 if self._number < 0 else self._number)
        if news is not None:
            await asyncio.to_thread(_replace, self._file, news.payload)
            self._number = news.number
            _log.info("snapshot_delivered", number=news.number)
        elif self._number >= 0 and at - self._touched >= _TOUCH_EVERY_S:
            os.utime(self._file, (at, at))
            self._touched = at
        if self._number >= 0:
            self._server_bell.ring(msgspec.msgpack.encode(News(self._number, at)))

    async def _up(self, datagrams: list[bytes]) -> None:
        newest: dict[str, Heartbeat] = {}
        for datagram in datagrams:
            if datagram == RING:
                continue
            try:
                beat = msgspec.msgpack.decode(datagram, type=Heartbeat)
            except msgspec.DecodeError:
                _log.warning("no_heartbeat", size=len(datagram))
                continue
            newest[beat.server] = beat
        for beat in newest.values():
            if is_news(beat, self._kept.get(beat.server)):
                await self._deployments.hear(beat)
                self._kept[beat.server] = beat


def is_news(beat: Heartbeat, kept: Heartbeat | None) -> bool:
    """Whether a heartbeat is worth a write: something changed, or the last one kept grows old."""
    if kept is None or beat.at - kept.at >= _KEEP_HEARTBEAT_EVERY_S:
        return True
    if (beat.snapshot, beat.serving, beat.failing) != (kept.snapshot, kept.serving, kept.failing):
        return True
    if any(one.why != kept.cache.get(name, one).why for name, one in beat.cache.items()):
        return True
    if beat.trials == kept.trials:
        return False
    return beat.at - kept.at >= _KEEP_COUNTS_EVERY_S or _halted(beat) != _halted(kept)


def _halted(beat: Heartbeat) -> dict[str, str]:
    """Return by which signal each trial has been ended by its server, which is news at once."""
    return {trial: seen.halted for trial, seen in beat.trials.items() if seen.halted}


def _replace(file: Path, content: bytes) -> None:
    """Write a file anew so that whoever opens it, at any moment and after any crash, finds the old or the new one whole."""
    fresh = file.with_name(f"{file.name}.new")
    fd = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(fd)
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
