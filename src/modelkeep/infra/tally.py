"""Counters in memory-mapped files: an addition costs some 60 ns, a `kill -9` loses none, and a restart goes on counting.

    <folder>/<slot>.tally    4 MiB: header, cells (doubles), directory (which cells belong to which name and labels)
    <folder>/<slot>.gauges   the state that this process last published, for whoever is scraped

One process writes a file and holds its lock (the kernel lets go when it ends, however); any process may read all of them
at any time. The next process of a slot adds to the cells of the last one, so counters only grow until `start_fresh`.

A directory entry is written after its cells are zero, and counts only when its checksum is right: a reader in the middle of
a write, or a writer after a `kill -9`, takes it for the end. The file is allocated whole, so a full disk shows when it is
made (the tally is then kept in memory alone, and says so in `trouble`), never as a bus error while counting.
"""

import fcntl
import mmap
import os
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import msgspec

Labels = tuple[str, ...]
OTHER: Final = "other"
BUDGET: Final = 2000

_MAGIC: Final = b"MKTALLY1"
_HEADER: Final = struct.Struct("<8sQ")
_CELLS_AT: Final = 4096
_CELL: Final = 8
_CELLS: Final = 131_072
_DIRECTORY_AT: Final = _CELLS_AT + _CELLS * _CELL
_SIZE: Final = 4 << 20
_FRAME: Final = struct.Struct("<II")
_LONGEST_ENTRY: Final = 16 << 10
_KEPT_CELLS: Final = 4096  # so that the series "other" finds room when everything else has been taken
_KEPT_BYTES: Final = 128 << 10
_REMEMBERED: Final = 10_000  # refused label sets; one that is forgotten is counted again
_LOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name as it is exposed, what kind it is, a sentence about it, and its labels.

    `bounds` are a histogram's upper bounds, in its unit. `folded` are the labels that become "other" beyond the budget of label
    sets. `rule` is how several processes' gauges make one. A record has a cell for each of its `parts`; it is looked up, not
    exposed, and there are `most` of it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info", "record"]
    about: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    folded: Labels = ()
    rule: Literal["sum", "max", "min"] = "sum"
    parts: Labels = ()
    most: int | None = None

    @property
    def width(self) -> int:
        """Cells of one series: a histogram has one a bound, one for what lies above, and one for the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else len(self.parts) or 1

    def other(self, values: Labels) -> Labels:
        """Return the label set that stands for `values` when there is no room for them."""
        return tuple(OTHER if name in self.folded else value for name, value in zip(self.labels, values, strict=True))


DROPPED: Final = Family(
    "modelkeep_label_sets_dropped_total",
    "counter",
    'Label sets beyond the budget of a metric; their numbers stand under the label value "other".',
    ("metric",),
)

Sums = dict[Family, dict[Labels, list[float]]]
Gauges = list[tuple[str, Labels, float]]


@dataclass(frozen=True, slots=True)
class _Entry:
    family: Family
    values: Labels
    first: int


class Tally:
    """The counters of one process, which is the only writer of its slot. Not for several threads at once.

    `cells[series(family, values)] += 1` counts. When another process still holds the slot's file, the next free name is taken.
    """

    def __init__(self, folder: Path, slot: int, families: Sequence[Family], *, budget: int = BUDGET) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.families = (DROPPED, *families)
        self.trouble = ""
        self._budget = budget
        self.path, self.map = self._opened(folder, slot)
        self.cells = memoryview(self.map)[_CELLS_AT:_DIRECTORY_AT].cast("d")
        self._first: dict[tuple[str, Labels], int] = {}
        self._refused: dict[tuple[str, Labels], int] = {}
        self._sets: Counter[str] = Counter()
        self._next = 0
        self._end = _DIRECTORY_AT
        self._take_over()

    def series(self, family: Family, values: Labels = ()) -> int:
        """Return the index of the first cell of this series; it is made when it is new."""
        key = (family.name, values)
        first = self._first.get(key)
        if first is None:
            first = self._refused.get(key)
        return self._made(family, values) if first is None else first

    def has_room(self, family: Family, values: Labels) -> bool:
        """Whether these labels have a series of their own, or would get one."""
        return (family.name, values) in self._first or self._sets[family.name] < self._most(family)

    def labels(self, family: Family) -> list[Labels]:
        """Return the label sets that a family has, without the one for all others."""
        return [values for name, values in self._first if name == family.name and values != family.other(values)]

    def replace(self, family: Family, old: Labels, new: Labels) -> int:
        """Give the cells of one series to another, which begins at zero; -1, and all stays, where it cannot be written down."""
        first = self._first[family.name, old]
        entry = self._entry(family, new, first, _KEPT_BYTES)
        if entry is None:
            return -1
        self.cells[first : first + family.width] = memoryview(array("d", bytes(family.width * _CELL)))
        self._append(entry)
        del self._first[family.name, old]
        self._first[family.name, new] = first
        return first

    def publish(self, gauges: Gauges) -> None:
        """Let other processes see these gauges, until the next call or the end of this process."""
        if self.path is None:
            return
        path = self.path.with_suffix(".gauges")
        fresh = path.with_suffix(".fresh")
        fresh.write_bytes(msgspec.msgpack.encode(gauges))
        fresh.replace(path)

    def close(self) -> None:
        """Let go of the file, with what it holds; nothing may be counted after this."""
        self.cells.release()
        self.map.close()

    def _opened(self, folder: Path, slot: int) -> tuple[Path | None, mmap.mmap]:
        """Return a locked file of the right layout, or one in memory where the disk has no room."""
        number = 0
        while True:
            path = folder / (f"{slot}-{number}.tally" if number else f"{slot}.tally")
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    if not _lock(fd):
                        number += 1
                    elif self._fits(path, fd):
                        return path, mmap.mmap(fd, _SIZE)  # it keeps a descriptor of its own, and with it the lock
                finally:
                    os.close(fd)
            except OSError as error:
                self.trouble = str(error)
                return None, mmap.mmap(-1, _SIZE)

    def _fits(self, path: Path, fd: int) -> bool:
        """Whether this locked file can be counted in; a new one is made so, and one of another release goes."""
        wanted = _header(self.families)
        found = os.pread(fd, _HEADER.size, 0)
        if not _still_at(path, fd):
            return False
        if found == wanted and os.fstat(fd).st_size == _SIZE:
            return True
        if found.strip(b"\0"):
            path.unlink()
            return False
        try:
            os.posix_fallocate(fd, 0, _SIZE)
        except OSError:
            path.unlink()
            raise
        os.pwrite(fd, wanted, 0)
        return True

    def _take_over(self) -> None:
        """Learn what the last process of this slot has counted, and forget what was true of it alone."""
        owners: dict[int, tuple[str, Labels]] = {}
        for entry, end in _entries(memoryview(self.map)[_DIRECTORY_AT:], self.families):
            before = owners.get(entry.first)
            if before is not None:
                del self._first[before]  # its cells have been given to another
            elif entry.values != entry.family.other(entry.values):
                self._sets[entry.family.name] += 1
            owners[entry.first] = entry.family.name, entry.values
            self._first[entry.family.name, entry.values] = entry.first
            self._next = max(self._next, entry.first + entry.family.width)
            self._end = _DIRECTORY_AT + end
            if entry.family.kind == "gauge":
                self.cells[entry.first] = 0.0
        torn = slice(self._end, min(self._end + _LONGEST_ENTRY, _SIZE))
        if any(self.map[torn]):
            self.map[torn] = bytes(torn.stop - torn.start)

    def _made(self, family: Family, values: Labels) -> int:
        other = family.other(values)
        if values == other:
            return self._add(family, values, 0, 0)
        if self._sets[family.name] < self._most(family):
            first = self._add(family, values, _KEPT_CELLS, _KEPT_BYTES)
            if first >= 0:
                self._sets[family.name] += 1
                return first
        self.cells[self.series(DROPPED, (family.name,))] += 1.0
        first = self.series(family, other)
        if len(self._refused) < _REMEMBERED:
            self._refused[family.name, values] = first
        return first

    def _most(self, family: Family) -> int:
        return self._budget if family.most is None else family.most

    def _add(self, family: Family, values: Labels, keep_cells: int, keep_bytes: int) -> int:
        """Append a directory entry; -1 when only what is kept for "other" is left."""
        first = self._next
        entry = self._entry(family, values, first, keep_bytes)
        if entry is None or first + family.width + keep_cells > _CELLS:
            return -1
        self._append(entry)
        self._next += family.width
        self._first[family.name, values] = first
        return first

    def _entry(self, family: Family, values: Labels, first: int, keep_bytes: int) -> bytes | None:
        """Return the directory entry by which these cells are this series'; None where there is no room for it."""
        payload = msgspec.msgpack.encode((self.families.index(family), first, *values))
        entry = _FRAME.pack(len(payload), crc32(payload, len(payload))) + payload
        return None if len(entry) > _LONGEST_ENTRY or self._end + len(entry) + keep_bytes > _SIZE else entry

    def _append(self, entry: bytes) -> None:
        self.map[self._end : self._end + len(entry)] = entry
        self._end += len(entry)


