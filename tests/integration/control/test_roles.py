"""Who may do what, over each kind of database: grants, groups, owners, keys, and what of it serving learns."""

import asyncio

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, Rings, upload
from fixtures.tenants import Tenants
from modelkeep.contracts.access import INSTALLATION, Place, Role, Scope, decide
from modelkeep.contracts.errors import Forbidden
from modelkeep.contracts.snapshot import Snapshot, decode_snapshot
from modelkeep.control.access import errors
from modelkeep.control.access.rules import Subject
from modelkeep.control.deployments.errors import DeploymentNotFound
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.control.models.errors import ModelExists, ModelNotFound
from modelkeep.control.users import store
from modelkeep.control.users.rules import Status, User
from modelkeep.infra import broadcast


async def _snapshot(tenants: Tenants) -> Snapshot:
    async with tenants.db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, 0)
    assert news is not None
    return decode_snapshot(news.payload)


async def test_a_stranger_finds_nothing_and_is_told_nothing(tenants: Tenants):
    await tenants.person("eve")
    eve, models, deployments = await tenants.actor("eve"), tenants.control.models, tenants.control.deployments
    assert await models.models(eve, limit=9) == []
    assert await deployments.deployments(eve, limit=9) == []
    assert await tenants.control.access.workspaces(eve, limit=9) == []
    assert await deployments.names(eve, Scope.PREDICTIONS_READ) == frozenset()
    for name in ("red-model", "no-model"):
        with pytest.raises(ModelNotFound):
            await models.model(eve, name)
        with pytest.raises(ModelNotFound):
            await models.version(eve, name, 1)
        with pytest.raises(ModelNotFound):
            await tenants.control.lifecycle.archive(eve, name)
        with pytest.raises(DeploymentNotFound):
            await deployments.deployment(eve, name)
        with pytest.raises(DeploymentNotFound):
            await deployments.promote(eve, name, 1)
    with pytest.raises(Forbidden):
        await models.create(eve, "mine")


async def test_a_role_on_a_workspace_counts_there_and_nowhere_else(tenants: Tenants):
    await tenants.person("rob", Role.DEVELOPER, tenants.places["red"])
    rob, models = await tenants.actor("rob"), tenants.control.models
    assert [one.name for one in await models.models(rob, limit=9)] == ["red-model"]
    assert (await models.receive(rob, "red-model", upload(b"more"))).number == 2
    made = await models.create(rob, "second", workspace_id=tenants.places["red"].workspace)
    assert made.place == Place(tenants.places["red"].workspace, made.id, tenants.people["rob"])
    with pytest.raises(ModelNotFound):
        await models.model(rob, "blue-model")
    with pytest.raises(Forbidden):
        await models.create(rob, "third", workspace_id=tenants.places["blue"].workspace)
    with pytest.raises(Forbidden):
        await tenants.control.deployments.promote(rob, "red-model", 1)


async def test_an_owner_may_develop_and_release_their_model_and_share_it_no_further_than_that(tenants: Tenants):
    await tenants.person("olga")
    await tenants.person("paul")
    olga, access = await tenants.actor("olga"), tenants.control.access
    await tenants.control.models.move(ADMIN, "red-model", owner_id=tenants.people["olga"])
    place = await tenants.control.models.place(olga, "red-model")
    await tenants.control.deployments.configure(olga, "red-model", {"concurrency": 3})
    paul = Subject("user", tenants.people["paul"])
    given = await access.give(olga, paul, Role.PREDICTOR, place)
    assert await access.give(olga, paul, Role.PREDICTOR, place) == given
    assert [one.name for one in await tenants.control.models.models(await tenants.actor("paul"), limit=9)] == ["red-model"]
    for role in (Role.TRUSTED, Role.AUDITOR, Role.ADMIN):
        with pytest.raises(Forbidden):
            await access.give(olga, paul, role, place)
    for elsewhere in (INSTALLATION, tenants.places["red"], tenants.places["blue-model"]):
        with pytest.raises(Forbidden):
            await access.give(olga, paul, Role.VIEWER, elsewhere)
    with pytest.raises(Forbidden):
        await access.give(await tenants.actor("olga", Scope.MODELS_READ), paul, Role.VIEWER, place)
    await access.take(olga, given, place)
    assert await tenants.control.models.models(await tenants.actor("paul"), limit=9) == []


