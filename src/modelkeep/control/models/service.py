"""Models, their versions and aliases: what was uploaded, what validation said, what is kept, and which names point to it.

How they are put away, and what is left of them then, is in `lifecycle.py`.
"""

from datetime import datetime
from typing import Final

import msgspec

from modelkeep.contracts.access import Place, Scope, reach, sees
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name, in_names
from modelkeep.contracts.rejections import Rejection
from modelkeep.contracts.signature import Signature
from modelkeep.control.access.errors import WorkspaceInUse
from modelkeep.control.access.rules import DEFAULT_WORKSPACE
from modelkeep.control.access.service import Access
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.models import store
from modelkeep.control.models.aliases import Alias, Move, check_alias, goes_back, point, pointing, remove
from modelkeep.control.models.errors import AliasNotFound, ModelExists, ModelNotFound, Purged
from modelkeep.control.models.events import AliasMoved, ModelCreated, ModelMoved, VersionBecameReady
from modelkeep.control.models.finding import found_model, found_parent, found_version, version_for_update, with_aliases
from modelkeep.control.models.rules import (
    Files,
    Findings,
    Model,
    State,
    Upload,
    Version,
    check_description,
    check_open,
    check_promotable,
    files_of,
    removing,
)
from modelkeep.infra.blob_claims import hold
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events
from modelkeep.infra.jobs import Jobs

VALIDATE_VERSION: Final = "validate_version"


