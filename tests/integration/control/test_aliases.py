"""Aliases, over each kind of database."""

import asyncio
import itertools

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, Rings, TestClock, ready_version, upload
from fixtures.standings import through
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, InvalidName
from modelkeep.contracts.snapshot import Snapshot, decode_snapshot
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.control.models import errors
from modelkeep.infra import broadcast
from modelkeep.infra.db import Database

READER = Actor("key_reader", "bob", "usr_b", through(Scope.MODELS_READ, user="usr_b"))
EVA = Actor("key_eva", "eva", "usr_e", through(Scope.DEPLOYMENTS_WRITE, user="usr_e"), "req_eva")


async def snapshot(db: Database) -> Snapshot:
    async with db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, -1)
    assert news is not None
    return decode_snapshot(news.payload)


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with two ready versions, of which the first is promoted."""
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")
    await ready_version(control, "iris", b"two")


async def test_an_alias_is_made_moved_and_deleted_and_its_history_stays(
    control: ControlPlane, iris: None, clock: TestClock, db: Database
):
    made = await control.models.set_alias(ADMIN, "iris", "champion", 1)
    assert (made.name, made.version, made.revision, made.changed_at, made.changed_by) == ("champion", 1, 1, clock(), "ada")
    clock.advance(minutes=1)
    moved_at = clock()
    moved = await control.models.set_alias(EVA, "iris", "champion", 2)
    assert (moved.version, moved.revision, moved.changed_by) == (2, 2, "eva")
    assert await control.models.aliases(ADMIN, "iris") == [moved]
    assert (await control.models.model(ADMIN, "iris")).aliases == {"champion": 2}
    await control.models.delete_alias(ADMIN, "iris", "champion")
    assert await control.models.aliases(ADMIN, "iris") == []
    again = await control.models.set_alias(ADMIN, "iris", "champion", 2)
    assert again.revision == 4
    history = await control.models.alias_history(ADMIN, "iris", "champion", limit=9)
    assert [(one.revision, one.from_version, one.to_version, one.by) for one in history] == [
        (4, None, 2, "ada"),
        (3, 2, None, "ada"),
        (2, 1, 2, "eva"),
        (1, None, 1, "ada"),
    ]
    assert history[2].at == moved_at
    assert (history[2].from_version_id, history[2].to_version_id) == (made.version_id, moved.version_id)
    assert [one.revision for one in await control.models.alias_history(ADMIN, "iris", "champion", limit=2, before=4)] == [3, 2]


async def test_each_move_is_audited_and_told_to_serving_in_its_transaction(
    control: ControlPlane, iris: None, db: Database, rings: Rings
):
    before, rung = await snapshot(db), rings.courier
    made = await control.models.set_alias(EVA, "iris", "canary", 2)
    after = await snapshot(db)
    assert (after.number, rings.courier) == (before.number + 1, rung + 1)
    (deployment,) = after.deployments
    assert (deployment.version_id, deployment.aliases) == (before.deployments[0].version_id, {"canary": made.version_id})
    assert sorted(version.number for version in after.versions) == [1, 2]
    await control.models.delete_alias(ADMIN, "iris", "canary")
    assert [version.number for version in (await snapshot(db)).versions] == [1]
    deleted, set_ = await control.audit.entries(limit=2, target=made.model_id)
    assert (set_.action, set_.actor, set_.request_id) == ("alias.set", "key_eva", "req_eva")
    assert (set_.details, set_.before, set_.after) == ({"alias": "canary", "revision": "1"}, None, "2")
    assert (deleted.action, deleted.details) == ("alias.delete", {"alias": "canary", "revision": "2"})
    assert (deleted.before, deleted.after) == ("2", None)


async def test_pointing_where_it_points_already_changes_nothing(control: ControlPlane, iris: None, db: Database):
    made = await control.models.set_alias(ADMIN, "iris", "champion", 1)
    before, entries = await snapshot(db), await control.audit.entries(limit=50)
    assert await control.models.set_alias(EVA, "iris", "champion", 1) == made
    assert await snapshot(db) == before
    assert await control.audit.entries(limit=50) == entries
    assert len(await control.models.alias_history(ADMIN, "iris", "champion", limit=9)) == 1


async def test_what_is_refused_changes_nothing(control: ControlPlane, iris: None, db: Database):
    await control.models.set_alias(ADMIN, "iris", "champion", 1)
    await control.models.receive(ADMIN, "iris", upload(b"three"))
    before, entries = await snapshot(db), await control.audit.entries(limit=50)
    refused = [
        (control.models.set_alias(ADMIN, "iris", "champion", 2, expected=0), errors.AliasStale),
        (control.models.set_alias(ADMIN, "iris", "canary", 2, expected=1), errors.AliasStale),
        (control.models.set_alias(ADMIN, "iris", "champion", 3), errors.VersionNotReady),
        (control.models.set_alias(ADMIN, "iris", "champion", 4), errors.VersionNotFound),
        (control.models.set_alias(ADMIN, "rose", "champion", 1), errors.ModelNotFound),
        (control.models.set_alias(ADMIN, "iris", "v2", 2), errors.InvalidAlias),
        (control.models.set_alias(ADMIN, "iris", "No!", 2), InvalidName),
        (control.models.set_alias(READER, "iris", "champion", 2), Forbidden),
        (control.models.delete_alias(READER, "iris", "champion"), Forbidden),
        (control.models.delete_alias(ADMIN, "iris", "champion", expected=2), errors.AliasStale),
        (control.models.delete_alias(ADMIN, "iris", "canary"), errors.AliasNotFound),
        (control.models.delete_alias(ADMIN, "rose", "champion"), errors.ModelNotFound),
        (control.models.alias_history(ADMIN, "iris", "canary", limit=9), errors.AliasNotFound),
        (control.models.alias_history(ADMIN, "rose", "champion", limit=9), errors.ModelNotFound),
        (control.models.aliases(ADMIN, "rose"), errors.ModelNotFound),
    ]
    for attempt, error in refused:
        with pytest.raises(error):
            await attempt
    assert await snapshot(db) == before
    assert await control.audit.entries(limit=50) == entries
    assert (await control.models.model(ADMIN, "iris")).aliases == {"champion": 1}


async def test_a_version_that_an_alias_points_to_is_not_archived(control: ControlPlane, iris: None):
    await control.models.set_alias(ADMIN, "iris", "canary", 2)
    with pytest.raises(errors.VersionInUse, match="canary"):
        await control.lifecycle.archive(ADMIN, "iris", 2)
    await control.models.set_alias(ADMIN, "iris", "canary", 1)
    await control.lifecycle.archive(ADMIN, "iris", 2)
    with pytest.raises(errors.VersionArchived):
        await control.models.set_alias(ADMIN, "iris", "canary", 2)


async def test_an_archived_models_aliases_answer_no_more_and_again_once_it_is_restored(
    control: ControlPlane, iris: None, db: Database
):
    await control.models.set_alias(ADMIN, "iris", "canary", 2)
    assert (await control.lifecycle.archive(ADMIN, "iris")).aliases == {"canary": 2}
    assert (await snapshot(db)).versions == ()
    with pytest.raises(errors.ModelArchived):
        await control.models.set_alias(ADMIN, "iris", "canary", 1)
    await control.lifecycle.restore(ADMIN, "iris")
    assert (await snapshot(db)).deployments[0].aliases.keys() == {"canary"}
    await control.lifecycle.archive(ADMIN, "iris")
    await control.models.delete_alias(ADMIN, "iris", "canary")
    assert (await control.models.model(ADMIN, "iris")).aliases == {}


async def test_moves_at_once_are_moves_one_after_another(control: ControlPlane, iris: None):
    numbers = [1 + turn % 2 for turn in range(10)]
    await asyncio.gather(*(control.models.set_alias(ADMIN, "iris", "champion", number) for number in numbers))
    history = await control.models.alias_history(ADMIN, "iris", "champion", limit=50)
    assert [one.revision for one in history] == list(range(len(history), 0, -1))
    for newer, older in itertools.pairwise(history):
        assert newer.from_version == older.to_version
    (alias,) = await control.models.aliases(ADMIN, "iris")
    assert (alias.version, alias.revision) == (history[0].to_version, history[0].revision)


async def test_an_alias_that_is_set_while_its_version_is_archived_never_points_to_an_archived_one(
    control: ControlPlane, iris: None
):
    results = await asyncio.gather(
        control.models.set_alias(ADMIN, "iris", "canary", 2),
        control.lifecycle.archive(ADMIN, "iris", 2),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Exception) for one in results) == 1
    aliased = (await control.models.model(ADMIN, "iris")).aliases.get("canary") == 2
    assert ((await control.models.version(ADMIN, "iris", 2)).archived_at is None) == aliased


async def test_models_are_listed_each_with_its_own_aliases(control: ControlPlane, iris: None):
    await control.models.create(ADMIN, "rose")
    await ready_version(control, "rose", b"rose")
    await control.models.set_alias(ADMIN, "iris", "canary", 2)
    await control.models.set_alias(ADMIN, "rose", "canary", 1)
    found = await control.models.models(ADMIN, limit=9)
    assert [(one.name, one.aliases) for one in found] == [("iris", {"canary": 2}), ("rose", {"canary": 1})]
    assert (await control.models.describe(ADMIN, "iris", "x")).aliases == {"canary": 2}


async def test_two_rows_of_history_with_one_number_cannot_be(control: ControlPlane, iris: None, db: Database):
    await control.models.set_alias(ADMIN, "iris", "canary", 2)
    with pytest.raises(sa.exc.IntegrityError):
        async with db.begin() as tx:
            await tx.execute(sa.text("INSERT INTO alias_moves SELECT * FROM alias_moves"))