class Followed:
    """A count that another part of this process keeps, brought into the tally by what it has grown."""

    def __init__(self, tally: Tally, family: Family, count: Callable[[], int]) -> None:
        self._cells = tally.cells
        self._at = tally.series(family)
        self._count = count
        self._seen = 0

    def catch_up(self) -> None:
        """Add what it has grown since the last time."""
        now = self._count()
        self._cells[self._at] += now - self._seen
        self._seen = now


class Tallies:
    """Reads what all processes have counted. It remembers what it has read of each directory: a scrape reads what is new."""

    def __init__(self, folder: Path, own: Tally | None = None, families: Sequence[Family] = ()) -> None:
        """Read these families; `own` is the reader's own file, where it counts them too."""
        self._folder = folder
        self._families = (DROPPED, *families) if own is None else own.families
        self._own_path = None if own is None else own.path
        self._mine = None if own is None else _Reading(own.map, own.families)
        self._others: dict[Path, _Other] = {}

    def read(self) -> tuple[Sums, list[Gauges]]:
        """Return the sums over all slots, those of processes that have ended included, and what the live ones published."""
        sums: Sums = {family: {} for family in self._families}
        if self._mine is not None:
            self._mine.add_to(sums, live=True)
        published: list[Gauges] = []
        for path, reading in self._now():
            live = reading.live
            reading.add_to(sums, live=live)
            if live:
                published.append(_published(path.with_suffix(".gauges")))
        return sums, published

    def records(self, family: Family, asked: Sequence[Labels]) -> list[list[list[float]]]:
        """Return, for each label set that is asked for, the cells of its record in each slot that has one."""
        slots = [*([] if self._mine is None else [self._mine]), *(reading for _path, reading in self._now())]
        for slot in slots:
            slot.learn()
        return [[found for slot in slots if (found := slot.record(family, values))] for values in asked]

    def _now(self) -> "list[tuple[Path, _Other]]":
        """Return the files of all other slots that are there now."""
        paths = set(self._folder.glob("*.tally")) - {self._own_path}
        for path in self._others.keys() - paths:
            self._others.pop(path).close()
        return [(path, reading) for path in sorted(paths) if (reading := self._reading(path)) is not None]

    def close(self) -> None:
        """Let go of the other processes' files."""
        for reading in self._others.values():
            reading.close()
        self._others.clear()

    def _reading(self, path: Path) -> "_Other | None":
        """Return what is known of this file; None for one that is gone, not made yet, or another release's."""
        known = self._others.get(path)
        if known is not None:
            if _still_at(path, known.fd):
                return known
            self._others.pop(path).close()
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if os.pread(fd, _HEADER.size, 0) != _header(self._families):
            os.close(fd)
            return None
        self._others[path] = _Other(fd, self._families)
        return self._others[path]