async def test_a_group_gives_its_roles_to_its_members_for_as_long_as_they_are_in_it(tenants: Tenants):
    access, models = tenants.control.access, tenants.control.models
    group = await access.create_group(ADMIN, "crew")
    await access.give(ADMIN, Subject("group", group.id), Role.RELEASER, tenants.places["blue"])
    await tenants.person("gus")
    gus = await tenants.secret("gus")
    assert await models.models(await access.authenticate(gus), limit=9) == []
    await access.add_member(ADMIN, "crew", tenants.people["gus"])
    member = await access.authenticate(gus)
    assert [one.name for one in await models.models(member, limit=9)] == ["blue-model"]
    found = await access.explain(ADMIN, Subject("user", member.user), Scope.DEPLOYMENTS_WRITE, tenants.places["blue-model"])
    assert found.allowed
    assert found.grant is not None
    assert found.grant.through == "crew"
    await access.remove_member(ADMIN, "crew", tenants.people["gus"])
    assert await models.models(await access.authenticate(gus), limit=9) == []
    await access.add_member(ADMIN, "crew", tenants.people["gus"])
    await access.remove_group(ADMIN, "crew")
    assert await models.models(await access.authenticate(gus), limit=9) == []


async def test_a_key_never_may_more_than_its_owner_and_only_with_its_models(tenants: Tenants):
    await tenants.person("kim", Role.DEVELOPER, tenants.places["red"])
    red = tenants.places["red-model"].model
    bound = await tenants.actor("kim", Scope.ADMIN, models=(red,))
    assert decide(bound.standing, Scope.MODELS_WRITE, tenants.places["red-model"]).allowed
    with pytest.raises(Forbidden):
        await tenants.control.models.create(bound, "new", workspace_id=tenants.places["red"].workspace)
    other = await tenants.actor("kim", models=("mdl_other",))
    assert await tenants.control.models.models(other, limit=9) == []
    with pytest.raises(ModelNotFound):
        await tenants.control.models.model(other, "red-model")
    reader = await tenants.actor("kim", Scope.MODELS_READ)
    with pytest.raises(Forbidden):
        await tenants.control.models.receive(reader, "red-model", upload(b"x"))
    with pytest.raises(Forbidden):
        await tenants.control.users.issue_key(reader, "more", frozenset({Scope.ADMIN}), None)


async def test_a_grant_to_a_key_adds_to_what_its_owner_may(tenants: Tenants):
    await tenants.person("sam")
    secret = await tenants.secret("sam")
    key = (await tenants.control.access.authenticate(secret)).id
    await tenants.control.access.give(ADMIN, Subject("key", key), Role.PREDICTOR, tenants.places["red-model"])
    actor = await tenants.control.access.authenticate(secret)
    assert decide(actor.standing, Scope.PREDICT, tenants.places["red-model"]).allowed
    assert not decide((await tenants.actor("sam")).standing, Scope.PREDICT, tenants.places["red-model"]).allowed


async def test_the_last_administrator_stays(tenants: Tenants):
    access = tenants.control.access
    ann = await access.give(ADMIN, Subject("user", await tenants.person("ann")), Role.ADMIN, INSTALLATION)
    await tenants.secret("ann")  # a way to come in
    with pytest.raises(errors.LastAdmin):
        await access.take(ADMIN, ann, INSTALLATION)
    group = await access.create_group(ADMIN, "admins")
    await access.give(ADMIN, Subject("group", group.id), Role.ADMIN, INSTALLATION)
    with pytest.raises(errors.LastAdmin):  # nobody is in it
        await access.take(ADMIN, ann, INSTALLATION)
    await access.add_member(ADMIN, "admins", tenants.people["ann"])
    await access.take(ADMIN, ann, INSTALLATION)
    with pytest.raises(errors.LastAdmin):
        await access.remove_member(ADMIN, "admins", tenants.people["ann"])
    with pytest.raises(errors.LastAdmin):
        await access.remove_group(ADMIN, "admins")


