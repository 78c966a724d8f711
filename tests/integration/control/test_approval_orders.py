"""Nobody has their way alone, in any order of asking, approving, changing, losing a role and waiting; two do."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fixtures.control import ADMIN, SITE, TestClock, ready_version
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.access import INSTALLATION, Role, Scope, Standing
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import ApprovalNeeded, ModelkeepError
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.access.rules import Subject
from modelkeep.control.users import store
from modelkeep.control.users.rules import Kind, User
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.settings import AccessSettings, DatabaseSettings

T = TypeVar("T")
PEOPLE = ("ada", "bob", "eve")
EVERYBODY = (*PEOPLE, "ci")
NUMBERS = (1, 2, 3)
Wanted = tuple[str, str, int, int]
"""Who wants what: a promotion or a move of the alias, to which number, at which revision."""


@dataclass
class Wish:
    """What somebody asked for, as it should be."""

    by: str
    until: datetime
    yes: set[str] = field(default_factory=set)
    over: bool = False


ACTIONS: dict[str, Callable[["Orders", str, int], None]] = {
    "promote": lambda orders, who, dice: orders.promote(who, NUMBERS[dice % 3]),
    "set alias": lambda orders, who, dice: orders.set_alias(who, NUMBERS[dice % 3]),
    "approve newest": lambda orders, who, dice: orders.approve(who, 1),
    "approve": lambda orders, who, dice: orders.approve(who, dice),
    "refuse": lambda orders, who, dice: orders.refuse(who, dice),
    "configure": lambda orders, who, dice: orders.configure(),
    "take or give a role": lambda orders, who, dice: orders.take_or_give(who),
    "wait": lambda orders, who, dice: orders.clock.advance(hours=(1, 6, 12, 24)[dice % 4]),
}


class Orders(RuleBasedStateMachine):
    """Three people and a service, who may all release, and one model with three versions."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        for left in self.folder.glob("m.db*"):
            left.unlink()
        self.db = Database(DatabaseSettings(url=f"sqlite:///{self.folder}/m.db"))
        self.clock = TestClock()
        self.run(migrate(self.db))
        alone = AccessSettings(two_person="promotion")
        self.control = control_plane(
            self.db, ring_worker=int, ring_courier=int, limits=Limits(), site=SITE, clock=self.clock, alone=alone
        )
        self.keys: dict[str, str] = {}
        self.able = set(EVERYBODY)
        for name in EVERYBODY:
            self.run(self.join(name))
        self.run(self.control.models.create(ADMIN, "m"))
        for number in NUMBERS:
            self.run(ready_version(self.control, "m", bytes([number])))
        self.run(self.control.deployments.promote(SYSTEM, "m", 1))
        self.serving, self.previous, self.revision = 1, 0, 1
        self.moves: list[tuple[int, int]] = []
        self.open: dict[Wanted, str] = {}
        self.wishes: dict[str, Wish] = {}

    async def join(self, name: str) -> None:
        user = User(f"usr_{name}", name, self.clock(), kind=Kind.SERVICE if name == "ci" else Kind.PERSON)
        async with self.db.begin() as tx:
            await store.add_user(tx, user)
        await self.control.access.give(ADMIN, Subject("user", user.id), Role.RELEASER, INSTALLATION)
        admin, themselves = Actor("none", name, user.id, ADMIN.standing), Actor("none", name, user.id, Standing(user.id))
        issued = await self.control.users.issue_key(
            admin if name == "ci" else themselves,
            name,
            frozenset({Scope.ADMIN}),
            None,
            service=user.id if name == "ci" else None,
        )
        self.keys[name] = issued.secret.reveal()

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def actor(self, who: str) -> Actor:
        return self.run(self.control.access.authenticate(self.keys[who]))

    def code(self, work: Coroutine[object, object, object]) -> str:
        try:
            self.run(work)
        except ModelkeepError as refused:
            self.refused = refused
            return refused.code
        return ""

    def teardown(self) -> None:
        self.run(self.db.close())
        self.runner.close()

    @rule(action=st.sampled_from(sorted(ACTIONS)), who=st.sampled_from(EVERYBODY), dice=st.integers(0, 5))
    def step(self, action: str, who: str, dice: int) -> None:
        """Do one thing; a single rule, because Hypothesis leaves whole rules out of most of its runs."""
        ACTIONS[action](self, who, dice)

    def goes_through(self, wanted: Wanted, code: str) -> bool:
        """Hold what came of a wish to what should; whether it went through."""
        who, now = wanted[0], self.clock()
        wish = self.wishes.get(self.open.get(wanted, ""))
        if wish is not None and not wish.over and now < wish.until:
            if len((wish.yes & self.able) | ({who} - {"ci"})) >= 2:
                assert code == ""
                wish.over = True
                return True
        else:
            wish = None
        assert code == "approval_needed"
        assert isinstance(self.refused, ApprovalNeeded)
        approval = self.refused.approval
        if wish is None:
            assert approval not in self.wishes
            self.open[wanted], self.wishes[approval] = approval, Wish(who, now + timedelta(hours=24))
        assert self.open[wanted] == approval
        return False

    def promote(self, who: str, number: int) -> None:
        code = self.code(self.control.deployments.promote(self.actor(who), "m", number))
        if who not in self.able:
            assert code == "deployment_not_found"
        elif number == self.serving:
            assert code == ""
        else:
            back = number == self.previous and number < self.serving
            assert not back or code == ""
            if back or self.goes_through((who, "promote", number, self.revision), code):
                self.serving, self.previous, self.revision = number, self.serving, self.revision + 1

    def set_alias(self, who: str, number: int) -> None:
        code = self.code(self.control.models.set_alias(self.actor(who), "m", "live", number))
        now = self.moves[-1][1] if self.moves else 0
        if who not in self.able:
            assert code == "model_not_found"
        elif number == now:
            assert code == ""
        else:
            back = bool(self.moves) and self.moves[-1][0] == number and number < now
            assert not back or code == ""
            if back or self.goes_through((who, "alias", number, len(self.moves)), code):
                self.moves.append((now, number))

    def some(self, dice: int) -> tuple[str, Wish] | None:
        """Return one of the newest wishes."""
        found = sorted(self.wishes.items())[-max(1, dice) :]
        return found[0] if found else None

    def answered(self, who: str, wish: Wish, code: str) -> bool:
        """Hold an answer to a wish to what should come of it; whether it counts."""
        if who not in self.able:
            assert code == "approval_not_found"
        elif wish.over or self.clock() >= wish.until:
            assert code == "approval_over"
        else:
            return True
        return False

    def approve(self, who: str, dice: int) -> None:
        found = self.some(dice)
        if found is None:
            return
        approval, wish = found
        code = self.code(self.control.approvals.approve(self.actor(who), approval))
        if self.answered(who, wish, code):
            assert code == ("second_person_needed" if who in {wish.by, "ci"} else "")
            if not code:
                wish.yes.add(who)

    def refuse(self, who: str, dice: int) -> None:
        found = self.some(dice)
        if found is None:
            return
        approval, wish = found
        code = self.code(self.control.approvals.refuse(self.actor(who), approval, "no"))
        if self.answered(who, wish, code):
            assert code == ""
            wish.over = True

    def configure(self) -> None:
        self.run(self.control.deployments.configure(ADMIN, "m", {"concurrency": self.revision + 1}))
        self.revision += 1

    def take_or_give(self, who: str) -> None:
        subject = Subject("user", f"usr_{who}")
        if who in self.able:
            (given,) = self.run(self.control.access.grants(ADMIN, limit=2, subject=subject))
            self.run(self.control.access.take(ADMIN, given, INSTALLATION))
        else:
            self.run(self.control.access.give(ADMIN, subject, Role.RELEASER, INSTALLATION))
        self.able ^= {who}

    @invariant()
    def everything_is_as_expected(self) -> None:
        found, _serving = self.run(self.control.deployments.deployment(ADMIN, "m"))
        assert (found.version, found.previous_version or 0, found.revision) == (self.serving, self.previous, self.revision)
        moves = self.run(self.control.models.alias_history(ADMIN, "m", "live", limit=100)) if self.moves else []
        assert [(one.from_version or 0, one.to_version) for one in reversed(moves)] == self.moves
        used = [one for one in self.run(self.control.audit.entries(limit=500)) if one.action == "approval.use"]
        assert len({one.target for one in used}) == len(used)


def test_no_order_of_events_lets_one_person_have_their_way_alone(tmp_path: Path):
    Orders.folder = tmp_path
    relaxed = settings(
        max_examples=15, stateful_step_count=40, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Orders, settings=relaxed)


@pytest.fixture(autouse=True)
def _no_loop_is_left():
    yield
    asyncio.set_event_loop(None)
