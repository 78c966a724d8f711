"""All the SQL of replays."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.control.replays.rules import MOST_LISTED, OPEN, Replay, Shown, State
from modelkeep.control.replays.tables import replays
from modelkeep.infra.db import Transaction

_FACTS = [column for column in replays.c if column.name not in {"rows", "details"}]
_WHOLE = [column for column in replays.c if column.name != "rows"]


async def add(tx: Transaction, replay: Replay, rows: str | None) -> None:
    """Add a replay, with the caller's own rows if it is about those."""
    await tx.execute(sa.insert(replays).values(**msgspec.structs.asdict(replay), rows=rows))


async def replay(tx: Transaction, replay_id: str, now: datetime) -> Replay | None:
    """Return a replay, whole, unless its time is over."""
    row = await tx.one(sa.select(*_WHOLE).where(replays.c.id == replay_id, replays.c.expires_at > now))
    return None if row is None else _replay(row)


async def page(tx: Transaction, version_id: str, now: datetime, *, limit: int, before: str | None) -> list[Replay]:
    """Return replays of a version, newest first, with ids below `before`; without their details, and with few of the ids."""
    newest = sa.select(*_FACTS).where(replays.c.version_id == version_id, replays.c.expires_at > now)
    if before is not None:
        newest = newest.where(replays.c.id < before)
    return [_listed(_replay(row)) for row in await tx.all(newest.order_by(replays.c.id.desc()).limit(limit))]


async def count_open(tx: Transaction, asker: str) -> tuple[int, int]:
    """Return how many wait or run that this one has asked for, and how many in all."""
    still_open = await tx.all(sa.select(replays.c.created_by).where(replays.c.state.in_(OPEN)))
    return sum(row.created_by == asker for row in still_open), len(still_open)


async def begin(tx: Transaction, replay_id: str, now: datetime) -> tuple[Replay, str | None] | None:
    """Set a replay to running, from its start, and return it with the caller's own rows; None when it has ended."""
    row = await _change_open(tx, replay_id, state=State.RUNNING, started_at=now, progress=0)
    if row is None:
        return None
    return _replay(row), row.rows


async def end(tx: Transaction, replay_id: str, **values: object) -> bool:
    """Set a replay to an end with its outcome; False when it had ended before. The caller's own rows go."""
    return await _change_open(tx, replay_id, rows=None, **values) is not None


async def note_progress(tx: Transaction, replay_id: str, progress: int) -> None:
    """Note how many predictions have been answered again."""
    await _change_open(tx, replay_id, progress=progress)


async def showing(tx: Transaction, now: datetime, *, after: str, limit: int, replay_id: str | None) -> dict[str, Shown]:
    """Return what replays show, by id, from after `after`; of one alone where `replay_id` names it."""
    ended = sa.select(replays.c.id, replays.c.details, replays.c.failure).where(
        replays.c.id > after, replays.c.expires_at > now
    )
    ended = ended.where(replays.c.state.notin_(OPEN)) if replay_id is None else ended.where(replays.c.id == replay_id)
    return {row.id: Shown(row.details, row.failure) for row in await tx.all(ended.order_by(replays.c.id).limit(limit))}


async def show(tx: Transaction, replay_id: str, shown: Shown) -> None:
    """Have a replay show this from now on."""
    changed = sa.update(replays).where(replays.c.id == replay_id)
    await tx.execute(changed.values(details=shown.details, failure=shown.failure))


async def forget(tx: Transaction, now: datetime) -> None:
    """Forget those whose time is over."""
    await tx.execute(sa.delete(replays).where(replays.c.expires_at <= now))


async def _change_open(tx: Transaction, replay_id: str, **values: object) -> sa.Row[tuple[object, ...]] | None:
    still_open = sa.update(replays).where(replays.c.id == replay_id, replays.c.state.in_(OPEN))
    return await tx.one(still_open.values(**values).returning(*replays.c))


def _listed(one: Replay) -> Replay:
    """A replay as lists have it: a page of them must not hold half a million ids."""
    asked = msgspec.structs.replace(one.asked, predictions=one.asked.predictions[:MOST_LISTED])
    return msgspec.structs.replace(one, asked=asked)


def _replay(row: sa.Row[tuple[object, ...]]) -> Replay:
    values = {**row._mapping, "state": State(row.state)}  # noqa: SLF001 - SQLAlchemy's public name for it
    values.pop("rows", None)
    return Replay(**values)
