"""What an installation guards is done by two people: asked, approved, repeated, once, and for nothing that has changed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, FINDINGS, TestClock, upload
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Place, Role, Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import ApprovalNeeded
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.traffic import Counted, TrialSeen
from modelkeep.control.access.rules import Subject
from modelkeep.control.approvals.errors import ApprovalNotFound, ApprovalOver, SecondPersonNeeded
from modelkeep.control.approvals.rules import State
from modelkeep.control.approvals.tables import approvals
from modelkeep.control.deployments.planning import Change
from modelkeep.control.rollouts.asked import Asked
from modelkeep.control.users import store
from modelkeep.control.users.rules import Kind, User
from modelkeep.infra.db import Database
from modelkeep.infra.settings import AccessSettings

M = "red-model"


@pytest.fixture
def alone() -> AccessSettings:
    return AccessSettings(two_person="promotion, deletion, override")


@dataclass
class Crew:
    """Two releasers and a developer of one tenant, a releaser of another, two administrators, and a service that releases."""

    control: ControlPlane
    tenants: Tenants
    ada: Actor
    bob: Actor
    root: Actor
    other_root: Actor
    stranger: Actor
    service: Actor

    async def version(self, content: bytes) -> int:
        """Upload a version and have it accepted; return its number."""
        version = await self.control.models.receive(ADMIN, M, upload(content))
        await self.control.models.begin_validation(version.id)
        await self.control.models.accept(version.id, FINDINGS, "job_none")
        return version.number

    async def needed(self, work: Awaitable[object]) -> str:
        """The approval that this needs."""
        with pytest.raises(ApprovalNeeded) as refused:
            await work
        assert refused.value.approval.startswith("apr_")
        assert refused.value.approval in refused.value.message
        return refused.value.approval

    async def serving(self) -> int | None:
        found, _serving = await self.control.deployments.deployment(ADMIN, M)
        return found.version

    async def entries(self, action: str) -> list[tuple[str, str, dict[str, str]]]:
        found = await self.control.audit.entries(limit=100)
        return [(one.actor_name, one.target, one.details) for one in found if one.action == action]


@pytest.fixture
async def crew(tenants: Tenants, control: ControlPlane, db: Database, clock: TestClock) -> Crew:
    red, blue = tenants.places["red"], tenants.places["blue"]
    for name, role, place in (
        *(("ada", Role.RELEASER, red), ("bob", Role.RELEASER, red), ("stranger", Role.RELEASER, blue)),
        *(("root", Role.ADMIN, Place()), ("other-root", Role.ADMIN, Place())),
    ):
        await tenants.person(name, role, place)
    service = User(new_id("usr"), "ci", clock(), kind=Kind.SERVICE)
    async with db.begin() as tx:
        await store.add_user(tx, service)
    await control.access.give(ADMIN, Subject("user", service.id), Role.RELEASER, red)
    root = await tenants.actor("root")
    key = await control.users.issue_key(root, "ci", frozenset({Scope.ADMIN}), None, service=service.id)
    made = Crew(
        control,
        tenants,
        await tenants.actor("ada"),
        await tenants.actor("bob"),
        root,
        await tenants.actor("other-root"),
        await tenants.actor("stranger"),
        await control.access.authenticate(key.secret.reveal()),
    )
    await control.deployments.promote(SYSTEM, M, 1)
    await made.version(b"two")
    await made.version(b"three")
    return made


async def test_a_promotion_needs_another_person_and_then_goes_through_once(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    assert await crew.needed(control.deployments.promote(crew.ada, M, 2)) == wanted
    assert await crew.serving() == 1
    shown = await control.approvals.approval(crew.bob, wanted)
    assert (shown.state, shown.asked_by_name, shown.summary) == (
        State.PENDING,
        "ada",
        "Promote red-model to version 2; version 1 answers now.",
    )
    approved = await control.approvals.approve(crew.bob, wanted)
    assert approved.state is State.APPROVED
    assert await crew.serving() == 1
    changed = await control.deployments.promote(crew.ada, M, 2)
    assert changed.version == 2
    assert (await control.approvals.approval(crew.ada, wanted)).state is State.USED
    with pytest.raises(ApprovalOver):
        await control.approvals.approve(crew.bob, wanted)
    used = {"act": "deployment.promote", "summary": shown.summary, "asked_by": "ada", "subject": shown.subject}
    assert await crew.entries("approval.ask") == [("ada", wanted, used)]
    assert await crew.entries("approval.approve") == [("bob", wanted, used)]
    assert await crew.entries("approval.use") == [("ada", wanted, used | {"approved_by": "bob"})]
    assert (await crew.entries("deployment.promote"))[0][0] == "ada"


async def test_nobody_agrees_with_themselves_by_whatever_key(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    again = await crew.tenants.actor("ada", Scope.DEPLOYMENTS_WRITE)
    for one in (crew.ada, again, crew.service):
        with pytest.raises(SecondPersonNeeded):
            await control.approvals.approve(one, wanted)
    assert await crew.needed(control.deployments.promote(again, M, 2)) == wanted


async def test_who_may_not_do_it_themselves_sees_no_approval_of_it(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await crew.tenants.person("viewer", Role.DEVELOPER, crew.tenants.places["red"])
    for one in (
        crew.stranger,
        await crew.tenants.actor("viewer"),
        await crew.tenants.actor("bob", Scope.MODELS_READ),
        await crew.tenants.actor("bob", models=("mdl_other",)),
    ):
        for asked in (
            control.approvals.approval(one, wanted),
            control.approvals.approve(one, wanted),
            control.approvals.refuse(one, wanted, "no"),
        ):
            with pytest.raises(ApprovalNotFound):
                await asked
        assert await control.approvals.approvals(one, limit=10) == []
    for one in (crew.bob, crew.root, crew.ada, await crew.tenants.actor("bob", models=(crew.tenants.places[M].model,))):
        assert [found.id for found in await control.approvals.approvals(one, limit=10)] == [wanted]


async def test_an_approval_is_of_nothing_that_changed_since(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)
    assert await crew.needed(control.deployments.promote(crew.ada, M, 3)) != wanted
    await control.deployments.configure(crew.bob, M, {"concurrency": 2})
    assert await crew.needed(control.deployments.promote(crew.ada, M, 2)) != wanted
    assert await crew.serving() == 1


async def test_an_approval_is_of_the_one_who_asked(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)
    for one in (crew.bob, crew.root):
        assert await crew.needed(control.deployments.promote(one, M, 2)) != wanted
    assert (await control.deployments.promote(crew.ada, M, 2)).version == 2


async def test_an_approval_of_who_may_no_more_counts_for_nothing(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)
    (given,) = await control.access.grants(ADMIN, limit=10, subject=Subject("user", crew.tenants.people["bob"]))
    await control.access.take(ADMIN, given, crew.tenants.places["red"])
    assert await crew.needed(control.deployments.promote(crew.ada, M, 2)) == wanted
    await control.approvals.approve(crew.root, wanted)
    assert (await control.deployments.promote(crew.ada, M, 2)).version == 2


@pytest.mark.parametrize("end", ["revoked", "disabled"])
async def test_an_approval_by_a_key_that_is_gone_counts_for_nothing(crew: Crew, control: ControlPlane, end: str):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)
    if end == "revoked":
        await control.users.revoke_key(crew.bob, crew.bob.id)
    else:
        await control.users.set_active(crew.root, crew.bob.user, active=False)
    assert await crew.needed(control.deployments.promote(crew.ada, M, 2)) == wanted


async def test_time_runs_out_and_then_it_is_asked_anew(crew: Crew, control: ControlPlane, clock: TestClock):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)
    clock.advance(hours=24)
    anew = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    assert anew != wanted
    with pytest.raises(ApprovalOver):
        await control.approvals.approve(crew.root, wanted)
    found = {one.id: one.state for one in await control.approvals.approvals(crew.bob, limit=10)}
    assert found == {wanted: State.EXPIRED, anew: State.PENDING}
    for state, ids in ((State.EXPIRED, [wanted]), (State.PENDING, [anew]), (State.APPROVED, []), (State.USED, [])):
        assert [one.id for one in await control.approvals.approvals(crew.bob, limit=10, state=state)] == ids
    assert [one.id for one in await control.approvals.approvals(crew.bob, limit=1, before=anew)] == [wanted]


async def test_a_refusal_ends_it_and_says_why(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)
    refused = await control.approvals.refuse(crew.root, wanted, " not before the audit ")
    assert (refused.state, refused.reason, refused.refused_by and refused.refused_by.name) == (
        State.REFUSED,
        "not before the audit",
        "root",
    )
    assert await crew.needed(control.deployments.promote(crew.ada, M, 2)) != wanted
    ((who, target, said),) = await crew.entries("approval.refuse")
    assert (who, target, said["reason"], said["asked_by"]) == ("root", wanted, "not before the audit", "ada")


async def test_what_a_service_asks_two_people_approve(crew: Crew, control: ControlPlane):
    """Whoever holds its key could else be the one person."""
    wanted = await crew.needed(control.deployments.promote(crew.service, M, 2))
    assert (await control.approvals.approve(crew.root, wanted)).state is State.PENDING
    assert (await control.approvals.approve(crew.root, wanted)).state is State.PENDING
    assert await crew.needed(control.deployments.promote(crew.service, M, 2)) == wanted
    assert (await control.approvals.approve(crew.bob, wanted)).state is State.APPROVED
    assert (await control.deployments.promote(crew.service, M, 2)).version == 2
    assert (await crew.entries("approval.use"))[0][2]["approved_by"] == "root, bob"


async def agreed(crew: Crew, actor: Actor, other: Actor, act: Callable[[Actor], Awaitable[object]]) -> None:
    """Ask, have it approved, and do it."""
    await crew.control.approvals.approve(other, await crew.needed(act(actor)))
    await act(actor)


async def test_going_back_needs_nobody_and_going_forth_again_does(crew: Crew, control: ControlPlane):
    promote = control.deployments.promote
    await agreed(crew, crew.ada, crew.bob, lambda one: promote(one, M, 3))
    assert (await promote(crew.ada, M, 1)).version == 1
    await crew.needed(promote(crew.ada, M, 3))
    await crew.needed(promote(crew.ada, M, 2))


async def test_aliases_are_moved_by_two_and_taken_back_by_one(crew: Crew, control: ControlPlane):
    async def move(one: Actor, number: int) -> object:
        return await control.models.set_alias(one, M, "live", number)

    await agreed(crew, crew.ada, crew.bob, lambda one: move(one, 1))
    await agreed(crew, crew.ada, crew.bob, lambda one: move(one, 2))
    await move(crew.bob, 1)
    await crew.needed(move(crew.bob, 2))
    await agreed(crew, crew.ada, crew.bob, lambda one: control.models.delete_alias(one, M, "live"))
    await crew.needed(move(crew.bob, 1))


async def test_models_versions_and_workspaces_are_put_away_by_two(crew: Crew, control: ControlPlane):
    models, root, other = control.models, crew.root, crew.other_root
    await agreed(crew, root, other, lambda one: control.lifecycle.archive(one, M, 3))
    await control.lifecycle.restore(root, M, 3)
    await crew.needed(control.lifecycle.archive(root, M, 3))
    await agreed(crew, root, other, lambda one: control.lifecycle.archive(one, M))
    await control.lifecycle.restore(root, M)
    await crew.needed(control.lifecycle.archive(root, M))
    await control.access.create_workspace(root, "empty")
    await agreed(crew, root, other, lambda one: models.remove_workspace(one, "empty"))


async def test_what_is_unsafe_is_allowed_by_two_and_taken_back_by_one(crew: Crew, control: ControlPlane):
    root, other = crew.root, crew.other_root

    async def allow(one: Actor, why: str = "ours") -> object:
        return await control.switches.allow_code(one, allowed=True, reason=why)

    wanted = await crew.needed(allow(root))
    assert await crew.needed(allow(root, "another reason")) != wanted
    with pytest.raises(ApprovalNotFound):
        await control.approvals.approve(crew.bob, wanted)
    await control.approvals.approve(other, wanted)
    await allow(root)
    assert (await control.switches.safety()).code_allowed
    await control.switches.allow_code(root, allowed=False, reason="no more")
    assert not (await control.switches.safety()).code_allowed
    await crew.needed(allow(root))


async def test_a_first_version_waits_for_two_and_the_installation_itself_for_nobody(crew: Crew, control: ControlPlane):
    await control.models.create(ADMIN, "fresh")
    version = await control.models.receive(ADMIN, "fresh", upload(b"first"))
    await control.models.begin_validation(version.id)
    await control.models.accept(version.id, FINDINGS, "job_none")
    found, _serving = await control.deployments.deployment(ADMIN, "fresh")
    assert found.version is None
    assert (await control.deployments.promote(SYSTEM, "fresh", 1)).version == 1


async def test_of_many_repeats_at_once_one_goes_through(crew: Crew, control: ControlPlane, db: Database):
    asked = await asyncio.gather(*(control.deployments.promote(crew.ada, M, 2) for _ in range(5)), return_exceptions=True)
    ids = {one.approval for one in asked if isinstance(one, ApprovalNeeded)}
    assert len(ids) == 1
    await control.approvals.approve(crew.bob, ids.pop())
    done = await asyncio.gather(*(control.deployments.promote(crew.ada, M, 2) for _ in range(5)))
    assert {(one.version, one.revision) for one in done} == {(2, 2)}
    assert len(await crew.entries("approval.use")) == 1
    async with db.read() as tx:
        assert len(await tx.all(sa.select(approvals.c.id))) == 1


async def test_what_fails_after_it_was_let_through_uses_no_approval_up(
    crew: Crew, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
):
    wanted = await crew.needed(control.deployments.promote(crew.ada, M, 2))
    await control.approvals.approve(crew.bob, wanted)

    def fail(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(control.deployments, "publish_in", fail)
        with pytest.raises(RuntimeError):
            await control.deployments.promote(crew.ada, M, 2)
    assert (await control.approvals.approval(crew.ada, wanted)).state is State.APPROVED
    assert (await crew.serving(), await crew.entries("approval.use")) == (1, [])
    assert (await control.deployments.promote(crew.ada, M, 2)).version == 2


class TestOff:
    """With the rule off, one person is enough: what stands above is the rule's doing."""

    @pytest.fixture
    def alone(self) -> AccessSettings:
        return AccessSettings()

    async def test_one_person_does_it_alone(self, crew: Crew, control: ControlPlane):
        assert (await control.deployments.promote(crew.ada, M, 2)).version == 2
        await control.models.set_alias(crew.ada, M, "live", 3)
        await control.models.delete_alias(crew.ada, M, "live")
        await control.lifecycle.archive(crew.root, M)
        assert (await control.switches.allow_code(crew.root, allowed=True, reason="ours")).code_allowed
        assert await control.approvals.approvals(crew.root, limit=10) == []


