"""Logins, refreshes, thefts, logouts, disabling and new passwords in any order, against a model of what each session may do."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fixtures.control import SITE, TestClock
from fixtures.passwords import cheap
from fixtures.people import PASSWORD, people_over
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import ModelkeepError, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.sessions.rules import Tokens
from modelkeep.control.sessions.service import Origin
from modelkeep.control.users.rules import User
from modelkeep.infra.db import Database
from modelkeep.infra.settings import DatabaseSettings

PASSWORDS = (PASSWORD, "staple of another kind")
BOB = "bob@example.org"


class Expected:
    """A session as it should be: its tokens in the order of their making, and when each refresh token was used."""

    def __init__(self, first: Tokens) -> None:
        self.tokens = [first]
        self.used: list[float] = []
        self.good = True


ACTIONS: dict[str, Callable[["Life", int], None]] = {
    "log in": lambda life, dice: life.login(right=dice != 0),
    "refresh": lambda life, dice: life.refresh(dice),
    "use an old token": lambda life, dice: life.refresh(dice, old=True),
    "log out": lambda life, dice: life.logout(dice),
    "log out everywhere": lambda life, dice: life.logout_all(dice),
    "disable or enable": lambda life, dice: life.disable_or_enable(),
    "another password": lambda life, dice: life.another_password(dice),
    "seconds pass": lambda life, dice: life.clock.advance(seconds=(1, 4, 9, 11)[dice]),
    "time passes": lambda life, dice: life.clock.advance(minutes=(5, 16, 31, 31)[dice]),
}


class Life(RuleBasedStateMachine):
    """The sessions of one person, with an administrator beside them."""

    migrated: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        file = self.folder / "m.db"
        for left in self.folder.glob("m.db*"):
            left.unlink()
        shutil.copyfile(self.migrated, file)
        self.db = Database(DatabaseSettings(url=f"sqlite:///{file}"))
        self.clock = TestClock()
        control = control_plane(
            self.db, ring_worker=int, ring_courier=int, limits=Limits(), site=SITE, clock=self.clock, passwords=cheap()
        )
        self.people = self.run(people_over(control, self.db))
        self.password = 0
        kept = self.run(control.passwords.hashed(PASSWORDS[0]))
        self.bob = User(new_id("usr"), "bob", self.clock(), email=BOB)
        self.run(control.users.add(self.people.admin, self.bob, kept))
        self.active = True
        self.sessions: list[Expected] = []

    def run(self, work: Coroutine[object, object, Any]) -> Any:
        return self.runner.run(work)

    def code(self, work: Coroutine[object, object, object]) -> str:
        """Return the code of the refusal, or "" when there was none."""
        try:
            self.run(work)
        except ModelkeepError as refused:
            return refused.code
        return ""

    def teardown(self) -> None:
        self.run(self.db.close())
        self.runner.close()

    @rule(action=st.sampled_from(sorted(ACTIONS)), dice=st.integers(0, 3))
    def step(self, action: str, dice: int) -> None:
        """Do one thing."""
        ACTIONS[action](self, dice)

    @invariant()
    def each_token_opens_what_it_should(self) -> None:
        for expected in self.sessions:
            for made in (expected.tokens[0], expected.tokens[-1]):
                good = expected.good and self.active and self.clock() < made.expires_at
                refused = self.code(self.people.sessions.authenticate(made.access))
                assert refused == ("" if good else Unauthenticated.code)

    @invariant()
    def the_list_is_what_goes_on(self) -> None:
        bob = Actor("x", "bob", self.bob.id)
        listed = {one.id for one in self.run(self.people.sessions.mine(bob))}
        assert listed == {one.tokens[0].session_id for one in self.sessions if one.good}

    def login(self, *, right: bool) -> None:
        password = PASSWORDS[self.password if right else 1 - self.password]
        self.clock.advance(minutes=16)  # whatever has failed before, nobody waits any more
        work = self.people.sessions.login(BOB, password, Origin("192.0.2.7"))
        if right and self.active:
            self.sessions.append(Expected(self.run(work)))
        else:
            assert self.code(work) == "login_refused"

    def refresh(self, dice: int, *, old: bool = False) -> None:
        if not self.sessions:
            return
        expected = self.sessions[dice % len(self.sessions)]
        at = max(0, len(expected.tokens) - 2) if old else len(expected.tokens) - 1
        token, now = expected.tokens[at], self.clock.now.timestamp()
        work = self.people.sessions.refresh(token.refresh)
        if not expected.good or not self.active:
            assert self.code(work) == "refresh_refused"
        elif at == len(expected.used):
            expected.tokens.append(self.run(work))
            expected.used.append(now)
        elif now < expected.used[at] + 10:
            assert self.run(work) == expected.tokens[at + 1]
        else:
            assert self.code(work) == "refresh_refused"
            expected.good = False

    def logout(self, dice: int) -> None:
        alive = [one for one in self.sessions if one.good and self.active and self.clock() < one.tokens[-1].expires_at]
        if alive:
            expected = alive[dice % len(alive)]
            actor = self.run(self.people.acting(expected.tokens[-1].access))
            self.run(self.people.sessions.logout(actor))
            expected.good = False

    def logout_all(self, dice: int) -> None:
        if dice == 0:
            self.run(self.people.sessions.logout_all(Actor("x", "bob", self.bob.id)))
            self._all_end()

    def disable_or_enable(self) -> None:
        self.active = not self.active
        self.run(self.people.control.users.set_active(self.people.admin, self.bob.id, active=self.active))
        if not self.active:
            self._all_end()

    def another_password(self, dice: int) -> None:
        alive = [one for one in self.sessions if one.good and self.active and self.clock() < one.tokens[-1].expires_at]
        if not alive:
            return
        mine = alive[dice % len(alive)]
        actor = self.run(self.people.acting(mine.tokens[-1].access))
        self.clock.advance(minutes=16)
        old, new = PASSWORDS[self.password], PASSWORDS[1 - self.password]
        assert self.code(self.people.sessions.change_password(actor, new, old)) == "wrong_password"
        self.clock.advance(minutes=16)
        self.run(self.people.sessions.change_password(actor, old, new))
        self.password = 1 - self.password
        self._all_end()
        mine.good = True

    def _all_end(self) -> None:
        for one in self.sessions:
            one.good = False


def test_sessions_do_what_the_model_says(migrated_sqlite: Path, tmp_path: Path):
    Life.migrated, Life.folder = migrated_sqlite, tmp_path
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        ),
    )
