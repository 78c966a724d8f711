"""All the SQL of feedback."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.actor import Actor
from modelkeep.control.feedback.rules import Labelled, Labels, Parked, Told, Verdict, again_in
from modelkeep.control.feedback.tables import feedback, feedback_parked, feedback_revisions
from modelkeep.infra.db import Transaction

_TOLD: Final = ("prediction_id", "digest", "verdict", "truth", "note", "at", "told_at", "by", "user")


# ---- telling


async def tell(tx: Transaction, told: Iterable[Told]) -> set[tuple[str, str]]:
    """Keep tellings that are not kept yet; return which these are, by prediction and digest."""
    rows = sorted((msgspec.structs.asdict(one) for one in told), key=lambda row: (row["prediction_id"], row["digest"]))
    if not rows:
        return set()
    of = feedback_revisions.c
    new = tx.insert(feedback_revisions).values(rows).on_conflict_do_nothing()
    return {(row.prediction_id, row.digest) for row in await tx.all(new.returning(of.prediction_id, of.digest))}


async def settle(tx: Transaction, labelled: Iterable[Labelled]) -> None:
    """Have the one that is told hold of each of these predictions, unless another that holds has a higher rank."""
    rows = [_row(one) for one in sorted(labelled, key=lambda one: one.now.prediction_id)]
    if not rows:
        return
    new = tx.insert(feedback).values(rows)
    rank = [(getattr(new.excluded, name), feedback.c[name]) for name in ("at", "verdict", "digest")]
    higher = sa.tuple_(*(one for one, _ in rank)) > sa.tuple_(*(other for _, other in rank))
    changed = {name: getattr(new.excluded, name) for name in _TOLD if name != "prediction_id"}
    await tx.execute(new.on_conflict_do_update(index_elements=["prediction_id"], set_=changed, where=higher))


async def kept(tx: Transaction, told: Iterable[Told]) -> set[tuple[str, str]]:
    """Return which of these tellings are kept already, by prediction and digest."""
    of = feedback_revisions.c
    pairs = sorted({(one.prediction_id, one.digest) for one in told})
    found = await tx.all(sa.select(of.prediction_id, of.digest).where(sa.tuple_(of.prediction_id, of.digest).in_(pairs)))
    return {(row.prediction_id, row.digest) for row in found}


async def often(tx: Transaction, prediction_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """Return how many tellings of these predictions are kept, by prediction and by who told."""
    of = feedback_revisions.c
    teller = sa.case((of.user == "", of.by), else_=of.user).label("teller")
    number = sa.select(of.prediction_id, teller, sa.func.count().label("number"))
    rows = await tx.all(number.where(of.prediction_id.in_(list(prediction_ids))).group_by(of.prediction_id, sa.text("teller")))
    return {(row.prediction_id, row.teller): int(row.number) for row in rows}


# ---- parking


async def park(tx: Transaction, parked: Iterable[Parked]) -> None:
    """Have these wait for their predictions. What waits already does so once, and is about the last moment when it was told."""
    rows = [
        {
            **{name: getattr(one, name) for name in ("id", "said", "asked_by", "by", "user", "since", "told_at", "tries")},
            "prediction_id": one.key[0],
            "digest": one.key[1],
            "next_at": one.told_at + again_in(one.tries),
        }
        for one in sorted({one.key: one for one in parked}.values(), key=lambda one: one.key)
    ]
    if not rows:
        return
    new = tx.insert(feedback_parked).values(rows)
    told = {"told_at": new.excluded.told_at}  # what says its moment is about that one, whenever it was told
    later = new.excluded.told_at > feedback_parked.c.told_at
    await tx.execute(new.on_conflict_do_update(index_elements=["prediction_id", "asked_by", "digest"], set_=told, where=later))


async def waiting(tx: Transaction, asked_by: str, prediction_ids: Collection[str]) -> set[tuple[str, str]]:
    """Return what a key or session said of these predictions that waits, by prediction and digest."""
    of = feedback_parked.c
    mine = sa.select(of.prediction_id, of.digest).where(of.asked_by == asked_by, of.prediction_id.in_(list(prediction_ids)))
    return {(row.prediction_id, row.digest) for row in await tx.all(mine)}


async def parked(tx: Transaction) -> int:
    """Return how many wait."""
    row = await tx.one(sa.select(sa.func.count()).select_from(feedback_parked))
    return 0 if row is None else int(row[0])


async def parked_of(tx: Transaction, actor: Actor) -> int:
    """Return how many of one person wait, whatever they told them with; of a key that is nobody's, those told with it."""
    of = feedback_parked.c
    mine = of.user == actor.user if actor.user else (of.user == "") & (of.asked_by == actor.id)
    row = await tx.one(sa.select(sa.func.count()).where(mine))
    return 0 if row is None else int(row[0])


async def due(tx: Transaction, now: datetime, limit: int) -> list[Parked]:
    """Return those whose predictions are to be looked for by now."""
    of = feedback_parked.c
    rows = await tx.all(sa.select(feedback_parked).where(of.next_at <= now).order_by(of.next_at, of.id).limit(limit))
    return [_parked(row) for row in rows]


