"""Deprecating, archiving, trashing, holding, restoring and purging in any order, against a model of it that is small."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fixtures.collecting import Keeper
from fixtures.control import ADMIN, TestClock
from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.models.life import Deprecation
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore
from modelkeep.worker.purge import Purger

T = TypeVar("T")
NUMBERS = (1, 2, 3)
KEEP = timedelta(days=30)


class Expected:
    """A model (number 0) or a version as it should be."""

    def __init__(self) -> None:
        self.deprecated = self.archived = self.held = self.purged = False
        self.trashed_at: object = None
        self.changes = 0

    @property
    def life(self) -> str:
        if self.purged:
            return "purged"
        if self.trashed_at:
            return "trashed"
        return "archived" if self.archived else "deprecated" if self.deprecated else "active"


class Trash(RuleBasedStateMachine):
    """One model with three versions, of which the first answers, until it is archived with its model."""

    folder: Path
    rounds = 0

    def __init__(self) -> None:
        super().__init__()
        Trash.rounds += 1
        folder = self.folder / str(Trash.rounds)
        folder.mkdir()
        self.runner = asyncio.Runner()
        self.db = Database(DatabaseSettings(url=f"sqlite:///{folder}/m.db"))
        self.run(migrate(self.db))
        self.clock = TestClock()
        self.keeper = Keeper(self.db, self.clock, LocalStore(folder / "blobs"))
        self.life = self.keeper.control.lifecycle
        self.purger = Purger(self.db, self.life, self.keeper.claims, self.keeper.blobs, self.clock)
        self.digests = {}
        for number in NUMBERS:
            made = self.run(self.keeper.receive(f"version {number % 2}".encode()))  # the first and the third are the same file
            self.run(self.keeper.accept(made))
            self.digests[number] = made.digest
        self.things = {number: Expected() for number in (0, *NUMBERS)}
        self.alias: int | None = None

    @property
    def model(self) -> Expected:
        return self.things[0]

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def code(self, work: Coroutine[object, object, object]) -> str:
        try:
            self.run(work)
        except ModelkeepError as refused:
            return refused.code
        return ""

    def teardown(self) -> None:
        self.run(self.db.close())
        self.runner.close()

    @rule(
        action=st.sampled_from(
            sorted(["deprecate", "revive", "archive", "trash", "restore", "hold", "release", "purge", "point", "wait"])
        ),
        number=st.sampled_from((0, *NUMBERS)),
    )
    def step(self, action: str, number: int) -> None:
        """Do one thing; a single rule, because Hypothesis leaves whole rules out of most of its runs."""
        if self.model.purged:
            return
        acts: dict[str, Callable[[int, Expected], None]] = {name: getattr(self, name) for name in dir(self) if name == action}
        acts[action](number, self.things[number])

    def _asked(self, number: int) -> int | None:
        return number or None

    def _away(self, number: int, thing: Expected, *, archived: bool = True) -> str:
        """The code by which a change of something that was put away is refused."""
        what = "version" if number else "model"
        if thing.purged:
            return "purged"
        if self.model.trashed_at:
            return "model_trashed"
        if thing.trashed_at:
            return f"{what}_trashed"
        return f"{what}_archived" if archived and thing.archived else ""

    def _in_use(self, number: int) -> bool:
        return number in (1, self.alias)

    def deprecate(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.deprecate(ADMIN, "m", self._asked(number), Deprecation(self.clock()), reason="r"))
        assert code == self._away(number, thing)
        if not code:
            thing.deprecated = True
            thing.changes += 1

    def revive(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.revive(ADMIN, "m", self._asked(number)))
        assert code == self._away(number, thing)
        if not code:
            thing.changes += thing.deprecated
            thing.deprecated = False

    def archive(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.archive(ADMIN, "m", self._asked(number)))
        wanted = self._away(number, thing, archived=False)
        if not wanted and not thing.archived and number and self._in_use(number):
            wanted = "version_in_use"
        assert code == wanted
        if not code:
            thing.changes += not thing.archived
            thing.archived = True

    def trash(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.trash(ADMIN, "m", self._asked(number)))
        held = thing.held or self.model.held or (not number and any(one.held for one in self.things.values()))
        if thing.trashed_at and not thing.purged:
            assert code == ""
            return
        wanted = self._away(number, thing, archived=False) or ("on_hold" if held else "")
        if not wanted and number and self._in_use(number):
            wanted = "version_in_use"
        if not wanted and not number and not thing.archived:
            wanted = "model_in_use"
        assert code == wanted
        if not code:
            thing.trashed_at = self.clock()
            thing.changes += 1

    def restore(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.restore(ADMIN, "m", self._asked(number)))
        assert code == ("purged" if thing.purged else "model_trashed" if number and self.model.trashed_at else "")
        if not code:
            thing.changes += bool(thing.archived or thing.trashed_at)
            thing.archived, thing.trashed_at = False, None

    def hold(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.hold(ADMIN, "m", self._asked(number), reason="case"))
        assert code == ("purged" if thing.purged else "")
        if not code:
            thing.held = True
            thing.changes += 1

    def release(self, number: int, thing: Expected) -> None:
        assert self.code(self.life.release(ADMIN, "m", self._asked(number))) == ""
        thing.changes += thing.held
        thing.held = False

    def purge(self, number: int, thing: Expected) -> None:
        code = self.code(self.life.purge(ADMIN, "m", self._asked(number), reason="r"))
        held = thing.held or self.model.held or (not number and any(one.held for one in self.things.values()))
        if thing.purged:
            assert code == ""
            return
        assert code == ("not_trashed" if not thing.trashed_at else "on_hold" if held else "")
        if not code:
            self._gone(number)

    def wait(self, number: int, thing: Expected) -> None:
        """Sixteen days go by, and the worker looks."""
        del number, thing
        self.clock.advance(days=16)
        self.run(self.life.expire())
        due = {
            number
            for number, one in self.things.items()
            if one.trashed_at and not one.purged and one.trashed_at + KEEP <= self.clock() and not (one.held or self.model.held)
        }
        if 0 in due and not any(one.held for one in self.things.values()):
            self._gone(0)
        elif not self.model.trashed_at:
            for number in due:
                self._gone(number)

    def point(self, number: int, thing: Expected) -> None:
        code = self.code(self.keeper.control.models.set_alias(ADMIN, "m", "live", number or 1))
        if not number:
            number, thing = 1, self.things[1]
        away = "model_archived" if self.model.archived and not self.model.trashed_at else ""
        if self.model.trashed_at:
            away = "model_trashed"
        of_it = "version_trashed" if thing.trashed_at else "version_archived" if thing.archived else ""
        assert code == (away or of_it)
        if not code:
            self.alias = number

    def _gone(self, number: int) -> None:
        """What was asked to be purged is purged, twice; the worker does it at once."""
        for record in self.run(self.life.erasures(ADMIN, limit=50)):
            self.run(self.purger.purge(record.id))
            self.run(self.purger.purge(record.id))
        for one in (number,) if number else self.things:
            if not self.things[one].purged:
                self.things[one].purged = True
                self.things[one].trashed_at = self.things[one].trashed_at or self.clock()
                self.things[one].changes += 2

    @invariant()
    def everything_is_as_expected(self) -> None:
        models = self.keeper.control.models
        if self.model.purged:
            assert self.code(models.model(ADMIN, "m")) == "model_not_found"
            return
        assert self.run(models.model(ADMIN, "m")).life == self.model.life
        for number in NUMBERS:
            assert self.run(models.version(ADMIN, "m", number)).life == self.things[number].life
        for trashed in (False, True):
            listed = {one.number for one in self.run(models.versions(ADMIN, "m", limit=10, trashed=trashed))}
            assert listed == {n for n in NUMBERS if not self.things[n].purged and bool(self.things[n].trashed_at) == trashed}

    @invariant()
    def the_store_holds_exactly_what_is_named(self) -> None:
        assert self.run(self.keeper.lying()) == {self.digests[n] for n in NUMBERS if not self.things[n].purged}

    @invariant()
    def every_change_left_one_row_and_each_begins_where_the_last_ended(self) -> None:
        if self.model.purged:
            return
        for number, thing in self.things.items():
            found = self.run(self.life.changes(ADMIN, "m", self._asked(number), limit=200))[::-1]
            assert len(found) == thing.changes
            assert [one.before for one in found] == (["active", *(one.after for one in found)][: len(found)])

    @invariant()
    def every_purge_proved_that_nothing_is_left(self) -> None:
        for record in self.run(self.life.erasures(ADMIN, limit=50)):
            assert (record.bytes_after, record.finished_at is not None) == (0, True)


def test_no_order_of_changes_breaks_what_is_promised(tmp_path: Path):
    Trash.folder = tmp_path
    relaxed = settings(
        max_examples=25, stateful_step_count=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Trash, settings=relaxed)


@pytest.fixture(autouse=True)
def _no_loop_is_left():
    yield
    asyncio.set_event_loop(None)
