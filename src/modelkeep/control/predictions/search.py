"""Goes through blocks from the newest to the oldest, and gives out their records in the order of their ids.

Blocks overlap: two deployments answer at the same time, and so do two servers. A record is given out once no block that is
still closed can hold a larger id.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from modelkeep.contracts.prediction import PredictionRecord, RecordFound
from modelkeep.control.predictions import store
from modelkeep.control.predictions.blocks import Record
from modelkeep.control.predictions.rules import Wanted
from modelkeep.infra.db import Transaction

Choose = Callable[[bytes, Wanted, str | None], list[Record]]

_MOST_BLOCKS: Final = 64
_MOST_BYTES: Final = 16 << 20
_AFTER: Final = "~"  # sorts behind every letter of an id


async def newest_first(
    tx: Transaction, wanted: Wanted, limit: int, before: str | None, choose: Choose[Record]
) -> tuple[list[Record], str | None]:
    """Return up to `limit` wanted records with ids below `before`, and the id below which to go on; None at the end.

    A page ends early when it has become large or has taken long, so that one request stays one request's work.
    """
    found: list[Record] = []
    open_records: list[Record] = []
    size = opened = 0

    def give(above: str) -> str | None:
        """Give out what is above this id; return where to go on when the page is full."""
        nonlocal size
        while open_records and open_records[-1].id > above:
            if len(found) == limit or size > _MOST_BYTES:
                return found[-1].id
            record = open_records.pop()
            found.append(record)
            size += _bytes(record)
        return None

    async for block in store.newest(tx, wanted, before):
        onward = give(block.last_id)
        if onward is not None:
            return found, onward
        rest = block.last_id + _AFTER
        if opened >= _MOST_BLOCKS and (before is None or rest < before):
            return found, rest
        open_records += await asyncio.to_thread(choose, await store.payload(tx, block), wanted, before)
        open_records.sort(key=_by_id)
        opened += 1
    return found, give("")


def _by_id(record: RecordFound | PredictionRecord) -> str:
    return record.id


def _bytes(record: RecordFound | PredictionRecord) -> int:
    if isinstance(record, PredictionRecord):
        return len(record.inputs or b"") + len(record.outputs or b"")
    return 0