class Models:
    """Models, their numbered versions, and the life of each."""

    def __init__(
        self, *, db: Database, audit: Audit, access: Access, approvals: Approvals, events: Events, jobs: Jobs, clock: Clock
    ) -> None:
        self._db = db
        self._audit = audit
        self._access = access
        self._approvals = approvals
        self._events = events
        self._jobs = jobs
        self._clock = clock

    async def create(self, actor: Actor, name: str, description: str = "", *, workspace_id: str = DEFAULT_WORKSPACE) -> Model:
        """Create a model in a workspace, and with it the deployment of its name."""
        async with self._db.begin() as tx:
            model = await self._create(tx, actor, name, description, workspace_id)
        if model is None:
            raise ModelExists
        return model

    async def model(self, actor: Actor, name: str) -> Model:
        """Return one model."""
        async with self._db.read() as tx:
            return await found_model(tx, actor, name)

    async def models(
        self,
        actor: Actor,
        *,
        limit: int,
        after: str | None = None,
        archived: bool = False,
        trashed: bool = False,
        search: str = "",
    ) -> list[Model]:
        """List the models that the actor may see, by name; `archived` ones too, or not; or those in the trash (`trashed`).

        `search`: those alone whose names have it in them; upper and lower case are alike.
        """
        part = search.lower()
        if not in_names(part):
            return []
        reached = reach(actor.standing)
        async with self._db.read() as tx:
            found = await store.page_of_models(
                tx, reached, limit=limit, after=after, archived=archived, trashed=trashed, search=part
            )
            return await with_aliases(tx, found)

    async def place(self, actor: Actor, name: str) -> Place:
        """Return where a model lies and whose it is, to one who may know that it is there."""
        async with self._db.read() as tx:
            found = await store.model(tx, name)
        if found is None or not sees(actor.standing, found.place):
            raise ModelNotFound
        return found.place

    async def place_of(self, model_id: str) -> Place:
        """Return where a model lies and whose it is."""
        async with self._db.read() as tx:
            return (await self.places(tx, {model_id}))[model_id]

    async def places(self, tx: Transaction, model_ids: set[str]) -> dict[str, Place]:
        """Return where these models lie and whose they are, by their ids."""
        return {one.id: one.place for one in await store.models_by_id(tx, model_ids)}

    async def reached(self, tx: Transaction, actor: Actor, scope: Scope | None = None) -> dict[str, str] | None:
        """Return the names of the models with which the actor may do this (None: that they may see), by id; None for all."""
        reached = reach(actor.standing) if scope is None else reach(actor.standing, (scope,))
        everywhere = reached.everything and reached.only is None
        return None if everywhere else await store.reached_models(tx, reached)

    async def move(self, actor: Actor, name: str, workspace_id: str | None = None, *, owner_id: str | None = None) -> Model:
        """Move a model into another workspace, make another person its owner, or both, as one change.

        Those with a role on a workspace may from now on what their roles give; an owner may all with it.
        """
        async with self._db.begin() as tx:
            model = changed = await found_model(tx, actor, name, Scope.MODELS_WRITE, for_update=True)
            if workspace_id is not None:
                actor.need(Scope.ADMIN, model.place)
                actor.need(Scope.MODELS_WRITE, Place(workspace_id))
                await self._access.keep(tx, workspace_id)
            if owner_id is not None and not actor.may(Scope.ADMIN, model.place):
                if model.owner_id != actor.user:
                    actor.need(Scope.ADMIN, model.place)
                actor.carry_all()
            if workspace_id is not None and workspace_id != model.workspace_id:
                changed = await store.change_model(tx, model.id, workspace_id=workspace_id)
                moved = {"from_workspace": model.workspace_id, "to_workspace": workspace_id}
                await self._audit.note(tx, actor, "model.move", model.id, **moved)
            if owner_id is not None:
                changed = await store.change_model(tx, model.id, owner_id=owner_id)
                handed = {"from_owner": model.owner_id or "", "to_owner": owner_id}
                about = f"{handed['from_owner']} {owner_id}"
                await self._audit.note(tx, actor, "model.give", model.id, about=about, **handed)
            if changed is not model:
                await self._events.publish(tx, ModelMoved(model.id))
            return msgspec.structs.replace(changed, aliases=model.aliases)

    async def remove_workspace(self, actor: Actor, name: str) -> None:
        """Remove a workspace; raises `WorkspaceInUse` while models lie in it."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            found = await self._access.workspace_in(tx, name)
            if await store.count_models(tx, found.id):
                raise WorkspaceInUse
            await self._approvals.need(tx, actor, removing(found))
            await self._access.remove_workspace(tx, actor, found)

    async def describe(self, actor: Actor, name: str, description: str) -> Model:
        """Change a model's description."""
        async with self._db.begin() as tx:
            model = await found_model(tx, actor, name, Scope.MODELS_WRITE, for_update=True)
            changed = await store.change_model(tx, model.id, description=check_description(description))
            was, now = model.description, changed.description
            await self._audit.note(tx, actor, "model.describe", model.id, before=was, after=now)
            return msgspec.structs.replace(changed, aliases=model.aliases)

    async def expect_upload(self, actor: Actor, name: str, *, create_in: str | None = None) -> Place:
        """Refuse an upload before its first byte is read, when it is to no model, to an archived one, or one may not.

        Return where it goes: the model's place, or that of the workspace with the id `create_in`, in which a new one is made.
        """
        check_name(name)
        async with self._db.read() as tx:
            there = await store.model(tx, name)
            if there is not None or create_in is None:
                model = await found_model(tx, actor, name, Scope.MODELS_WRITE)
                check_open(model)
                return model.place
        place = Place(create_in)
        actor.need(Scope.MODELS_WRITE, place)
        return place

    async def receive(
        self, actor: Actor, name: str, upload: Upload, *, create_in: str | None = None, into: Place | None = None
    ) -> Version:
        """Make a stored upload the next version of a model and ask for its validation.

        A model that is not there yet is made in the same moment in the workspace `create_in`, with the version's description.
        `into` is what `expect_upload` said; raises `ModelExists` where the name means another place by now, for which nobody
        has decided. Raises `BeingRemoved` where what was stored is gone by now.
        """
        version_id = new_id("ver")
        async with self._db.begin() as tx:
            if create_in is not None and await store.model(tx, name) is None:
                await self._create(tx, actor, name, upload.description, create_in)
            model = await found_model(tx, actor, name, Scope.MODELS_WRITE, for_update=True)
            check_open(model)
            if into is not None and (into.workspace != model.workspace_id or into.model not in {"", model.id}):
                raise ModelExists
            parent_id = await found_parent(tx, actor, model, upload.parent)
            version = self._new_version(version_id, model, upload, actor, parent_id)
            await store.change_model(tx, model.id, latest_version=version.number)
            await store.add_version(tx, version, upload)
            await hold(tx, files_of(version), self._clock())
            await self._jobs.enqueue(tx, VALIDATE_VERSION, version.id)
            brought = {"digest": version.digest} | ({"hooks": version.hooks.digest} if version.hooks else {})
            await self._audit.note(tx, actor, "version.upload", version.id, number=str(version.number), **brought)
        return version

    async def version(self, actor: Actor, name: str, number: int, scope: Scope = Scope.MODELS_READ) -> Version:
        """Return one version of a model with which the actor may do what `scope` names."""
        async with self._db.read() as tx:
            return await found_version(tx, await found_model(tx, actor, name, scope), number)

    async def versions(
        self, actor: Actor, name: str, *, limit: int, before: int | None = None, trashed: bool = False
    ) -> list[Version]:
        """List versions of a model, newest first; `trashed`: those in the trash instead."""
        async with self._db.read() as tx:
            model = await found_model(tx, actor, name)
            return await store.page_of_versions(tx, model.id, limit=limit, before=before, trashed=trashed)

    async def labels(self, version_id: str) -> tuple[str, ...]:
        """Return a version's labels, in class order."""
        async with self._db.read() as tx:
            return (await store.labels(tx, [version_id])).get(version_id, ())

    async def describe_version(self, actor: Actor, name: str, number: int, description: str) -> Version:
        """Change a version's description."""
        async with self._db.begin() as tx:
            model = await found_model(tx, actor, name, Scope.MODELS_WRITE, for_update=True)
            version = await found_version(tx, model, number)
            if version.purging_at is not None:
                raise Purged
            await store.change_version(tx, version.id, description=check_description(description))
            described = await found_version(tx, model, number)
            was, now = version.description, described.description
            await self._audit.note(tx, actor, "version.describe", version.id, before=was, after=now)
            return described

    async def aliases(self, actor: Actor, name: str) -> list[Alias]:
        """List the aliases of a model, by name."""
        async with self._db.read() as tx:
            return await store.aliases_of(tx, [(await found_model(tx, actor, name)).id])

    async def set_alias(self, actor: Actor, name: str, alias: str, number: int, *, expected: int | None = None) -> Alias:
        """Have an alias point to a ready version of its model, made where it is new; its history keeps where it pointed.

        `expected` is the revision that the actor has seen, 0 for an alias that is not there: if it is not the present one,
        nothing changes and `Stale` is raised. Pointing it to where it points already changes nothing.
        """
        check_alias(alias)
        async with self._db.begin() as tx:
            version = await self.promotable(tx, actor, name, number, Scope.DEPLOYMENTS_WRITE)
            there = await store.aliases_of(tx, [version.model_id])
            moves = await store.last_move(tx, version.model_id, alias)
            after, move = point(there, alias, version, moves=moves, expected=expected, by=actor.name, now=self._clock())
            if move is not None:
                last = await store.page_of_moves(tx, version.model_id, alias, limit=1, before=None)
                if not goes_back(move, last[0] if last else None):
                    model = await found_model(tx, actor, name, Scope.DEPLOYMENTS_WRITE)
                    await self._approvals.need(tx, actor, pointing(model, move))
                await self._move_alias(tx, actor, after, move)
            return after

    async def delete_alias(self, actor: Actor, name: str, alias: str, *, expected: int | None = None) -> None:
        """Delete an alias; its history stays. `expected` as in `set_alias`."""
        async with self._db.begin() as tx:
            model = await found_model(tx, actor, name, Scope.DEPLOYMENTS_WRITE, for_update=True)
            present = await store.alias(tx, model.id, alias)
            if present is None:
                raise AliasNotFound
            move = remove(present, expected=expected, by=actor.name, now=self._clock())
            await self._approvals.need(tx, actor, pointing(model, move))
            await self._move_alias(tx, actor, None, move)

    async def alias_history(self, actor: Actor, name: str, alias: str, *, limit: int, before: int | None = None) -> list[Move]:
        """List where an alias has pointed, newest first, with revisions below `before`; what was deleted keeps its history."""
        async with self._db.read() as tx:
            model = await found_model(tx, actor, name)
            if not await store.last_move(tx, model.id, alias):
                raise AliasNotFound
            return await store.page_of_moves(tx, model.id, alias, limit=limit, before=before)

    async def pointed_to(self, tx: Transaction, model_ids: set[str]) -> dict[str, dict[str, str]]:
        """Return, for each of these models that has aliases, ids of versions by the names that point to them."""
        found: dict[str, dict[str, str]] = {}
        for alias in await store.aliases_of(tx, model_ids):
            found.setdefault(alias.model_id, {})[alias.name] = alias.version_id
        return found

    async def begin_validation(self, version_id: str) -> Version | None:
        """Note that a version is being validated and return it; None when that is over."""
        async with self._db.begin() as tx:
            if not await store.begin_validation(tx, version_id):
                return None
            return await store.version_by_id(tx, version_id)

    async def accept(self, version_id: str, findings: Findings, job_id: str) -> None:
        """Make a version ready; its job is done in the same moment. Raises `BeingRemoved` where a file of it is gone."""
        async with self._db.begin() as tx:
            model, version = await version_for_update(tx, version_id)
            if await store.accept(tx, version_id, findings, self._clock()):
                report, compiled, hooks = findings.report, findings.compiled, findings.hooks or version.hooks
                made = msgspec.structs.replace(version, report=report, compiled=compiled, hooks=hooks)
                await hold(tx, files_of(made), self._clock())
                await self._audit.note(tx, SYSTEM, "version.ready", version_id, before=version.state, after=State.READY)
                archived = any(at is not None for one in (model, version) for at in (one.archived_at, one.trashed_at))
                await self._events.publish(tx, VersionBecameReady(model.id, model.name, version_id, version.number, archived))
            await self._jobs.finish(tx, job_id)

    async def reject(self, version_id: str, rejection: Rejection, job_id: str, *, failed: bool = False) -> None:
        """Reject a version with a reason for its uploader; `failed` says that the job itself was given up."""
        async with self._db.begin() as tx:
            _model, version = await version_for_update(tx, version_id)
            if await store.reject(tx, version_id, rejection, self._clock()):
                await self._audit.note(
                    tx, SYSTEM, "version.reject", version_id, before=version.state, after=State.REJECTED, code=rejection.code
                )
            await self._jobs.finish(tx, job_id, failed=failed, detail=rejection.detail if failed else "")

    async def finish_job(self, job_id: str) -> None:
        """Note that there is nothing left to do for a job."""
        async with self._db.begin() as tx:
            await self._jobs.finish(tx, job_id)

    async def promotable(self, tx: Transaction, actor: Actor, name: str, number: int, scope: Scope) -> Version:
        """Return a version that may serve, keeping its model's row to `tx`; raises what speaks against it, or the actor."""
        model = await found_model(tx, actor, name, scope, for_update=True)
        version = await found_version(tx, model, number)
        check_promotable(model, version)
        return version

    async def held(self, tx: Transaction, model_id: str) -> Model:
        """Return a model, keeping its row, and so its versions and its deployments, to `tx`."""
        found = await store.model_by_id(tx, model_id, for_update=True)
        if found is None:
            raise ModelNotFound
        return found

    async def named(self, tx: Transaction, model: str, references: set[str]) -> dict[str, str]:
        """Return the ids of a model's versions by what they are called, numbers or aliases; what is neither is left out."""
        return await store.named_versions(tx, model, references)

    async def aliases_at(self, tx: Transaction, model_id: str, at: datetime) -> dict[str, int]:
        """Return the numbers of versions by the aliases that pointed to them at a moment."""
        return await store.aliases_at(tx, model_id, at)

    async def note_serving(self, tx: Transaction, model_id: str, number: int) -> None:
        """Note which version the deployment of a model's own name now answers with."""
        await store.change_model(tx, model_id, serving_version=number)

    async def files(self, tx: Transaction, rejected_before: datetime, *, purging: bool = True) -> Files:
        """Return the files that versions name; those that only versions rejected before then do are released.

        Those of versions that are being purged count too, or not.
        """
        return await store.files(tx, rejected_before, purging=purging)

    async def open_models(self, tx: Transaction) -> set[str]:
        """Return the ids of the models that are not put away."""
        return await store.open_models(tx)

    async def served(self, tx: Transaction, version_ids: set[str]) -> list[tuple[Version, tuple[str, ...]]]:
        """Return these versions with their labels, for a snapshot made in `tx`. A deprecated model's are so, too."""
        found = await store.versions_by_id(tx, version_ids)
        of_models = {one.id: one.deprecation for one in await store.models_by_id(tx, {one.model_id for one in found})}
        said = [msgspec.structs.replace(one, deprecation=one.deprecation or of_models[one.model_id]) for one in found]
        labels = await store.labels(tx, version_ids)
        return [(one, labels[one.id]) for one in said]

    async def signature(self, tx: Transaction, version_id: str | None) -> Signature | None:
        """Return what goes into a version and comes out of it; None without one."""
        version = None if version_id is None else await store.version_by_id(tx, version_id)
        return None if version is None else version.signature

    async def numbers(self, tx: Transaction, version_ids: set[str]) -> dict[str, int]:
        """Return the numbers of these versions by their ids."""
        return {one.id: one.number for one in await store.versions_by_id(tx, version_ids)}

    async def _create(self, tx: Transaction, actor: Actor, name: str, description: str, workspace_id: str) -> Model | None:
        """Add a model; None where its name is taken.

        The history of a purged model goes by its name: whoever could not read that does not come by it through the name.
        """
        actor.need(Scope.MODELS_WRITE, Place(workspace_id))
        if not all(actor.may(Scope.PREDICTIONS_READ, one.place) for one in await store.buried(tx, name)):
            return None
        await self._access.keep(tx, workspace_id)
        model = Model(
            new_id("mdl"),
            check_name(name),
            check_description(description),
            self._clock(),
            actor.name,
            workspace_id=workspace_id,
            owner_id=actor.user or None,
        )
        if not await store.add_model(tx, model):
            return None
        await self._audit.note(tx, actor, "model.create", model.id, after=description, name=name, workspace=workspace_id)
        await self._events.publish(tx, ModelCreated(model.id, model.name))
        return model

    async def _move_alias(self, tx: Transaction, actor: Actor, after: Alias | None, move: Move) -> None:
        """Write a move down: the alias, its history, the audit trail, and the news of it, in one transaction."""
        await store.move_alias(tx, after, move)
        where = {"before": move.from_version, "after": move.to_version, "revision": move.revision}
        details = {"alias": move.alias} | {name: str(number) for name, number in where.items() if number is not None}
        await self._audit.note(tx, actor, "alias.delete" if after is None else "alias.set", move.model_id, **details)
        await self._events.publish(tx, AliasMoved(move.model_id, move.alias, move.to_version_id))

    def _new_version(self, version_id: str, model: Model, upload: Upload, actor: Actor, parent_id: str | None) -> Version:
        return Version(
            id=version_id,
            model_id=model.id,
            model=model.name,
            number=(model.latest_version or 0) + 1,
            state=State.RECEIVED,
            format=upload.format,
            runner=upload.runner,
            filename=upload.filename,
            size=upload.blob.size,
            digest=upload.blob.digest,
            description=check_description(upload.description),
            created_at=self._clock(),
            created_by=actor.name,
            labels=None if upload.labels is None else len(upload.labels),
            image=upload.image,
            sample=upload.sample,
            compile=upload.compile,
            optimise=upload.optimise,
            calibration=upload.calibration,
            accuracy_budget=upload.accuracy_budget,
            hooks=upload.hooks,
            parent_id=parent_id,
            training=upload.training,
        )
