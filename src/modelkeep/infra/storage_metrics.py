"""What the processes beside serving count of the files that are kept, and how the servers' page comes to show it.

Servers touch no store: the api takes uploads in, the worker keeps and collects, the supervisor opens files for runners, and a
command rotates keys. Each counts in a mapped file of its own (`infra/tally.py`), in one folder that every server reads.
"""

import asyncio
import os
import shutil
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final, Literal

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.storage import Blob, BlobStore, Stored
from modelkeep.infra.tally import DROPPED, Family, Gauges, Sums, Tallies, Tally, merged

_SECONDS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
_SUM: Final = len(_SECONDS) + 1

_OPERATIONS: Final = Family(
    "modelkeep_storage_operations_total",
    "counter",
    "What was asked of the store of model files, by operation (put, read, open, size, delete, list) and outcome: ok, "
    "cancelled, or the kind of the error.",
    ("operation", "outcome"),
)
_DURATION: Final = Family(
    "modelkeep_storage_operation_seconds",
    "histogram",
    "Seconds that the store of model files took, by operation; of a put or a read, without those that the other side took.",
    ("operation",),
    bounds=_SECONDS,
)
_BYTES: Final = Family(
    "modelkeep_storage_bytes_total",
    "counter",
    "Bytes of model files that went in and out, by operation: put in; read and open out.",
    ("operation", "direction"),
)
_ROTATIONS: Final = Family(
    "modelkeep_storage_key_rotations_total", "counter", "Rotations of the master key that came to their end."
)
_ROTATED: Final = Family("modelkeep_storage_keys_rotated_total", "counter", "Keys of files that a rotation sealed anew.")
_FREED: Final = Family("modelkeep_storage_freed_bytes_total", "counter", "Bytes of unused files that were removed.")
_REMOVED: Final = Family("modelkeep_storage_removed_files_total", "counter", "Unused files that were removed.")
_FORGOTTEN: Final = Family(
    "modelkeep_replay_rows_forgotten_total",
    "counter",
    "Rows shown by replays that were removed because their predictions have left the history.",
)
_ROLLOUTS: Final = Family(
    "modelkeep_rollouts_decided_total",
    "counter",
    "What the worker decided of rollouts: advanced, held, promoted, rolled_back, or cancelled.",
    ("decision",),
)
_KEPT: Final = Family(
    "modelkeep_storage_kept_bytes",
    "gauge",
    "Bytes that lie in the store, as the worker last saw them, by what they are: artifact, compiled, hooks, sample, golden, "
    "other; unused (of rejected versions, or never named); unknown (never stored by this installation).",
    ("kind",),
    rule="max",
)
_AUDIT_VERIFIED: Final = Family(
    "modelkeep_audit_verified_timestamp_seconds",
    "gauge",
    "When the worker last verified the audit trail's chain and found it whole, in Unix seconds.",
    rule="max",
)
_AUDIT_ENTRIES: Final = Family(
    "modelkeep_audit_entries_total", "counter", "Entries of the audit trail since the installation was made.", rule="max"
)
_AUDIT_LAG: Final = Family(
    "modelkeep_audit_sink_lag_entries",
    "gauge",
    "Entries of the audit trail that a sink beside the database, file or syslog, has yet to get.",
    ("sink",),
    rule="max",
)
_ALERTS: Final = Family(
    "modelkeep_alerts_firing",
    "gauge",
    "Alerts that fire and that nobody has acknowledged, as the worker last saw them, by severity: page, ticket, info.",
    ("severity",),
    rule="max",
)
_FREE: Final = Family("modelkeep_storage_free_bytes", "gauge", "Free space on the disk of the data directory.", rule="min")

_COUNTED: Final = (_OPERATIONS, _DURATION, _BYTES, _ROTATIONS, _ROTATED, _FREED, _REMOVED, _FORGOTTEN, _ROLLOUTS)
_SHOWN: Final = (_KEPT, _AUDIT_VERIFIED, _AUDIT_ENTRIES, _AUDIT_LAG, _ALERTS, _FREE)
FAMILIES: Final = (*_COUNTED, *_SHOWN)

Operation = Literal["put", "read", "open", "size", "delete", "list"]


