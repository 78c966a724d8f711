"""The prediction history: loads what servers have spooled, finds it again, and keeps it within its bounds."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Final, NamedTuple

from modelkeep.contracts.prediction import PredictionRecord, RecordFound
from modelkeep.control.predictions import blocks, store
from modelkeep.control.predictions.blocks import Gathered, Record
from modelkeep.control.predictions.errors import PositionMoved, PredictionNotFound
from modelkeep.control.predictions.rules import Wanted
from modelkeep.control.predictions.search import Choose, newest_first
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.spool import Position

_EXPORT_PAGE: Final = 2000
_MOST_BLOCKS: Final = 64
_SETTLED_S: Final = 60.0
_TRIMMED_TO: Final = 0.95
OVER_CAP: Final = "over_cap"
"""Why records are lost that went before their days were over."""


class Page(NamedTuple):
    """Records, newest first, and the id below which the next page begins (None: this is the last)."""

    records: list[PredictionRecord]
    before: str | None


class FactsPage(NamedTuple):
    """As `Page`, without what went in and out."""

    records: list[RecordFound]
    before: str | None


class Standing(NamedTuple):
    """Of which deployments the history has something on which days, and how much has gone before its days were over."""

    places: frozenset[tuple[date, str]]
    over_cap: int

    def lacks(self, before: "Standing") -> bool:
        """Whether anything has gone since `before`."""
        return not before.places <= self.places or self.over_cap != before.over_cap


class Predictions:
    """The history of predictions, in a database that may be another than the control plane's."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._made = False
        self._partitions: set[date] = set()

    # ---- loading

    async def position(self, server: str) -> Position:
        """Return where a server's spool has been loaded to."""
        async with self._read() as tx:
            return await store.position(tx, server)

    async def load(self, server: str, before: Position, after: Position, found: Gathered, lost: Mapping[str, int]) -> None:
        """Take in what lies between two positions of a spool, exactly once.

        Records, losses and the new position are one transaction. Raises `PositionMoved` when the spool no longer stands at
        `before`: somebody else has loaded it.
        """
        await self._make()
        async with self._db.begin() as tx:
            if not await store.move(tx, server, before, after):
                raise PositionMoved
            await self._make_partitions(tx, {block.day for block in found.blocks})
            await store.insert(tx, found.blocks)
            await store.count_losses(tx, lost)

    async def forget_spool(self, server: str) -> None:
        """Forget a spool that is no more."""
        async with self._db.begin() as tx:
            await store.forget(tx, server)

    # ---- finding

    async def prediction(self, prediction_id: str, among: frozenset[str] | None = None) -> PredictionRecord:
        """Return one prediction, whole; raises `PredictionNotFound`. `among` are the deployments it may be of, None for all."""
        async for records in self.all(Wanted(id=prediction_id, among=among)):
            return records[0]
        raise PredictionNotFound

    async def found(self, prediction_ids: Collection[str]) -> dict[str, RecordFound]:
        """Return those of these predictions that are there, by id and without what went in and out."""
        async with self._read() as tx:
            await store.see_one_moment(tx)
            return await self._held(tx, prediction_ids, None)

    async def found_soon(self, prediction_ids: Collection[str]) -> dict[str, RecordFound]:
        """As `found`, in the time that a request may take.

        So many blocks are looked into at most, and what the others hold is not among them, nor what is being tidied: whoever
        misses one asks for all of it later.
        """
        async with self._read() as tx:
            return await self._held(tx, prediction_ids, _MOST_BLOCKS)

    async def missing(self, prediction_ids: Collection[str]) -> set[str]:
        """Return those of these predictions that the history does not hold."""
        return set(prediction_ids) - (await self.found(prediction_ids)).keys()

    async def page(self, wanted: Wanted, *, limit: int, before: str | None = None) -> Page:
        """Return wanted records, newest first. A page may be shorter than `limit`, even empty, and yet not be the last."""
        return Page(*await self._search(wanted, limit, before, blocks.records))

    async def facts(self, wanted: Wanted, *, limit: int, before: str | None = None) -> FactsPage:
        """Return wanted records without what went in and out, newest first. See `page`."""
        near = wanted.around_its_request()
        found = await self._search(near, limit, before, blocks.facts)
        if near != wanted and not found[0] and found[1] is None:
            found = await self._search(wanted, limit, before, blocks.facts)
        return FactsPage(*found)

    async def all(self, wanted: Wanted) -> AsyncIterator[list[PredictionRecord]]:
        """Yield all wanted records, newest first, in bounded lists. What comes in meanwhile is left out."""
        before: str | None = None
        while True:
            page = await self.page(wanted, limit=_EXPORT_PAGE, before=before)
            if page.records:
                yield page.records
            if page.before is None:
                return
            before = page.before

    async def lost(self) -> dict[str, int]:
        """Return how many records could not be kept, by reason."""
        async with self._read() as tx:
            return await store.lost(tx)

    async def standing(self) -> Standing:
        """Return what tells, next to an earlier one, whether anything has gone meanwhile."""
        async with self._read() as tx:
            await store.see_one_moment(tx)
            return Standing(await store.places(tx), (await store.lost(tx)).get(OVER_CAP, 0))

    async def _search(
        self, wanted: Wanted, limit: int, before: str | None, choose: Choose[Record]
    ) -> tuple[list[Record], str | None]:
        async with self._read() as tx:
            await store.see_one_moment(tx)
            return await newest_first(tx, wanted, limit, before, choose)

    async def _held(self, tx: Transaction, prediction_ids: Collection[str], most_blocks: int | None) -> dict[str, RecordFound]:
        wanted, held = set(prediction_ids), dict[str, RecordFound]()
        for block in (await store.holding(tx, sorted(wanted)))[:most_blocks]:
            if any(block.first_id <= one <= block.last_id for one in wanted):
                payload = await store.payload_if_there(tx, block)
                records = [] if payload is None else await asyncio.to_thread(blocks.chosen, payload, wanted)
                held |= {one.id: one for one in records}
                wanted -= held.keys()
        return held

    # ---- tidying

    async def prepare(self) -> None:
        """Make the tables, and the partitions of today and tomorrow."""
        await self._make()
        today = self._clock().date()
        wanted = {today, today + timedelta(days=1)}
        if not wanted <= self._partitions:
            async with self._db.begin() as tx:
                await self._make_partitions(tx, wanted)

    async def compact(self) -> int:
        """Merge small blocks once; return how many blocks are fewer. Each merge is a transaction of its own."""
        now = self._clock()
        settled = now.timestamp() - _SETTLED_S
        async with self._read() as tx:
            places = await store.small(tx, settled=settled, today=now.date())
        fewer = 0
        for place in places:
            async with self._db.begin() as tx:
                payloads = await store.take_small(tx, place, settled=settled)
                if payloads:
                    merged = await asyncio.to_thread(blocks.merge, payloads)
                    await store.insert(tx, merged)
                    fewer += len(payloads) - len(merged)
        return fewer

    async def retire(self, *, keep_days: int, kept: Mapping[str, int], max_bytes: int) -> int:
        """Remove what is older than its deployment's days (`kept`, else `keep_days`) or does not fit into `max_bytes`.

        Return how many records went although their days were not over; they are counted as lost.
        """
        await self._make()
        today = self._clock().date()
        async with self._read() as tx:
            days = await store.days(tx)
        longest, shortest = max([keep_days, *kept.values()]), min([keep_days, *kept.values()])
        for day in days:
            age = (today - day).days
            if age >= longest:
                gone = 1
                while gone:
                    async with self._db.begin() as tx:
                        gone = await store.drop_day(tx, day)
                self._partitions.discard(day)
            elif age >= shortest:
                await self._retire_deployments(day, age, keep_days, kept)
        return await self._trim(max_bytes)

    async def _retire_deployments(self, day: date, age: int, keep_days: int, kept: Mapping[str, int]) -> None:
        async with self._db.begin() as tx:
            for deployment in await store.deployments(tx, day):
                if age >= kept.get(deployment, keep_days):
                    await store.drop_deployment(tx, day, deployment)

    async def _trim(self, max_bytes: int) -> int:
        """Drop whole days while there is another, then the oldest blocks of the only one; a little more than needed."""
        lost, bound = 0, max_bytes
        while True:
            async with self._db.begin() as tx:
                if await store.size(tx) <= bound:
                    return lost
                days = await store.days(tx)
                if len(days) > 1:
                    gone = await store.drop_day(tx, days[0])
                else:
                    gone, bound = await store.drop_oldest(tx), int(max_bytes * _TRIMMED_TO)
                await store.count_losses(tx, {OVER_CAP: gone})
            self._partitions.discard(days[0])
            lost += gone

    async def _make(self) -> None:
        if not self._made:
            async with self._db.begin() as tx:
                await store.make(tx)
            self._made = True

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[Transaction]:
        await self._make()
        async with self._db.read() as tx:
            yield tx

    async def _make_partitions(self, tx: Transaction, days: Iterable[date]) -> None:
        missing = sorted(set(days) - self._partitions)
        if missing:
            await store.make_partitions(tx, missing)
            tx.after_commit(lambda: self._partitions.update(missing))