async def test_of_two_administrators_who_are_taken_off_at_once_one_stays(tenants: Tenants):
    access = tenants.control.access
    both = [await access.give(ADMIN, Subject("user", await tenants.person(name)), Role.ADMIN, INSTALLATION) for name in "ab"]
    for name in "ab":
        await tenants.secret(name)  # a way to come in
    results = await asyncio.gather(*(access.take(ADMIN, one, INSTALLATION) for one in both), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [errors.LastAdmin]


async def test_a_workspace_with_models_stays_and_takes_its_grants_with_it(tenants: Tenants):
    control = tenants.control
    with pytest.raises(errors.WorkspaceInUse):
        await control.models.remove_workspace(ADMIN, "red")
    with pytest.raises(errors.WorkspaceInUse):
        await control.models.remove_workspace(ADMIN, "default")
    rob = await tenants.person("rob", Role.DEVELOPER, tenants.places["red"])
    await control.models.move(ADMIN, "red-model", tenants.places["blue"].workspace)
    assert await control.models.models(await tenants.actor("rob"), limit=9) == []
    await control.models.remove_workspace(ADMIN, "red")
    assert await control.access.grants(ADMIN, limit=9, subject=Subject("user", rob)) == []
    with pytest.raises(errors.WorkspaceNotFound):
        await control.models.create(ADMIN, "late", workspace_id=tenants.places["red"].workspace)


async def test_a_new_model_goes_where_its_maker_has_a_role(tenants: Tenants):
    access = tenants.control.access
    await tenants.person("rob", Role.DEVELOPER, tenants.places["red"])
    rob = await tenants.actor("rob")
    assert await access.home(rob, None) == tenants.places["red"].workspace
    assert await access.home(ADMIN, None) == "wsp_default"
    with pytest.raises(errors.WorkspaceNotFound):
        await access.home(rob, "blue")
    await access.give(ADMIN, Subject("user", tenants.people["rob"]), Role.DEVELOPER, tenants.places["blue"])
    with pytest.raises(errors.WorkspaceUnclear):
        await access.home(await tenants.actor("rob"), None)


async def test_serving_learns_of_each_change_at_once(tenants: Tenants, rings: Rings):
    await tenants.person("pia")
    secret = await tenants.secret("pia")
    key = (await tenants.control.access.authenticate(secret)).id

    async def may() -> bool:
        snapshot = await _snapshot(tenants)
        standing = next(one.standing for one in snapshot.keys if one.id == key)
        place = next(one.place for one in snapshot.deployments if one.name == "red-model")
        return decide(standing, Scope.PREDICT, place).allowed

    assert not await may()
    rung = rings.courier
    pia = Subject("user", tenants.people["pia"])
    given = await tenants.control.access.give(ADMIN, pia, Role.PREDICTOR, tenants.places["red"])
    assert await may()
    assert rings.courier == rung + 1
    await tenants.control.models.move(ADMIN, "red-model", tenants.places["blue"].workspace)
    assert not await may()
    await tenants.control.models.move(ADMIN, "red-model", tenants.places["red"].workspace)
    assert await may()
    await tenants.control.access.take(ADMIN, given, tenants.places["red"])
    assert not await may()


async def test_each_change_is_audited(tenants: Tenants):
    access = tenants.control.access
    await access.create_group(ADMIN, "crew")
    await access.add_member(ADMIN, "crew", await tenants.person("gus"))
    await access.remove_member(ADMIN, "crew", tenants.people["gus"])
    given = await access.give(ADMIN, Subject("user", tenants.people["gus"]), Role.VIEWER, tenants.places["red"])
    await access.take(ADMIN, given, tenants.places["red"])
    await access.remove_group(ADMIN, "crew")
    await tenants.control.models.move(ADMIN, "red-model", tenants.places["blue"].workspace)
    await tenants.control.models.remove_workspace(ADMIN, "red")
    actions = [entry.action for entry in reversed(await tenants.control.audit.entries(limit=8))]
    assert actions == [
        "group.create",
        "group.add_member",
        "group.remove_member",
        "grant.give",
        "grant.take",
        "group.remove",
        "model.move",
        "workspace.remove",
    ]


async def test_only_administrators_ask_about_others(tenants: Tenants):
    await tenants.person("eve")
    await tenants.person("wes", Role.ADMIN, tenants.places["red"])
    eve, wes, access = await tenants.actor("eve"), await tenants.actor("wes"), tenants.control.access
    mine = await access.explain(eve, Subject("key", eve.id), Scope.PREDICT, tenants.places["red-model"])
    assert (mine.allowed, mine.reason) == (False, "no_grant")
    with pytest.raises(Forbidden):
        await access.explain(eve, Subject("user", wes.user), Scope.PREDICT, tenants.places["red-model"])
    assert not (await access.explain(wes, Subject("user", eve.user), Scope.PREDICT, tenants.places["red-model"])).allowed
    with pytest.raises(Forbidden):
        await access.explain(wes, Subject("user", eve.user), Scope.PREDICT, tenants.places["blue-model"])
    with pytest.raises(errors.SubjectNotFound):
        await access.explain(ADMIN, Subject("user", "usr_none"), Scope.PREDICT, INSTALLATION)


async def test_an_owners_bounded_key_shares_nothing_and_hands_nothing_over(tenants: Tenants):
    owner, friend = await tenants.person("owner"), await tenants.person("friend")
    await tenants.control.models.move(ADMIN, "red-model", owner_id=owner)
    place = await tenants.control.models.place(ADMIN, "red-model")
    for bounded in (
        await tenants.actor("owner", Scope.MODELS_WRITE),
        await tenants.actor("owner", models=(place.model,)),
    ):
        with pytest.raises(Forbidden):
            await tenants.control.access.give(bounded, Subject("user", friend), Role.VIEWER, place)
        with pytest.raises(Forbidden):
            await tenants.control.models.move(bounded, "red-model", owner_id=friend)
    themselves = await tenants.actor("owner")
    await tenants.control.access.give(themselves, Subject("user", friend), Role.VIEWER, place)
    await tenants.control.models.move(themselves, "red-model", owner_id=friend)


async def test_an_upload_goes_where_it_was_allowed_to_or_nowhere(tenants: Tenants):
    models, red = tenants.control.models, tenants.places["red"].workspace
    into = await models.expect_upload(ADMIN, "new", create_in=red)
    await models.create(ADMIN, "new", workspace_id=tenants.places["blue"].workspace)
    with pytest.raises(ModelExists):
        await models.receive(ADMIN, "new", upload(), create_in=red, into=into)
    into = await models.expect_upload(ADMIN, "red-model")
    await models.move(ADMIN, "red-model", tenants.places["blue"].workspace)
    with pytest.raises(ModelExists):
        await models.receive(ADMIN, "red-model", upload(), into=into)
    await models.receive(ADMIN, "red-model", upload(), into=await models.expect_upload(ADMIN, "red-model"))


async def test_of_whoever_is_disabled_nothing_is_said_to_be_allowed(tenants: Tenants):
    vic = await tenants.person("vic", Role.PREDICTOR)
    key, access = await tenants.actor("vic"), tenants.control.access
    for subject in (Subject("user", vic), Subject("key", key.id)):
        assert (await access.explain(ADMIN, subject, Scope.PREDICT, INSTALLATION)).reason == "granted"
    async with tenants.db.begin() as tx:
        await store.change_user(tx, vic, status=Status.DISABLED)
    for subject in (Subject("user", vic), Subject("key", key.id)):
        found = await access.explain(ADMIN, subject, Scope.PREDICT, INSTALLATION)
        assert (found.allowed, found.reason) == (False, "inactive")


@pytest.mark.parametrize("erased", ["owner", "friend"])
async def test_a_model_is_moved_and_given_as_one_change_or_not_at_all(tenants: Tenants, erased: str):
    models, blue = tenants.control.models, tenants.places["blue"].workspace
    owner, friend = await tenants.person("owner"), await tenants.person("friend")
    await models.move(ADMIN, "red-model", owner_id=owner)
    with pytest.raises(Forbidden):  # an owner gives it to somebody, and moves it nowhere
        await models.move(await tenants.actor("owner"), "red-model", blue, owner_id=friend)
    assert (await models.place(ADMIN, "red-model")).owner == owner
    with pytest.raises(errors.WorkspaceNotFound):
        await models.move(ADMIN, "red-model", "wsp_none", owner_id=friend)
    assert (await models.place(ADMIN, "red-model")).owner == owner
    await models.move(ADMIN, "red-model", blue, owner_id=friend)
    place = await models.place(ADMIN, "red-model")
    assert (place.owner, place.workspace) == (friend, blue)
    await tenants.control.audit.erase(ADMIN, frozenset({tenants.people[erased]}), "asked for")
    given = [one for one in await tenants.control.audit.entries(limit=50) if one.action == "model.give"]
    assert [one.erased for one in given] == [True, erased == "owner"], "who has had it, and who has it now"


async def test_a_change_publishes_one_snapshot_after_all_that_it_locks(tenants: Tenants):
    """Two that each kept the snapshot's row and waited for the other's grants would have ended as 503 on PostgreSQL."""
    access, moves = tenants.control.access, await tenants.person("gus")
    for name in ("admins", "crew", "readers"):
        group = await access.create_group(ADMIN, name)
        await access.give(ADMIN, Subject("group", group.id), Role.ADMIN if name == "admins" else Role.VIEWER, INSTALLATION)
    await access.give(ADMIN, Subject("user", await tenants.person("ada")), Role.ADMIN, INSTALLATION)
    await tenants.secret("ada")
    await access.add_member(ADMIN, "admins", moves)
    before = (await _snapshot(tenants)).number
    heard: list[str] = []
    engine = tenants.db._writer.sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *told: heard.append(told[2]))
    async with tenants.db.begin() as tx:
        await access.follow_in(
            tx, ADMIN, moves, into={"admins-to-be", "crew", "readers"}, among={"admins", "admins-to-be", "crew", "readers"}
        )
    said = tuple(heard)
    assert (await _snapshot(tenants)).number == before + 1
    numbered = [at for at, one in enumerate(said) if one.startswith("INSERT INTO broadcasts")]
    published = [at for at, one in enumerate(said) if one.startswith("UPDATE broadcasts")]
    assert len(numbered) == len(published) == 1
    meanwhile = said[numbered[0] + 1 : published[0]]
    assert meanwhile
    assert all(one.startswith("SELECT") and "FOR UPDATE" not in one for one in meanwhile), "nobody is waited for meanwhile"
    assert all("audit" in one for one in said[published[0] + 1 :])


@pytest.mark.parametrize("what", ["a newcomer with a role", "somebody disabled", "the last of whom administers, in vain"])
async def test_what_says_news_more_than_once_publishes_once(tenants: Tenants, rings: Rings, what: str):
    users, gus = tenants.control.users, await tenants.person("gus", Role.ADMIN)
    await tenants.secret("gus")
    await tenants.person("bob", Role.ADMIN)
    await tenants.secret("bob")
    before, rung = (await _snapshot(tenants)).number, rings.courier
    if what == "a newcomer with a role":
        await users.add(ADMIN, User("usr_new", "new", tenants.clock(), email="new@example.org"), role=Role.VIEWER)
    elif what == "somebody disabled":
        await users.set_active(ADMIN, gus, active=False)
    else:
        await users.set_active(ADMIN, gus, active=False)
        with pytest.raises(errors.LastAdmin):
            await users.set_active(ADMIN, tenants.people["bob"], active=False)
    assert ((await _snapshot(tenants)).number, rings.courier) == (before + 1, rung + 1)
