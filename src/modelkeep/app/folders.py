"""Folders lent to runners to unpack archives in, where they cannot have one in memory; each is removed when its runner ends."""

import asyncio
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)

_AT_ONCE = 100
_RESERVE = 1 << 30
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Folder(NamedTuple):
    """A folder for one runner, and a descriptor open on it, which the caller closes."""

    path: Path
    fd: int


class Folders:
    """All that are lent, below one folder of the data directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lent: dict[str, Path] = {}

    def sweep(self) -> None:
        """Remove what an earlier life left behind. For when no runner is alive."""
        shutil.rmtree(self._root, ignore_errors=True)

    def lend(self, runner: str, size: int) -> Folder | None:
        """Return a new folder for a runner, for so many bytes; None where none can be made."""
        try:
            folder = self.make(runner, size)
        except OSError as error:
            log.warning("there is no folder for a runner to unpack its archive in", error=error.strerror)
            return None
        self._lent[runner] = folder.path
        return folder

    async def take_back(self, runner: str) -> None:
        """Remove what a runner was lent, if anything: it has ended."""
        path = self._lent.pop(runner, None)
        if path is not None:
            await self.remove(path)

    def make(self, name: str, size: int) -> Folder:
        """Return a new folder that only this user can look into, for so many bytes; raises `OSError`."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(self._root)
        if disk.f_bavail * disk.f_frsize < size + _RESERVE:  # the same disk holds the database
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))
        return Folder(path, os.open(path, _FOLDER))

    async def remove(self, path: Path) -> None:
        """Remove one with all that is in it, a few files at a time, so that nobody waits long for the loop."""
        try:
            for _folder, folders, files, at in os.fwalk(path, topdown=False):
                for number, name in enumerate(files):
                    os.unlink(name, dir_fd=at)
                    if number % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                for name in folders:
                    os.rmdir(name, dir_fd=at)
                await asyncio.sleep(0)
            os.rmdir(path)  # noqa: PTH106 - as above: one quick call, in a loop that has no other thread to leave it to
        except OSError as error:
            log.warning("a runner's folder is left behind until the next start", error=error.strerror)
