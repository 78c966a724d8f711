"""The audit trail: each change leaves one entry, in the same transaction; what cannot be audited does not happen."""

from collections.abc import Awaitable, Callable

from modelkeep.contracts.actor import Actor
from modelkeep.contracts.ids import new_id
from modelkeep.control.audit import store
from modelkeep.control.audit.rules import Entry
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction

Circumstances = Callable[[Transaction], Awaitable[dict[str, str]]]
"""Returns what every entry says besides its own details, as the transaction sees it: what else holds here, and may matter."""


class Audit:
    """Who did what to what, when, and under which circumstances."""

    def __init__(self, db: Database, clock: Clock, circumstances: Circumstances) -> None:
        self._db = db
        self._clock = clock
        self._circumstances = circumstances

    async def note(self, tx: Transaction, actor: Actor, action: str, target: str, **details: str) -> None:
        """Write down a change in the transaction that makes it."""
        said = details | await self._circumstances(tx)
        entry = Entry(new_id("aud"), self._clock(), actor.id, actor.name, action, target, actor.request_id, said)
        await store.append(tx, entry)

    async def entries(self, *, limit: int, before: str | None = None, target: str | None = None) -> list[Entry]:
        """List changes, newest first."""
        async with self._db.read() as tx:
            return await store.page(tx, limit=limit, before=before, target=target)
