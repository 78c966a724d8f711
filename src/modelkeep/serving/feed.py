"""News from the control plane: the newest snapshot, in a file, and the courier's bell that says to look again.

The file outlives both processes, so a server that starts while the database is down still has its last news.
"""

import asyncio
import os
import time
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace

from modelkeep.contracts.snapshot import News, Snapshot, decode_snapshot
from modelkeep.infra.bell import MAX_DATAGRAM, Bell, Listener
from modelkeep.serving.keys import Keys
from modelkeep.serving.router import Router

log = structlog.get_logger(__name__)

_HEARTBEAT_S = 2.0
_CACHE_ROOM = 16 * 1024
_SPARE = 64


class Feed:
    """Reads snapshots into the router and the keys; says what is served now, up to the courier."""

    def __init__(
        self, *, snapshot_file: Path, run_dir: Path, router: Router, keys: Keys, name: str, bell: str = "server.sock"
    ) -> None:
        self._file = snapshot_file
        self._router = router
        self._keys = keys
        self._name = name
        self._bell = run_dir / bell
        self._courier = Bell(run_dir / "courier.sock")
        router.trials.told = self.beat

    async def run(self, stop: asyncio.Event) -> None:
        """Apply the file, then every ring of the bell, until `stop`."""
        with Listener(self._bell) as bell:
            self.read()
            while not stop.is_set():
                for ring in await bell.wait(_HEARTBEAT_S):
                    self._hear(ring)
                self._router.tend()
                self.beat()

    def read(self) -> None:
        """Apply the snapshot in the file, if there is one. Its time of change is when it was last known to be the newest."""
        try:
            with self._file.open("rb") as file:
                data = file.read()
                at = os.fstat(file.fileno()).st_mtime  # of what was read, not of what has replaced it since
        except FileNotFoundError:
            return
        try:
            snapshot = decode_snapshot(data)
        except msgspec.DecodeError:
            log.exception("the snapshot cannot be read; what was served so far still is")
            return
        self._keys.heard(at)
        if snapshot.number > self._router.snapshot.number:
            self._apply(snapshot)

    def beat(self) -> None:
        """Send a heartbeat to the courier."""
        beat = self._router.heartbeat(self._name, time.time())
        room = min(_CACHE_ROOM, MAX_DATAGRAM - len(msgspec.msgpack.encode(beat)) - _SPARE)
        self._courier.ring(msgspec.msgpack.encode(replace(beat, cache=self._router.cached(room))))

    def _hear(self, data: bytes) -> None:
        try:
            news = msgspec.msgpack.decode(data, type=News)
        except msgspec.DecodeError:
            log.warning("a ring of the bell that is no news")
            return
        if news.number > self._router.snapshot.number:
            self.read()
        if news.number == self._router.snapshot.number:
            self._keys.heard(news.at)

    def _apply(self, snapshot: Snapshot) -> None:
        self._keys.replace(snapshot.keys, snapshot.trust)
        self._router.apply(snapshot)
        log.info("snapshot applied", number=snapshot.number, deployments=len(snapshot.deployments), keys=len(snapshot.keys))