async def test_giving_a_version_users_needs_another_person_and_taking_them_does_not(crew: Crew, control: ControlPlane):
    share = Change(traffic={"split": {"2": 10}})
    assert (await control.deployments.plan(crew.ada, M, share)).needs_approval
    wanted = await crew.needed(control.deployments.change(crew.ada, M, share))
    shown = await control.approvals.approval(crew.bob, wanted)
    assert (shown.kind, shown.action) == ("promotion", "deployment.route")
    assert shown.summary == (
        f"Have {M} answered by version 1 (90 %), version 2 (10 %); it is answered by version 1 (100 %) now."
    )
    await control.approvals.approve(crew.bob, wanted)
    assert await crew.needed(control.deployments.change(crew.ada, M, Change(traffic={"split": {"2": 11}}))) != wanted
    assert [one.share for one in (await control.deployments.change(crew.ada, M, share)).traffic.splits] == [10.0]
    await crew.needed(control.deployments.change(crew.ada, M, Change(traffic={"split": {"2": 10.001}})))
    await crew.needed(control.deployments.change(crew.ada, M, Change(traffic={"rules": [{"version": 3, "header": "x"}]})))
    less = Change(traffic={"split": {"2": 5}, "shadow": {"version": 3}})
    assert not (await control.deployments.plan(crew.ada, M, less)).needs_approval
    assert [one.share for one in (await control.deployments.change(crew.ada, M, less)).traffic.splits] == [5.0]


