"""Unpacks archives into a runner's own folder, our code counting what it writes, until the folder is sealed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.sandbox import archive
from modelkeep.sandbox.place import Place

_BLOCK = 4096
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacking:
    """What is being unpacked into a place, and how much room is left in it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bytes = place.size
        self._files = place.files
        self.folder = place.path

    def uploaded(self, data: bytes) -> None:
        """Unpack the uploaded archive; raises `CannotLoad`."""
        for name, content in archive.unpacked(data, self._place.size):
            self._write(name, content)

    def __call__(self, file: str, into: Callable[[str], str], /) -> None:
        """Unpack a file of the folder and remove it: each file in it to `into(name)`, "" to leave it out."""
        path = Path(self._place.path, file)
        data = path.read_bytes()
        for name, content in archive.unpacked(data, self._place.size, whole=True):
            target = into(name)
            if target:
                self._write(target, content)
        path.unlink()
        self._bytes += _blocks(len(data))

    def _write(self, name: str, content: memoryview | bytes) -> None:
        path = Path(self._place.path, name)
        self._bytes -= _blocks(len(content))
        self._files -= 1 + self._folders(path.parent)
        if self._bytes < 0 or self._files < 0:
            raise self._full()
        try:
            file = os.open(path, _FLAGS, 0o600)
            with open(file, "wb", buffering=0) as out:  # noqa: PTH123 - a descriptor
                left = memoryview(content)
                while left:
                    left = left[out.write(left) :]
        except OSError as error:
            if error.errno in _FULL:
                raise self._full() from error
            raise CannotLoad(
                Reason.ARCHIVE_REFUSED, f"In the archive, {name[:100]!r} cannot be unpacked: {error.strerror}."
            ) from error

    def _folders(self, path: Path) -> int:
        """Make what is missing of a folder; returns how many were."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            try:
                folder.mkdir(mode=0o700)
            except OSError as error:
                if error.errno in _FULL:
                    raise self._full() from error
                raise CannotLoad(Reason.ARCHIVE_REFUSED, f"{folder.name!r} is a file and a folder in the archive.") from error
        return len(missing)

    def _full(self) -> CannotLoad:
        return CannotLoad(
            Reason.MEMORY_LIMIT,
            f"Unpacked, the archive takes more than {self._place.size >> 20} MiB or {self._place.files} files and folders.",
        )


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
