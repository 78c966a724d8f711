"""The newest bytes of each topic, numbered: how the control plane publishes news to those who only read.

Numbers and contents never go back: `take_number` takes the topic's row lock, and only then is the content put together, so
that a later number has always seen everything that an earlier one had.
"""

from collections.abc import Callable
from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.infra.db import Transaction, UtcTime, metadata

broadcasts = sa.Table(
    "broadcasts",
    metadata,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("at", UtcTime),
)


class News(msgspec.Struct, frozen=True):
    """What was last published under a topic."""

    number: int
    payload: bytes


class Broadcast:
    """Publishes under topics. `ring` is called after the commit of whatever was published."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring

    async def take_number(self, tx: Transaction, topic: str) -> int:
        """Return the number of the next publication; nobody else gets one before this transaction has ended."""
        insert = tx.insert(broadcasts).values(topic=topic, number=1, payload=b"")
        upsert = insert.on_conflict_do_update(index_elements=["topic"], set_={"number": broadcasts.c.number + 1})
        row = await tx.one(upsert.returning(broadcasts.c.number))
        assert row is not None  # noqa: S101 - an upsert that returns always has its row
        return int(row.number)

    async def publish(self, tx: Transaction, topic: str, number: int, payload: bytes, at: datetime) -> None:
        """Publish under a number that this transaction has taken."""
        changed = sa.update(broadcasts).where(broadcasts.c.topic == topic, broadcasts.c.number == number)
        await tx.execute(changed.values(payload=payload, at=at))
        tx.after_commit(self._ring)


async def latest(tx: Transaction, topic: str, after: int) -> News | None:
    """Return the newest publication, or None while it is not newer than number `after`."""
    row = await tx.one(sa.select(broadcasts).where(broadcasts.c.topic == topic, broadcasts.c.number > after))
    return None if row is None else News(row.number, row.payload)