async def test_a_rollback_needs_nobody_but_to_what_was_rolled_back_from(crew: Crew, control: ControlPlane):
    await control.approvals.approve(crew.bob, await crew.needed(control.deployments.promote(crew.ada, M, 2)))
    promoted = await control.deployments.promote(crew.ada, M, 2)
    assert (await control.deployments.rollback(crew.ada, M)).version == 1
    await crew.needed(control.deployments.rollback(crew.ada, M, promoted.revision))
    assert await crew.serving() == 1


async def test_a_deployment_that_answers_is_made_and_deleted_by_two(crew: Crew, control: ControlPlane):
    wanted = await crew.needed(control.deployments.create(crew.ada, "eu", M, Change(version=1)))
    assert await crew.needed(control.deployments.create(crew.ada, "eu", M, Change(version=2))) != wanted
    assert await crew.needed(control.deployments.create(crew.ada, "eu", M, Change(version=1))) == wanted
    await control.approvals.approve(crew.bob, wanted)
    assert (await control.deployments.create(crew.ada, "eu", M, Change(version=1))).version == 1
    assert (await control.deployments.create(crew.ada, "empty", M)).version is None
    await crew.needed(control.deployments.delete(crew.ada, "eu"))


async def test_what_two_agreed_to_have_made_later_is_made_of_what_they_saw_alone(
    crew: Crew, control: ControlPlane, clock: TestClock
):
    async def agreed(number: int) -> str:
        at = clock() + timedelta(hours=1)
        wanted = await crew.needed(control.schedules.schedule(crew.ada, M, at, Change(version=number)))
        await control.approvals.approve(crew.bob, wanted)
        return (await control.schedules.schedule(crew.ada, M, at, Change(version=number))).id

    await agreed(2)
    clock.advance(hours=1)
    assert await control.schedules.make_due() == 1
    assert await crew.serving() == 2
    outdated = await agreed(3)
    await control.deployments.configure(crew.ada, M, {"concurrency": 7})
    clock.advance(hours=1)
    assert await control.schedules.make_due() == 1
    assert await crew.serving() == 2
    (newest, *_older) = await control.schedules.scheduled(crew.ada, M, limit=9)
    assert (newest.id, newest.state.value, "two people" in newest.problem) == (outdated, "failed", True)


