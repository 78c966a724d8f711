"""Copies of an object store's blobs on the local disk, so that a runner starts from a file, with or without the network.

A copy is written beside its place and moved into it whole. Whoever opens one gets it only if its bytes have its digest; a
damaged copy is removed, and so fetched again. Descriptors hold a lock while they are open anywhere, in a runner too: what is
in use is not evicted, and what is being written is not swept.
"""

import fcntl
import hashlib
import os
from pathlib import Path

from modelkeep.contracts.storage import Blob
from modelkeep.plugins.on_disk import Unfinished, sweep, unlinked_unless_in_use


class Cache:
    """One folder of copies, the least recently opened of which go first. Several processes may use it. Its methods block."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._copies = folder / "copies"
        self._notes = folder / "notes"
        self._unfinished = folder / "unfinished"
        self._max_bytes = max_bytes

    def begin(self) -> Unfinished:
        """Return a file to write a copy into."""
        return Unfinished(self._unfinished)

    def open(self, digest: str) -> int | None:
        """Return a read-only descriptor of a copy that has just been read and found right; None where there is none."""
        path = self._copies / digest
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)
        with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
            right = hashlib.file_digest(file, "sha256").hexdigest() == digest
        if not right:
            os.close(fd)
            path.unlink(missing_ok=True)
            return None
        os.utime(fd)
        return fd

    def keep(self, unfinished: Unfinished) -> Blob:
        """Make what was written a copy under its digest, and let go of the oldest ones where there is too much."""
        blob = unfinished.blob()
        unfinished.move(self._copies / blob.digest)
        self._evict(blob.digest)
        return blob

    def remove(self, digest: str) -> None:
        """Forget the copy and the note."""
        (self._copies / digest).unlink(missing_ok=True)
        (self._notes / digest).unlink(missing_ok=True)

    def keep_note(self, digest: str, note: bytes) -> None:
        """Keep a copy of a note."""
        unfinished = self.begin()
        try:
            unfinished.write(note)
            unfinished.move(self._notes / digest)
        finally:
            unfinished.close()

    def note(self, digest: str) -> bytes | None:
        """Return the copy of a note."""
        try:
            return (self._notes / digest).read_bytes()
        except FileNotFoundError:
            return None

    def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many files that were."""
        return sweep(self._unfinished)

    def _evict(self, newest: str) -> None:
        found = sorted((path.stat().st_mtime_ns, path) for path in self._copies.glob("*"))
        too_much = sum(path.stat().st_size for _when, path in found) - self._max_bytes
        for _when, path in found:
            if too_much <= 0:
                return
            size = path.stat().st_size
            if path.name != newest and unlinked_unless_in_use(path):
                too_much -= size
