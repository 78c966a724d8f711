"""Keeps the audit trail: signs checkpoints, delivers entries to the second sink, verifies the chain every day.

Delivery is at least once and in order: entries become visible in the order of their numbers, the mark of how far the sink
has come is moved after the sink has taken them, and what dies between the two is delivered again. One worker does all this at
a time. Nothing of it waits for a sink that is slow, or for the verification of a long chain.

The database is not believed that the chain is the one that it was: the worker remembers its newest entry.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from modelkeep.contracts.audit_chain import told
from modelkeep.contracts.ids import new_id
from modelkeep.control.audit.rules import Head, Sealed, lines
from modelkeep.control.audit.service import Audit
from modelkeep.infra.clock import Clock
from modelkeep.worker.again import again

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0
_TURN: Final = timedelta(seconds=60)
_PATIENCE_S: Final = 15.0
_AT_ONCE: Final = 100
_VERIFY_EVERY: Final = timedelta(days=1)
_TELL_AGAIN: Final = timedelta(hours=1)
_ENTRIES: Final = "entries"
_CHECKPOINTS: Final = "checkpoints"


class Sink(Protocol):
    """Where entries go beside the database: `take` may block, and raises `OSError` while it is away."""

    name: str

    def take(self, lines: Sequence[bytes]) -> None:
        """Keep these lines for good, in their order."""
        ...


class Told(Protocol):
    """Hears how the trail is, for the metrics."""

    def audit(self, *, entries: int, verified: float | None, lags: dict[str, int]) -> None:
        """So many entries there are; when the chain was last found whole; and how many each sink lacks."""
        ...


class Keeper:
    """Looks after the trail until it is cancelled. `contents`: sinks get who and what, too, which no erasure reaches."""

    def __init__(
        self,
        audit: Audit,
        sinks: Sequence[Sink],
        clock: Clock,
        *,
        told: Told,
        contents: bool = False,
        every_s: float = _EVERY_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._audit = audit
        self._sinks = sinks
        self._clock = clock
        self._told = told
        self._contents = contents
        self._every_s = every_s
        self._patience_s = patience_s
        self._holder = new_id("trn")
        self._scrubbed = 0
        self._mine_until = clock()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._seen = Head(0, "")
        self._away: set[str] = set()
        self._broken_at = clock() - _TELL_AGAIN

    async def run(self) -> None:
        """Keep the trail; the database is up to date when this begins."""
        try:
            await again(self.round, self._every_s, part="audit_keeping")
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def round(self) -> None:
        """Do what is due now, where no other worker does. What takes long is not waited for, and goes on beside the next."""
        if not await self._takes_turn():
            return
        await self._audit.checkpoint()
        for sink in self._sinks:
            self._begin(sink.name, partial(self._deliver, sink))
        self._begin("verification", self._verify)
        await asyncio.wait(self._under_way.values(), timeout=self._patience_s)
        self._scrubbed = await self._audit.scrub(self._scrubbed)
        head, verified = await self._audit.head(), await self._audit.verified()
        lags = {sink.name: head.seq - await self._mark(sink, _ENTRIES) for sink in self._sinks}
        self._told.audit(entries=head.seq, verified=verified.at.timestamp() if verified else None, lags=lags)
        ended = {name: task for name, task in self._under_way.items() if task.done()}
        for name in ended:
            del self._under_way[name]
        for task in ended.values():
            task.result()

    async def _takes_turn(self) -> bool:
        """Whether it is this worker that keeps the trail; its turn is written down anew when half of it is over."""
        now = self._clock()
        if self._mine_until - now < _TURN / 2:
            if not await self._audit.take_turn("keeper", self._holder, _TURN):
                return False
            self._mine_until = now + _TURN
        return True

    def _begin(self, name: str, what: Callable[[], Coroutine[None, None, None]]) -> None:
        if name not in self._under_way:
            self._under_way[name] = asyncio.create_task(what())

    async def _deliver(self, sink: Sink) -> None:
        """Give a sink the entries and checkpoints that it lacks."""
        try:
            async for entries in self._audit.sealed(after=await self._mark(sink, _ENTRIES)):
                for first in range(0, len(entries), _AT_ONCE):
                    some = entries[first : first + _AT_ONCE]
                    await asyncio.to_thread(sink.take, self._lines(some))
                    await self._audit.set_mark(f"{sink.name}:{_ENTRIES}", some[-1].seq)
            upto = await self._mark(sink, _ENTRIES)
            async for signed in self._audit.checkpoints(above=await self._mark(sink, _CHECKPOINTS), upto=upto):
                written = [msgspec.json.encode({"checkpoint": one.document()}) + b"\n" for one in signed]
                await asyncio.to_thread(sink.take, written)
                await self._audit.set_mark(f"{sink.name}:{_CHECKPOINTS}", signed[-1].seq)
        except OSError as error:
            if sink.name not in self._away:
                _log.error("audit_sink_is_away", sink=sink.name, reason=str(error))
            self._away.add(sink.name)
        else:
            if sink.name in self._away:
                _log.info("audit_sink_is_back", sink=sink.name)
            self._away.discard(sink.name)

    def _lines(self, entries: list[Sealed]) -> list[bytes]:
        """Return entries as a sink gets them: as copies, and with their contents only where that is wished."""
        if not self._contents:
            return list(lines(entries, keys=False))
        said = [{"record": _raw(one.record()), "hash": one.hash, "copy": True, "said": _raw(one.payload)} for one in entries]
        return [msgspec.json.encode(one) + b"\n" for one in said]

    async def _verify(self) -> None:
        """Verify the chain once a day, and where its newest entry is not what it was; while it is broken, say so every hour."""
        now, verified = self._clock(), await self._audit.verified()
        rewritten = not await self._audit.holds(self._seen)
        if not rewritten:
            self._seen = await self._audit.head()
        due = rewritten or verified is None or now - verified.at >= _VERIFY_EVERY
        if not due or now - self._broken_at < _TELL_AGAIN:
            return
        report = await self._audit.verify(self._seen)
        if not report.whole:
            self._broken_at = now
            _log.critical("audit_trail_is_broken", findings=list(told(report))[:20])

    async def _mark(self, sink: Sink, what: str) -> int:
        mark = await self._audit.mark(f"{sink.name}:{what}")
        return 0 if mark is None else mark.seq


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