async def test_a_rollout_needs_both_to_begin_and_to_end_early_and_nobody_to_end_well_or_go_back(crew: Crew, clock: TestClock):
    rollouts, asked = crew.control.rollouts, Asked(steps=("5:1m",), least=1)
    wanted = await crew.needed(rollouts.start(crew.ada, M, 2, asked))
    assert await crew.needed(rollouts.start(crew.ada, M, 2, Asked(steps=("50:1m",)))) != wanted, "another plan is another act"
    assert await rollouts.rollouts(crew.ada, limit=5) == []
    await crew.control.approvals.approve(crew.bob, wanted)
    one = await rollouts.start(crew.ada, M, 2, asked)
    for act in (rollouts.promote, rollouts.advance):
        wanted = await crew.needed(act(crew.ada, one.id))
    assert await crew.serving() == 1
    await rollouts.roll_back(crew.ada, one.id)
    await crew.control.approvals.approve(crew.bob, await crew.needed(rollouts.start(crew.ada, M, 2, asked)))
    two = await rollouts.start(crew.ada, M, 2, asked)
    seen = TrialSeen(dict.fromkeys(two.plan.gate.signals, Counted(5, 0, 50, 0)))
    now, served = clock() + timedelta(minutes=1), {M: two.from_version_id}
    clock.now = now
    await crew.control.deployments.hear(Heartbeat("s1", now.timestamp(), 1, served, {}, {f"{two.id}:0": seen}))
    assert await rollouts.tick(two.id) == "promoted"
    assert await crew.serving() == 2
    assert await crew.needed(rollouts.start(crew.ada, M, 3, asked))