async def hold(tx: Transaction, parked: Iterable[Parked], now: datetime) -> list[Parked]:
    """Keep these to the transaction, in the order in which `park` comes to them; return those still due, as they are now."""
    of = feedback_parked.c
    still = sa.select(feedback_parked).where(of.id.in_([one.id for one in parked]), of.next_at <= now)
    rows = await tx.all(still.order_by(of.prediction_id, of.asked_by, of.digest).with_for_update())
    return [_parked(row) for row in rows]


async def take(tx: Transaction, parked_ids: Collection[str]) -> None:
    """Have these wait no more."""
    await tx.execute(sa.delete(feedback_parked).where(feedback_parked.c.id.in_(list(parked_ids))))


async def postpone(tx: Transaction, waiting: Iterable[Parked], now: datetime) -> None:
    """Look for the predictions of these again later."""
    by_tries: dict[int, list[str]] = {}
    for one in waiting:
        by_tries.setdefault(one.tries + 1, []).append(one.id)
    for tries, ids in sorted(by_tries.items()):
        later = sa.update(feedback_parked).where(feedback_parked.c.id.in_(ids))
        await tx.execute(later.values(tries=tries, next_at=now + again_in(tries)))


# ---- finding


async def holding(tx: Transaction, prediction_ids: Collection[str]) -> dict[str, Labelled]:
    """Return what holds of those of these predictions of which anything was told."""
    found = sa.select(feedback).where(feedback.c.prediction_id.in_(list(prediction_ids)))
    return {row.prediction_id: _labelled(row) for row in await tx.all(found)}


async def revisions(tx: Transaction, prediction_id: str) -> list[Told]:
    """Return all that was told of a prediction, what holds first."""
    of = feedback_revisions.c
    found = sa.select(feedback_revisions).where(of.prediction_id == prediction_id)
    return sorted((_told(row) for row in await tx.all(found)), key=lambda one: one.rank, reverse=True)


async def page(
    tx: Transaction,
    *,
    among: Collection[str] | None,
    limit: int,
    before: str | None,
    deployment: str | None,
    version: str | None,
    verdict: Verdict | None,
) -> list[Labelled]:
    """Return what holds, newest prediction first, older than `before`; `version` is a version's id or its number."""
    of = feedback.c
    newest = sa.select(feedback).order_by(of.prediction_id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(of.prediction_id < before)
    if among is not None:
        newest = newest.where(of.deployment.in_(sorted(among)))
    if deployment is not None:
        newest = newest.where(of.deployment == deployment)
    if version is not None:
        newest = newest.where(of.version == int(version) if version.isdecimal() else of.version_id == version)
    if verdict is not None:
        newest = newest.where(of.verdict == verdict)
    return [_labelled(row) for row in await tx.all(newest)]


async def labels(tx: Transaction, trials: Sequence[str]) -> Mapping[str, Mapping[str, Labels]]:
    """Return how many predictions that trials count were told of, by trial and version; callers are wrong once in each."""
    of = feedback.c
    unit = sa.case((of.unit == "", of.prediction_id), else_=of.unit)
    wrong = sa.func.count(sa.distinct(sa.case((of.verdict == "wrong", unit))))
    counted = sa.select(of.trial, of.version_id, sa.func.count().label("labelled"), wrong.label("wrong"))
    found: dict[str, dict[str, Labels]] = {}
    for row in await tx.all(counted.where(of.trial.in_(list(trials))).group_by(of.trial, of.version_id)):
        found.setdefault(row.trial, {})[row.version_id] = Labels(int(row.labelled), int(row.wrong))
    return found


# ---- forgetting


async def ids(tx: Transaction, *, after: str, limit: int) -> list[str]:
    """Return the predictions of which anything was told, in the order of their ids, from after `after`."""
    of = feedback.c.prediction_id
    return [row.prediction_id for row in await tx.all(sa.select(of).where(of > after).order_by(of).limit(limit))]


async def forget(tx: Transaction, prediction_ids: Collection[str]) -> int:
    """Forget all that was told of these predictions; return of how many something was."""
    gone = list(prediction_ids)
    await tx.execute(sa.delete(feedback_revisions).where(feedback_revisions.c.prediction_id.in_(gone)))
    return (await tx.execute(sa.delete(feedback).where(feedback.c.prediction_id.in_(gone)))).rowcount


def _row(one: Labelled) -> dict[str, object]:
    facts = msgspec.structs.asdict(one)
    del facts["now"]
    return facts | msgspec.structs.asdict(one.now)


def _parked(row: sa.Row[Any]) -> Parked:
    return Parked(row.id, row.said, row.asked_by, row.by, row.user, row.since, row.told_at, row.tries)


def _told(row: sa.Row[Any]) -> Told:
    return Told(**{name: getattr(row, name) for name in _TOLD})


def _labelled(row: sa.Row[Any]) -> Labelled:
    facts = (row.deployment, row.version_id, row.version, row.predicted_at, row.trial, row.unit)
    return Labelled(*facts, _told(row))
