"""A server's own spool: prediction records on their way to the database, in files that outlive every process.

    <data>/spool/<server>/<number>-<run>.seg

One writer appends, with one `write` a batch, to the page cache and no further: what was appended survives `kill -9` of every
process, though not a power cut. One reader follows from a `Position` that it keeps in the database.

A segment is a row of frames: mark, length, checksum, index, then the record (msgpack). Mark and the checksum's start come
from `run`, which is random for each writer: no record can hold bytes that pass for a frame. The index counts a run's
records through all its segments, so that a reader knows exactly how many a damaged stretch has cost. A writer never goes on
behind a half-written frame: it begins a new segment, and so does a new writer.
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from modelkeep.contracts.errors import Conflict, StorageFull
from modelkeep.contracts.prediction import PredictionRecord

_FRAME: Final = struct.Struct("<4sIII")
_INDEXES: Final = 0xFFFFFFFF
_LARGEST_RECORD: Final = 256 << 20
_SMALLEST_CAP: Final = 4
_LOOK_AGAIN_S: Final = 0.1
_LEFT_FOR_S: Final = 3600.0
_SUFFIX: Final = ".seg"


class SpoolInUse(Conflict):
    """Another process writes to this spool."""

    code = "spool_in_use"


class HistoryFull(StorageFull):
    """The prediction history can take no more, and nothing may be answered without it: free disk space, or raise its cap."""

    code = "history_full"


class SpoolWriter:
    """Appends records to a spool; it makes the folder, and is its only writer (else `SpoolInUse`).

    When `cap_bytes` are waiting, or the disk is full, `append` drops and counts or, with `refuse`, raises `HistoryFull`.
    `appended`, `dropped` and `refused` count records; `trouble` is what the disk last said.
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int = 16 << 20, cap_bytes: int = 512 << 20, refuse: bool = False
    ) -> None:
        self.appended = 0
        self.dropped = 0
        self.refused = 0
        self.trouble = ""
        self._folder = folder
        self._segment_bytes = min(segment_bytes, max(1, cap_bytes // _SMALLEST_CAP))
        self._cap_bytes = cap_bytes
        self._refuse = refuse
        self._lock = _lock(folder)
        run = os.urandom(8)
        self._run = run.hex()
        self._mark, self._seed = _keys(self._run)
        self._number = max((segment.number for segment in segments(folder)), default=0)
        self._index = 0
        self._last_batch = _FRAME.size
        self._fd = -1
        self._size = 0
        self._others = 0
        self._looked = 0.0
        self._look()
        self._encode = msgspec.msgpack.Encoder().encode

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Append a batch with one `write`; raises `HistoryFull` where nothing may be lost.

        When the disk fills up in the middle of a batch, records before that point stay although the batch is refused.
        """
        encode, pack, mark, seed, index = self._encode, _FRAME.pack, self._mark, self._seed, self._index
        parts: list[bytes] = []
        for record in records:
            payload = encode(record)
            parts.append(pack(mark, len(payload), crc32(payload, (seed + index) & _INDEXES), index))
            parts.append(payload)
            index = (index + 1) & _INDEXES
        data = b"".join(parts)
        self._last_batch = len(data)
        missing = len(records) if not self._has_room(len(data)) else self._write(data, len(records))
        self.appended += len(records) - missing
        if missing and self._refuse:
            self.refused += missing
            raise HistoryFull
        self.dropped += missing

    @property
    def full(self) -> bool:
        """Whether the cap is reached: another batch like the last would be dropped or refused."""
        return not self._has_room(self._last_batch)

    def close(self) -> None:
        """Let go of the spool; whoever opens it next begins a new segment."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        os.close(self._lock)

    def _has_room(self, size: int) -> bool:
        """Whether `size` more bytes stay below the cap; looks again from time to time at what the reader has removed."""
        if self._others + self._size + size <= self._cap_bytes:
            return True
        if time.monotonic() - self._looked < _LOOK_AGAIN_S:
            return False
        self._look()
        return self._others + self._size + size <= self._cap_bytes

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._others = sum(
            segment.size() for segment in segments(self._folder) if self._fd < 0 or segment.number != self._number
        )

    def _write(self, data: bytes, count: int) -> int:
        """Write all frames; return how many of the `count` records could not be written."""
        if self._fd >= 0 and self._size and self._size + len(data) > self._segment_bytes:
            self._seal()
        try:
            while count:
                self._open()
                written = os.write(self._fd, data)
                self._size += written
                whole, end = (count, written) if written == len(data) else _whole_frames(data, written)
                self._index = (self._index + whole) & _INDEXES
                count -= whole
                data = data[end:]
                if count:
                    self._seal()  # nothing may follow half a frame: the rest goes into a segment of its own
        except OSError as error:
            self.trouble = error.strerror or type(error).__name__
            if error.errno not in _DISK_IS_FULL:
                self._forget()
        return count

    def _open(self) -> None:
        if self._fd >= 0:
            return
        # later than all before, also where the reader has removed them all
        self._number = max(self._number + 1, time.time_ns() // 1_000_000)
        path = self._folder / f"{self._number:013d}-{self._run}{_SUFFIX}"
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0

    def _seal(self) -> None:
        self._others += self._size
        self._forget()

    def _forget(self) -> None:
        """End this segment: what comes next begins another."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._size = 0


_DISK_IS_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Position(NamedTuple):
    """Where a reader goes on: the segment, the byte in it, and the index of the record expected next (-1: any)."""

    segment: int = 0
    offset: int = 0
    expected: int = 0


class Read(NamedTuple):
    """What a reader found: records (msgpack) in the order of their writing, and where to go on.

    `lost` counts records that were written and cannot be read, `torn` unfinished ends of segments; `more` says that there is
    more to read at once.
    """

    records: list[bytes]
    position: Position
    lost: int
    torn: int
    more: bool


class Segment(NamedTuple):
    """One file of a spool."""

    number: int
    run: str
    path: Path

    def size(self) -> int:
        """Return its bytes; 0 when it has just been removed."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


def segments(folder: Path) -> list[Segment]:
    """Return a spool's segments, the oldest first; files of any other name are none."""
    found = []
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone, without a Path object for each
    except FileNotFoundError:
        return []
    for name in names:
        number, _dash, run = name.removesuffix(_SUFFIX).partition("-")
        if name.endswith(_SUFFIX) and number.isdecimal() and len(run) == 16 and set(run) <= _HEX:  # noqa: PLR2004
            found.append(Segment(int(number), run, folder / name))
    return sorted(found)


_HEX: Final = frozenset("0123456789abcdef")


class SpoolReader:
    """Reads a spool from any position, while its writer goes on or after it has died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, position: Position, max_bytes: int = 4 << 20) -> Read:
        """Return the records of about the next `max_bytes`; more of them only where one record is larger."""
        # the order matters: a segment that had a successor before it was read to its end will never grow again
        ahead = [segment for segment in segments(self.folder) if segment.number >= position.segment]
        if not ahead:
            return Read([], position, 0, 0, more=False)
        segment, sealed = ahead[0], len(ahead) > 1
        if segment.number != position.segment:
            position = Position(segment.number, 0, position.expected if position == Position() else -1)
        read = _read_segment(segment, position, max_bytes, sealed=sealed)
        if read.more or not sealed:
            return read
        following = ahead[1]
        index = read.position.expected if following.run == segment.run else 0
        return read._replace(position=Position(following.number, 0, index), more=True)

    def forget(self, position: Position) -> None:
        """Remove the segments that lie wholly before `position`."""
        for segment in segments(self.folder):
            if segment.number < position.segment:
                segment.path.unlink(missing_ok=True)

    def waiting_bytes(self, position: Position) -> int:
        """Return how many bytes lie ahead of `position`."""
        ahead = [segment for segment in segments(self.folder) if segment.number >= position.segment]
        behind = position.offset if ahead and ahead[0].number == position.segment else 0
        return max(0, sum(segment.size() for segment in ahead) - behind)

    def remove_if_left(self, position: Position, *, for_s: float = _LEFT_FOR_S) -> bool:
        """Remove a spool that has been read to its end and left alone for this long; say whether it is gone."""
        try:
            if time.time() - max(path.stat().st_mtime for path in (self.folder, *self.folder.iterdir())) < for_s:
                return False
            lock = _lock(self.folder)
        except (SpoolInUse, OSError):
            return False
        try:
            if self.waiting_bytes(position):
                return False
            for segment in segments(self.folder):
                segment.path.unlink(missing_ok=True)
            (self.folder / _LOCK).unlink(missing_ok=True)
            self.folder.rmdir()
        except OSError:
            return False
        finally:
            os.close(lock)
        return True


_LOCK: Final = "lock"


def _read_segment(segment: Segment, position: Position, max_bytes: int, *, sealed: bool) -> Read:
    """Read on in one segment. `more`: it goes on; else all that it holds by now has been read."""
    with segment.path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data, offset = _load(file.fileno(), position.offset, max_bytes), position.offset
        scan = _Scan(segment.run, position.expected)
        used = scan.through(data)
        at_end = offset + len(data) >= size
        while not used and not at_end and scan.wants > len(data) and offset + scan.wants <= size:
            data = _load(file.fileno(), offset, scan.wants)  # one frame that is larger than what is read at a time
            used = scan.through(data)
            at_end = offset + len(data) >= size
        if sealed and used < len(data) and (at_end or not used):
            # nothing will complete this frame: its header is damaged, or it is the end of a writer that died
            used = scan.past_damage(data, used, at_end=at_end)
            at_end = at_end and used == len(data)
    position = Position(segment.number, offset + used, scan.index)
    torn = int(scan.ended_torn and at_end)
    more = used > 0 and not at_end if not sealed else not at_end
    return Read(scan.records, position, scan.lost, torn, more)


class _Scan:
    """Goes through frames in bytes that may be damaged."""

    def __init__(self, run: str, index: int) -> None:
        self.records: list[bytes] = []
        self.index = index
        self.lost = 0
        self.wants = 0
        self.ended_torn = False
        self._mark, self._seed = _keys(run)

    def through(self, data: bytes, start: int = 0) -> int:
        """Take all whole frames, skipping what is damaged between them; return where the first unfinished one begins.

        `wants` is then the length of `data`, from its start, that would hold that frame.
        """
        mark, seed, unpack, header = self._mark, self._seed, _FRAME.unpack_from, _FRAME.size
        take, at, size = self.records.append, start, len(data)
        while at + header <= size:
            found, length, check, index = unpack(data, at)
            body = at + header
            if found == mark and length <= _LARGEST_RECORD:
                if body + length > size:
                    self.wants = body + length
                    return at
                payload = data[body : body + length]
                if crc32(payload, (seed + index) & _INDEXES) == check:
                    if index != self.index:
                        self._missed(index)
                    self.index = (index + 1) & _INDEXES
                    take(payload)
                    at = body + length
                    continue
            behind = data.find(mark, at + 1)
            if behind < 0:
                self.wants = 0
                return at
            at = behind
        self.wants = at + header
        return at

    def past_damage(self, data: bytes, start: int, *, at_end: bool) -> int:
        """Look for whole frames behind `start`, where an unfinished one lies that nothing will complete."""
        at = start
        while (behind := data.find(self._mark, at + 1)) >= 0:
            at = self.through(data, behind)
            if at == len(data) or not at_end:
                return at
        self.ended_torn = at_end
        return len(data) if at_end else max(at + 1, len(data) - len(self._mark) + 1)

    def _missed(self, index: int) -> None:
        gap = (index - self.index) & _INDEXES
        if self.index >= 0 and gap <= _INDEXES // 2:
            self.lost += gap


def _load(fd: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(fd, size, offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _whole_frames(data: bytes, written: int) -> tuple[int, int]:
    """Return how many frames lie whole in the first `written` bytes, and where the last of them ends."""
    count = at = 0
    while at + _FRAME.size <= written:
        end = at + _FRAME.size + int(_FRAME.unpack_from(data, at)[1])
        if end > written:
            break
        count, at = count + 1, end
    return count, at


def _keys(run: str) -> tuple[bytes, int]:
    """Return a run's mark and where its checksums start."""
    random = bytes.fromhex(run)
    return random[:4], int.from_bytes(random[4:], "little")


def _lock(folder: Path) -> int:
    """Hold the spool for this process alone, making it where it is missing; the kernel lets go when the process ends."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            fd = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # a spool that was left behind has just been removed, with its folder
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)
        except BlockingIOError as error:
            os.close(fd)
            raise SpoolInUse(f"Another process writes to the spool {folder.name}.") from error