class _Reading:
    """One file, as far as its directory has been read."""

    def __init__(self, mapped: mmap.mmap, families: Sequence[Family]) -> None:
        self.map = mapped
        self._families = families
        self._entries: list[_Entry] = []
        self._upto = 0
        self._records: dict[tuple[str, Labels], int] = {}
        self._owners: dict[int, tuple[str, Labels]] = {}
        self._end = _DIRECTORY_AT

    def add_to(self, sums: Sums, *, live: bool) -> None:
        """Add what this file holds; a gauge counts only while its process lives."""
        self.learn()
        cells: list[float] = list(memoryview(self.map[_CELLS_AT : _CELLS_AT + self._upto * _CELL]).cast("d"))
        for entry in self._entries:
            family, first = entry.family, entry.first
            if family.kind == "gauge" and not live:
                continue
            found = cells[first : first + family.width]
            known = sums[family].get(entry.values)
            sums[family][entry.values] = found if known is None else [a + b for a, b in zip(known, found, strict=True)]

    def learn(self) -> None:
        """Read what has come to the directory since the last time. The newest entry says whose a record's cells are."""
        whole = memoryview(self.map)
        with whole, whole[self._end :] as new:
            read = 0
            for entry, end in _entries(new, self._families):
                self._upto = max(self._upto, entry.first + entry.family.width)
                read = end
                if entry.family.kind != "record":
                    self._entries.append(entry)
                    continue
                key = entry.family.name, entry.values
                self._records.pop(self._owners.get(entry.first, key), None)
                self._owners[entry.first] = key
                self._records[key] = entry.first
            self._end += read

    def record(self, family: Family, values: Labels) -> list[float]:
        """Return the cells of a record, none where there is no such record."""
        first = self._records.get((family.name, values))
        if first is None:
            return []
        at = _CELLS_AT + first * _CELL
        return list(memoryview(self.map[at : at + family.width * _CELL]).cast("d"))


