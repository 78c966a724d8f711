"""All the SQL of feedback."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from modelkeep.control.feedback.rules import Labelled, Labels, Parked, Told, Verdict, again_in, digest_of
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


async def keys(tx: Transaction, prediction_ids: Collection[str]) -> set[tuple[str, str]]:
    """Return what was told of these predictions, by prediction and digest."""
    of = feedback_revisions.c
    found = await tx.all(sa.select(of.prediction_id, of.digest).where(of.prediction_id.in_(list(prediction_ids))))
    return {(row.prediction_id, row.digest) for row in found}


# ---- parking


async def park(tx: Transaction, parked: Iterable[Parked]) -> None:
    """Have these wait for their predictions; what waits already, does so once."""
    rows = [
        {
            "id": one.id,
            "prediction_id": one.said.prediction_id,
            "digest": digest_of(one.said, one.said.at),
            "said": one.said,
            "asked_by": one.asked_by,
            "by": one.by,
            "user": one.user,
            "told_at": one.told_at,
            "tries": one.tries,
            "next_at": one.told_at + again_in(one.tries),
        }
        for one in parked
    ]
    if rows:
        await tx.execute(tx.insert(feedback_parked).values(rows).on_conflict_do_nothing())


async def parked(tx: Transaction, asked_by: str | None = None) -> int:
    """Return how many wait: all, or those of one who told."""
    number = sa.select(sa.func.count()).select_from(feedback_parked)
    row = await tx.one(number if asked_by is None else number.where(feedback_parked.c.asked_by == asked_by))
    return 0 if row is None else int(row[0])


async def due(tx: Transaction, now: datetime, limit: int) -> list[Parked]:
    """Return those whose predictions are to be looked for by now."""
    of = feedback_parked.c
    rows = await tx.all(sa.select(feedback_parked).where(of.next_at <= now).order_by(of.next_at, of.id).limit(limit))
    return [Parked(row.id, row.said, row.asked_by, row.by, row.user, row.told_at, row.tries) for row in rows]


async def take(tx: Transaction, parked_ids: Collection[str]) -> set[str]:
    """Have these wait no more; return those that had been waiting until now, which nobody else has taken."""
    gone = sa.delete(feedback_parked).where(feedback_parked.c.id.in_(list(parked_ids))).returning(feedback_parked.c.id)
    return {row.id for row in await tx.all(gone)} if parked_ids else set()


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


def _told(row: sa.Row[Any]) -> Told:
    return Told(**{name: getattr(row, name) for name in _TOLD})


def _labelled(row: sa.Row[Any]) -> Labelled:
    facts = (row.deployment, row.version_id, row.version, row.predicted_at, row.trial, row.unit)
    return Labelled(*facts, _told(row))