class StorageMeter:
    """Counts for one process. Without room for its file it counts in memory, which nobody sees; nothing else depends on it."""

    def __init__(self, folder: Path, slot: int) -> None:
        self._tally = Tally(folder, slot, _COUNTED)
        self._kept: Gauges = []
        self._audit: Gauges = []
        self._alerts: Gauges = []

    def done(self, operation: Operation, outcome: str, seconds: float, moved: int = 0) -> None:
        """Count one operation, with the bytes that it moved."""
        series, cells = self._tally.series, self._tally.cells
        cells[series(_OPERATIONS, (operation, outcome))] += 1.0
        at = series(_DURATION, (operation,))
        cells[at + bisect_left(_SECONDS, seconds)] += 1.0
        cells[at + _SUM] += seconds
        if moved:
            cells[series(_BYTES, (operation, "in" if operation == "put" else "out"))] += moved

    def rotated(self, keys: int) -> None:
        """Count one rotation, which sealed so many keys anew."""
        self._add(_ROTATIONS, 1)
        self._add(_ROTATED, keys)

    def removed(self, size: int) -> None:
        """Count a file of so many bytes that nothing used and that was removed."""
        self._add(_REMOVED, 1)
        self._add(_FREED, size)

    def rows_forgotten(self, rows: int) -> None:
        """Count rows of replays that have gone with their predictions."""
        self._add(_FORGOTTEN, rows)

    def rollout_decided(self, decision: str) -> None:
        """Count a decision of a rollout."""
        self._tally.cells[self._tally.series(_ROLLOUTS, (decision,))] += 1.0

    def keeps(self, kept: Mapping[str, int]) -> None:
        """Show how many bytes are kept, by what they are."""
        self._kept = [(_KEPT.name, (kind,), float(size)) for kind, size in kept.items()]
        self._publish()

    def audit(self, *, entries: int, verified: float | None, lags: Mapping[str, int]) -> None:
        """Show how the audit trail is: its entries, when it was last found whole, and how many each sink lacks."""
        shown: Gauges = [(_AUDIT_ENTRIES.name, (), float(entries))]
        shown += [(_AUDIT_LAG.name, (name,), float(lag)) for name, lag in lags.items()]
        shown += [] if verified is None else [(_AUDIT_VERIFIED.name, (), verified)]
        if shown != self._audit:
            self._audit = shown
            self._publish()

    def alerts_firing(self, counts: Mapping[str, int]) -> None:
        """Show how many alerts fire, by severity."""
        shown: Gauges = [(_ALERTS.name, (severity,), float(count)) for severity, count in counts.items()]
        if shown != self._alerts:
            self._alerts = shown
            self._publish()

    def close(self) -> None:
        """Let go of the file; what it holds stays."""
        self._tally.close()

    def _publish(self) -> None:
        self._tally.publish(self._kept + self._audit + self._alerts)

    def _add(self, family: Family, number: float) -> None:
        self._tally.cells[self._tally.series(family)] += number


class MeteredStore:
    """A `BlobStore` that counts what another is asked."""

    def __init__(self, inner: BlobStore, meter: StorageMeter) -> None:
        self._inner = inner
        self._meter = meter

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store a stream."""
        waiting = _Waiting(chunks)
        with self._counted("put", waiting):
            blob = await self._inner.put(waiting.chunks(), max_bytes=max_bytes)
            waiting.moved = blob.size
        return blob

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes from `start` to before `end`."""
        took = _Took()
        with self._counted("read", took):
            async with aclosing(self._inner.read(digest, start=start, end=end)) as pieces:
                async for piece in pieces:
                    took.moved += len(piece)
                    with took.paused():
                        yield piece

    async def size(self, digest: str) -> int:
        """Return the blob's length in bytes."""
        with self._counted("size", _Took()):
            return await self._inner.size(digest)

    async def open(self, digest: str) -> int:
        """Return a descriptor of a file with the blob's bytes."""
        took = _Took()
        with self._counted("open", took):
            fd = await self._inner.open(digest)
            took.moved = os.fstat(fd).st_size
        return fd

    async def remove(self, digest: str) -> None:
        """Forget a blob."""
        with self._counted("delete", _Took()):
            await self._inner.remove(digest)

    async def stored(self) -> AsyncIterator[Stored]:
        """Yield the blobs that are there."""
        took = _Took()
        with self._counted("list", took):
            async for one in self._inner.stored():
                with took.paused():
                    yield one

    async def sweep(self) -> int:
        """Have the store below clean up."""
        return await self._inner.sweep()

    @contextmanager
    def _counted(self, operation: Operation, took: "_Took") -> Iterator[None]:
        outcome = "internal"
        try:
            yield
            outcome = "ok"
        except ModelkeepError as error:
            outcome = error.kind.value
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self._meter.done(operation, outcome, took.seconds, took.moved)


class _Took:
    """How long an operation takes, and the bytes that it moves."""

    def __init__(self) -> None:
        self.moved = 0
        self._began = time.perf_counter()
        self._elsewhere = 0.0

    @property
    def seconds(self) -> float:
        """The seconds since it began that it was not paused."""
        return max(0.0, time.perf_counter() - self._began - self._elsewhere)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time that others take."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._elsewhere += time.perf_counter() - began


class _Waiting(_Took):
    """As `_Took`, for a stream: what it waits for its sender is left out."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._source = source

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the stream's chunks."""
        while True:
            with self.paused():
                try:
                    chunk = await anext(self._source)
                except StopAsyncIteration:
                    return
            yield chunk


def figures(folder: Path, data: Path) -> Callable[[], Sums]:
    """Return what reads the numbers of all processes in `folder`, and the free space of the disk that `data` is on."""
    tallies = Tallies(folder, families=_COUNTED)

    def read() -> Sums:
        sums, published = tallies.read()
        free: Gauges = [(_FREE.name, (), float(shutil.disk_usage(data).free))]
        shown = sums | merged(_SHOWN, [free, *published])
        return {family: series for family, series in shown.items() if family is not DROPPED}

    return read