class _Other(_Reading):
    """Another process's file."""

    def __init__(self, fd: int, families: Sequence[Family]) -> None:
        super().__init__(mmap.mmap(fd, _SIZE, prot=mmap.PROT_READ), families)
        self.fd = fd

    @property
    def live(self) -> bool:
        """Whether the process that writes this file runs."""
        answer = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def start_fresh(folder: Path) -> None:
    """Begin at zero: for the start of the whole installation, while none of its processes runs."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for pattern in ("*.tally", "*.gauges", "*.fresh"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def merged(families: Iterable[Family], published: Iterable[Gauges]) -> Sums:
    """Return the gauges of several processes as one, each family by its own rule."""
    known = {family.name: family for family in families}
    sums: Sums = {}
    for gauges in published:
        for name, values, number in gauges:
            family = known.get(name)
            if family is None:
                continue
            cells = sums.setdefault(family, {}).setdefault(values, [])
            cells.append(number)
    return {
        family: {values: [_one(numbers, family.rule)] for values, numbers in series.items()} for family, series in sums.items()
    }


def _one(numbers: list[float], rule: Literal["sum", "max", "min"]) -> float:
    match rule:
        case "sum":
            return sum(numbers)
        case "max":
            return max(numbers)
        case "min":
            return min(numbers)


_gauges_of = msgspec.msgpack.Decoder(Gauges).decode


def _published(path: Path) -> Gauges:
    try:
        return _gauges_of(path.read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):  # not published yet, or by another release
        return []


def _entries(directory: memoryview, families: Sequence[Family]) -> Iterator[tuple[_Entry, int]]:
    """Yield each whole entry and where it ends, in bytes from the start of `directory`."""
    at = 0
    while at + _FRAME.size <= len(directory):
        length, checksum = _FRAME.unpack_from(directory, at)
        begin = at + _FRAME.size
        payload = directory[begin : begin + length]
        if not length or len(payload) < length or crc32(payload, length) != checksum:
            return
        number, first, *values = msgspec.msgpack.decode(payload)
        at = begin + length
        yield _Entry(families[number], tuple(values), first), at


def _header(families: Sequence[Family]) -> bytes:
    """Two releases read each other's files only where they mean the same by them: the header tells."""
    meaning = repr([(family.name, family.kind, family.labels, family.bounds, family.parts) for family in families])
    return _HEADER.pack(_MAGIC, crc32(meaning.encode()))


def _lock(fd: int) -> bool:
    """Take the writer's lock; it belongs to this descriptor, so reading the file elsewhere in the process does not lose it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _still_at(path: Path, fd: int) -> bool:
    """Whether `path` is this very file, and not one that took its place."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
