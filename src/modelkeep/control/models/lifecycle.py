"""How models and versions are put away, and what is left of them: deprecation, archive, trash, purge, legal hold, lineage."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.ids import new_id
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.models import store
from modelkeep.control.models.errors import (
    ModelArchived,
    ModelInUse,
    ModelTrashed,
    NotTrashed,
    OnHold,
    Purged,
    VersionArchived,
    VersionInUse,
    VersionTrashed,
)
from modelkeep.control.models.events import DeprecationChanged, ModelArchiveChanged, ModelPurged
from modelkeep.control.models.finding import found_model, found_version, may_see, version_for_update
from modelkeep.control.models.life import (
    DEEPEST,
    Change,
    ChangeKind,
    Deprecation,
    ErasedFile,
    Erasure,
    Hold,
    Life,
    Lineage,
    Related,
    check_reason,
)
from modelkeep.control.models.rules import UNVALIDATED, Model, Version, putting_away, referring
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events
from modelkeep.infra.jobs import Jobs
from modelkeep.infra.settings import TrashSettings

PURGE_VERSION: Final = "purge_version"
_AT_ONCE: Final = 100
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # no version was rejected before then
_TIME_OVER: Final = "Its time in the trash was over."


class _Step(NamedTuple):
    """Who changes what, and why."""

    actor: Actor
    model: Model
    version: Version | None
    change: ChangeKind
    reason: str


Referrers = Callable[[Transaction, str], Awaitable[list[str]]]
"""Returns what refers to the version with this id, in words; nothing is put away that anything refers to."""


class Lifecycle:
    """Deprecates, archives, trashes, restores and purges models and their versions. `number` None: the model itself.

    `referrers` are asked before a version is put away; nouns above add theirs when the installation is put together.
    """

    def __init__(
        self,
        *,
        db: Database,
        audit: Audit,
        approvals: Approvals,
        events: Events,
        jobs: Jobs,
        clock: Clock,
        trash: TrashSettings,
    ) -> None:
        self.referrers: list[Referrers] = []
        self._db = db
        self._audit = audit
        self._approvals = approvals
        self._events = events
        self._jobs = jobs
        self._clock = clock
        self._keep = timedelta(days=trash.keep_days)

    async def deprecate(
        self, actor: Actor, name: str, number: int | None, said: Deprecation, *, reason: str
    ) -> Model | Version:
        """Say that something should not be used any more: its answers do from now on. Said anew, it replaces what was."""
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number)
            _check_in_use(model, version)
            if said.successor is not None:
                if version is None or said.successor == version.number:
                    raise Invalid("A successor is another version of the same model, of one of its versions.")
                await found_version(tx, model, said.successor)
            step = _Step(actor, model, version, "deprecate", check_reason(reason, needed=True))
            changed = await self._change(tx, step, deprecation=said)
            await self._events.publish(tx, DeprecationChanged(model.id))
            return changed

    async def revive(self, actor: Actor, name: str, number: int | None = None, *, reason: str = "") -> Model | Version:
        """Take a deprecation back."""
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number)
            _check_in_use(model, version)
            if (version or model).deprecation is None:
                return version or model
            changed = await self._change(tx, _Step(actor, model, version, "revive", check_reason(reason)), deprecation=None)
            await self._events.publish(tx, DeprecationChanged(model.id))
            return changed

    async def archive(self, actor: Actor, name: str, number: int | None = None, *, reason: str = "") -> Model | Version:
        """Archive a model, which then answers no more, or a version that nothing refers to; nothing is deleted."""
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number)
            if _check_there(model, version).archived_at is not None:
                return version or model
            if version is not None:
                await self._check_unreferred(tx, model, version)
            await self._approvals.need(tx, actor, putting_away("archive", model, version))
            return await self._put(tx, _Step(actor, model, version, "archive", check_reason(reason)), archived_at=self._clock())

    async def trash(self, actor: Actor, name: str, number: int | None = None, *, reason: str = "") -> Model | Version:
        """Put a model or a version into the trash, where it is purged when its time is over.

        Raises `VersionInUse` or `ModelInUse` with what refers to it, and `OnHold`.
        """
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number)
            if (version or model).life is Life.TRASHED:
                return version or model
            _check_there(model, version)
            await self._check_not_held(tx, model, version)
            if version is not None:
                await self._check_unreferred(tx, model, version)
                if version.state in UNVALIDATED:
                    raise VersionInUse(f"Version {version.number} is being validated: wait for that to end.")
            else:
                await self._check_model_unused(tx, model)
            await self._approvals.need(tx, actor, putting_away("trash", model, version))
            return await self._put(tx, _Step(actor, model, version, "trash", check_reason(reason)), trashed_at=self._clock())

    async def restore(
        self, actor: Actor, name: str, number: int | None = None, *, reason: str = "", from_trash: bool = True
    ) -> Model | Version:
        """Bring back what was archived or trashed, into use; a model answers again as before. What was deprecated still is.

        Without `from_trash`, what is in the trash stays there, and is refused.
        """
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number)
            thing = version or model
            if thing.purging_at is not None:
                raise Purged
            if model.trashed_at is not None and (version is not None or not from_trash):
                raise ModelTrashed
            if thing.archived_at is None and thing.trashed_at is None:
                return thing
            back = {"archived_at": None, "trashed_at": None}
            return await self._put(tx, _Step(actor, model, version, "restore", check_reason(reason)), **back)

    async def hold(self, actor: Actor, name: str, number: int | None = None, *, reason: str) -> Model | Version:
        """Put a legal hold on a model with all its versions, or on one of these: nothing of it is trashed or purged."""
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number, Scope.ADMIN)
            if (version or model).purging_at is not None:
                raise Purged
            said = check_reason(reason, needed=True)
            step = _Step(actor, model, version, "hold", said)
            return await self._change(tx, step, hold=Hold(said, self._clock(), actor.name))

    async def release(self, actor: Actor, name: str, number: int | None = None, *, reason: str = "") -> Model | Version:
        """Take a legal hold away."""
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number, Scope.ADMIN)
            if (version or model).hold is None:
                return version or model
            return await self._change(tx, _Step(actor, model, version, "release", check_reason(reason)), hold=None)

    async def purge(self, actor: Actor, name: str, number: int | None = None, *, reason: str) -> list[Erasure]:
        """Have what is in the trash removed for good, and return the records of that; the worker does it.

        Asked again, it returns the same records, as they are by then. Raises `NotTrashed` and `OnHold`.
        """
        async with self._db.begin() as tx:
            model, version = await self._found(tx, actor, name, number, Scope.ADMIN)
            return await self._purge(tx, actor, model, version, check_reason(reason, needed=True))

    async def changes(
        self, actor: Actor, name: str, number: int | None = None, *, limit: int, before: str | None = None
    ) -> list[Change]:
        """List what happened in the life of a model, or of one of its versions, newest first."""
        async with self._db.read() as tx:
            model = await found_model(tx, actor, name)
            version_id = None if number is None else (await found_version(tx, model, number)).id
            return await store.page_of_changes(tx, model.id, version_id, limit=limit, before=before)

    async def erasures(self, actor: Actor, *, limit: int, before: str | None = None) -> list[Erasure]:
        """List the records of what was purged, newest first."""
        actor.need(Scope.AUDIT_READ)
        async with self._db.read() as tx:
            return await store.page_of_erasures(tx, limit=limit, before=before)

    async def lineage(self, actor: Actor, name: str, number: int, *, depth: int) -> Lineage:
        """Return where a version came from and what came of it, up to so many steps, as far as the actor may see that."""
        depth = min(depth, DEEPEST)
        async with self._db.read() as tx:
            version = await found_version(tx, await found_model(tx, actor, name), number)
            above, all_above = await self._ancestors(tx, actor, version, depth)
            below, all_below = await self._descendants(tx, actor, version, depth)
        return Lineage(_related(version, 0), tuple(above), tuple(below), all_above and all_below)

    async def expire(self) -> int:
        """Begin to purge what has been in the trash for its time, and see to it that the worker goes on with every purge.

        Returns how many began. What is on hold stays.
        """
        async with self._db.read() as tx:
            old = await store.trashed_before(tx, self._clock() - self._keep, limit=_AT_ONCE)
        for name, number in old:
            async with self._db.begin() as tx:
                model, version = await self._found(tx, SYSTEM, name, number)
                thing = version or model
                if thing.trashed_at is not None and thing.trashed_at <= self._clock() - self._keep:  # it may be back by now
                    await self._purge(tx, SYSTEM, model, version, _TIME_OVER)
        async with self._db.begin() as tx:
            for erasure_id in await store.unfinished_erasures(tx):
                if not await self._jobs.waits(tx, PURGE_VERSION, erasure_id):
                    await self._jobs.enqueue(tx, PURGE_VERSION, erasure_id)
        return len(old)

    async def finish_job(self, job_id: str, *, failed: bool = False) -> None:
        """Note that a job has ended."""
        async with self._db.begin() as tx:
            await self._jobs.finish(tx, job_id, failed=failed)

    async def used(self, tx: Transaction) -> set[str]:
        """Return the files that versions name which are not being purged, those of rejected ones included."""
        found = await store.files(tx, _EVER, purging=False)
        return set(found.used)

    async def erasure(self, erasure_id: str) -> tuple[Erasure | None, set[str]]:
        """Return the record of a purge, and the files that its version names."""
        async with self._db.read() as tx:
            found = await store.erasure(tx, erasure_id)
            return found, set() if found is None else await store.named_files(tx, found.version_id)

    async def measured(self, erasure_id: str, files: Iterable[ErasedFile], kept: Iterable[str]) -> Erasure:
        """Keep what a purge is about to remove, before it removes anything; what was kept so before stays."""
        async with self._db.begin() as tx:
            found = await store.erasure(tx, erasure_id)
            if found is not None and found.bytes_before is not None:
                return found
            named = tuple(sorted(files, key=lambda one: one.digest))
            size = sum(one.size for one in named)
            return await store.change_erasure(tx, erasure_id, files=named, kept=tuple(sorted(kept)), bytes_before=size)

    async def erased(self, erasure: Erasure, *, left: int) -> None:
        """Note that the files of a purge are gone, and leave a tombstone of its version, and of its model with the last one."""
        async with self._db.begin() as tx:
            model, version = await version_for_update(tx, erasure.version_id)
            if version.purged_at is not None:
                return
            now = self._clock()
            done = await store.change_erasure(tx, erasure.id, bytes_after=left, finished_at=now)
            sizes = {"bytes_before": str(done.bytes_before), "bytes_after": str(left), "erasure": erasure.id}
            await self._note(tx, _Step(SYSTEM, model, version, "purged", done.reason), Life.PURGED, **sizes)
            await store.bury(tx, version.id, now)
            if model.purging_at is not None and not await store.unpurged(tx, model.id):
                await self._bury(tx, model, done.reason)

    async def _found(
        self, tx: Transaction, actor: Actor, name: str, number: int | None, scope: Scope = Scope.MODELS_WRITE
    ) -> tuple[Model, Version | None]:
        """Return a model, whose row is kept to `tx`, and one of its versions."""
        model = await found_model(tx, actor, name, scope, for_update=True)
        return model, None if number is None else await found_version(tx, model, number)

    async def _purge(self, tx: Transaction, actor: Actor, model: Model, version: Version | None, reason: str) -> list[Erasure]:
        thing = version or model
        if thing.purging_at is not None:
            return await store.erasures_of(tx, model.id, version.id if version else None)
        if thing.trashed_at is None:
            raise NotTrashed
        await self._check_not_held(tx, model, version)
        await self._approvals.need(tx, actor, putting_away("purge", model, version, Scope.ADMIN))
        now = self._clock()
        gone = [version] if version else await store.unpurged(tx, model.id)
        if version is None:
            await self._change(tx, _Step(actor, model, None, "purge", reason), purging_at=now)
        for one in gone:
            if one.purging_at is None:
                await self._change(tx, _Step(actor, model, one, "purge", reason), purging_at=now)
                erasure = _erasure(model, one, reason, now, actor.name)
                await store.add_erasure(tx, erasure)
                await self._jobs.enqueue(tx, PURGE_VERSION, erasure.id)
        if not gone:
            await self._bury(tx, model, reason)
        return await store.erasures_of(tx, model.id, version.id if version else None)

    async def _bury(self, tx: Transaction, model: Model, reason: str) -> None:
        buried = await store.bury_model(tx, model, self._clock())
        await self._note(tx, _Step(SYSTEM, model, None, "purged", reason), Life.PURGED)
        await self._events.publish(tx, ModelPurged(model.id, buried.name))

    async def _put(self, tx: Transaction, step: _Step, **at: datetime | None) -> Model | Version:
        """Put a thing away, or back: what its model answers with may be another then."""
        changed = await self._change(tx, step, **at)
        if step.version is None:
            await self._events.publish(tx, ModelArchiveChanged(step.model.id))
        return changed

    async def _change(self, tx: Transaction, step: _Step, **to: object) -> Model | Version:
        """Change a thing, and write down who did what, and why."""
        changed: Model | Version
        if step.version is None:
            after = await store.change_model(tx, step.model.id, **to)
            changed = msgspec.structs.replace(after, aliases=step.model.aliases)
        else:
            await store.change_version(tx, step.version.id, **to)
            changed = await found_version(tx, step.model, step.version.number)
        await self._note(tx, step, changed.life)
        return changed

    async def _note(self, tx: Transaction, step: _Step, after: Life, **details: str) -> None:
        what, thing = ("model", step.model) if step.version is None else ("version", step.version)
        number, version_id = (None, None) if step.version is None else (step.version.number, step.version.id)
        change = Change(
            new_id("chg"),
            step.model.id,
            version_id,
            number,
            step.change,
            thing.life,
            after,
            step.reason,
            self._clock(),
            step.actor.name,
            step.actor.user,
        )
        await store.add_change(tx, change)
        said = details | ({"reason": step.reason} if step.reason else {})
        await self._audit.note(tx, step.actor, f"{what}.{step.change}", thing.id, before=thing.life, after=after, **said)

    async def _check_unreferred(self, tx: Transaction, model: Model, version: Version) -> None:
        found = referring(model, version)
        for ask in self.referrers:
            found += [one for one in await ask(tx, version.id) if one not in found]
        if found:
            raise VersionInUse(f"Version {version.number} of {model.name} is in use: {'; '.join(found)}. End that first.")

    async def _check_model_unused(self, tx: Transaction, model: Model) -> None:
        validated = await store.numbers_where(tx, model.id, unvalidated=True)
        if validated:
            raise ModelInUse(f"Versions are being validated: {_listed(validated)}. Wait for that to end.")
        if model.archived_at is None and model.serving_version is not None:
            raise ModelInUse(f"{model.name} answers with version {model.serving_version}: archive it first.")

    async def _check_not_held(self, tx: Transaction, model: Model, version: Version | None) -> None:
        if model.hold is not None:
            raise OnHold(f"A legal hold is on the model {model.name} since {model.hold.at:%Y-%m-%d}: {model.hold.reason}")
        if version is not None and version.hold is not None:
            raise OnHold(f"A legal hold is on version {version.number} since {version.hold.at:%Y-%m-%d}: {version.hold.reason}")
        held = await store.numbers_where(tx, model.id, held=True) if version is None else []
        if held:
            raise OnHold(f"Legal holds are on versions of {model.name}: {_listed(held)}.")

    async def _ancestors(self, tx: Transaction, actor: Actor, version: Version, depth: int) -> tuple[list[Related], bool]:
        found: list[Related] = []
        parent_id = version.parent_id
        while parent_id is not None and len(found) < depth:
            parent = await store.version_by_id(tx, parent_id)
            if parent is None or not await may_see(tx, actor, {parent.model_id}):
                break
            found.append(_related(parent, len(found) + 1))
            parent_id = parent.parent_id
        return found, parent_id is None

    async def _descendants(self, tx: Transaction, actor: Actor, version: Version, depth: int) -> tuple[list[Related], bool]:
        """Return them, and whether there are no more: a version comes after its parent, so there are no circles."""
        found: list[Related] = []
        last, complete = [version.id], True
        for steps in range(1, depth + 2):
            children = await store.children(tx, last)
            seen = await may_see(tx, actor, {one.model_id for one in children})
            shown = [one for one in children if one.model_id in seen]
            complete = complete and len(shown) == len(children) < store.MOST_CHILDREN
            if steps > depth or not shown or len(found) >= store.MOST_CHILDREN:
                return found, complete and not shown
            found += [_related(one, steps) for one in shown]
            last = [one.id for one in shown]
        return found, complete


def _check_there(model: Model, version: Version | None) -> Model | Version:
    """Return the version, or the model; refuse what is in the trash, or being purged, itself or with its model."""
    thing = version or model
    if thing.purging_at is not None:
        raise Purged
    if model.trashed_at is not None:
        raise ModelTrashed
    if version is not None and version.trashed_at is not None:
        raise VersionTrashed
    return thing


def _check_in_use(model: Model, version: Version | None) -> None:
    """Refuse what was put away."""
    if _check_there(model, version).archived_at is not None:
        raise ModelArchived if version is None else VersionArchived


def _erasure(model: Model, version: Version, reason: str, now: datetime, by: str) -> Erasure:
    return Erasure(
        new_id("ers"), model.id, model.name, version.id, version.number, version.digest, reason, asked_at=now, asked_by=by
    )


def _related(version: Version, steps: int) -> Related:
    return Related(
        version.id,
        version.model,
        version.number,
        version.life,
        version.digest,
        steps,
        version.parent_id,
        version.created_at,
        version.created_by,
        version.training,
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)
