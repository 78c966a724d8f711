"""The life of versions and of their deployment, in any order, against a model of it small enough to be seen through."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fixtures.control import ADMIN, FINDINGS, SITE, TestClock, upload
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.rejections import Reason, reject
from modelkeep.contracts.snapshot import Limits, decode_snapshot
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.infra import broadcast
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.settings import DatabaseSettings

T = TypeVar("T")
MOST = 3
ALIASES = ("champion", "canary")
places = st.integers(0, MOST - 1)


class Expected:
    """A version as it should be."""

    def __init__(self) -> None:
        self.state = "received"
        self.archived = False


ACTIONS: dict[str, Callable[["Life", int, int], None]] = {
    "upload": lambda life, place, dice: life.upload(),
    "decide": lambda life, place, dice: life.decide(place, bad=dice == 0),
    "begin": lambda life, place, dice: life.begin(place),
    "promote": lambda life, place, dice: life.promote(place, seen=(None, None, 0, -1)[dice]),
    "archive version": lambda life, place, dice: life.archive_version(place),
    "restore version": lambda life, place, dice: life.restore_version(place),
    "set alias": lambda life, place, dice: life.set_alias(ALIASES[dice % 2], place, seen=(None, None, 0, -1)[dice]),
    "delete alias": lambda life, place, dice: life.delete_alias(ALIASES[dice % 2]),
    "archive or restore": lambda life, place, dice: life.archive_or_restore(archived=dice == 0),
}


class Life(RuleBasedStateMachine):
    """Uploads, decisions, promotions, aliases, archiving and restoring of one model."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.file = self.folder / "m.db"
        for left in self.folder.glob("m.db*"):
            left.unlink()
        self.db = Database(DatabaseSettings(url=f"sqlite:///{self.file}"))
        self.run(migrate(self.db))
        self.control = control_plane(self.db, ring_worker=int, ring_courier=int, limits=Limits(), site=SITE, clock=TestClock())
        self.run(self.control.models.create(ADMIN, "m"))
        self.versions: dict[int, Expected] = {}
        self.serving: int | None = None
        self.revision = 0
        self.archived = False
        self.aliases: dict[str, int] = {}
        self.moves: dict[str, list[tuple[int | None, int | None]]] = {alias: [] for alias in ALIASES}
        self.upload()

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def code(self, work: Coroutine[object, object, object]) -> str:
        """Return the code of the refusal, or "" when there was none."""
        try:
            self.run(work)
        except ModelkeepError as refused:
            return refused.code
        return ""

    def some(self, place: int) -> tuple[int, Expected]:
        """Return one of the versions there are, by number."""
        number = sorted(self.versions)[place % len(self.versions)]
        return number, self.versions[number]

    def teardown(self) -> None:
        self.run(self.db.close())
        self.runner.close()

    @rule(action=st.sampled_from(sorted(ACTIONS)), place=places, dice=st.integers(0, 3))
    def step(self, action: str, place: int, dice: int) -> None:
        """Do one thing; a single rule, because Hypothesis leaves whole rules out of most of its runs."""
        ACTIONS[action](self, place, dice)

    def upload(self) -> None:
        if len(self.versions) == MOST:
            return
        number = len(self.versions) + 1
        assert self.code(self.control.models.receive(ADMIN, "m", upload(bytes([number])))) == (
            "model_archived" if self.archived else ""
        )
        if not self.archived:
            self.versions[number] = Expected()

    def decide(self, place: int, *, bad: bool) -> None:
        number, expected = self.some(place)
        version_id = self.run(self.control.models.version(ADMIN, "m", number)).id
        if not bad:
            self.run(self.control.models.accept(version_id, FINDINGS, "job_x"))
        else:
            self.run(self.control.models.reject(version_id, reject(Reason.CORRUPT), "job_x"))
        if expected.state not in {"received", "validating"}:
            return
        expected.state = "rejected" if bad else "ready"
        if not bad and self.serving is None and not expected.archived and not self.archived:
            self.serving, self.revision = number, self.revision + 1

    def begin(self, place: int) -> None:
        number, expected = self.some(place)
        version_id = self.run(self.control.models.version(ADMIN, "m", number)).id
        begun = self.run(self.control.models.begin_validation(version_id))
        assert (begun is None) == (expected.state in {"ready", "rejected"})
        if begun is not None:
            expected.state = "validating"

    def promote(self, place: int, seen: int | None) -> None:
        number, expected = self.some(place)
        revision = None if seen is None else self.revision + seen
        code = self.code(self.control.deployments.promote(ADMIN, "m", number, expected=revision))
        if seen == -1:
            assert code == "stale"
        elif self.archived:
            assert code == "model_archived"
        elif expected.archived:
            assert code == "version_archived"
        elif expected.state != "ready":
            assert code == "version_not_ready"
        else:
            assert code == ""
            if self.serving != number:
                self.serving, self.revision = number, self.revision + 1

    def archive_version(self, place: int) -> None:
        number, expected = self.some(place)
        code = self.code(self.control.lifecycle.archive(ADMIN, "m", number))
        if expected.archived:
            assert code == ""
        elif self.serving == number or number in self.aliases.values():
            assert code == "version_in_use"
        else:
            assert code == ""
            expected.archived = True

    def restore_version(self, place: int) -> None:
        number, expected = self.some(place)
        code = self.code(self.control.lifecycle.restore(ADMIN, "m", number))
        assert code == ""
        expected.archived = False

    def set_alias(self, alias: str, place: int, seen: int | None) -> None:
        number, expected = self.some(place)
        present, moves = self.aliases.get(alias), self.moves[alias]
        revision = None if seen is None else (len(moves) if present else 0) + seen
        if revision == -1:
            revision = 99
        code = self.code(self.control.models.set_alias(ADMIN, "m", alias, number, expected=revision))
        if self.archived:
            assert code == "model_archived"
        elif expected.archived:
            assert code == "version_archived"
        elif expected.state != "ready":
            assert code == "version_not_ready"
        elif seen == -1:
            assert code == "stale"
        else:
            assert code == ""
            if present != number:
                moves.append((present, number))
                self.aliases[alias] = number

    def delete_alias(self, alias: str) -> None:
        code = self.code(self.control.models.delete_alias(ADMIN, "m", alias))
        if alias not in self.aliases:
            assert code == "alias_not_found"
        else:
            assert code == ""
            self.moves[alias].append((self.aliases.pop(alias), None))

    def archive_or_restore(self, *, archived: bool) -> None:
        change = self.control.lifecycle.archive if archived else self.control.lifecycle.restore
        self.run(change(ADMIN, "m"))
        self.archived = archived

    @invariant()
    def everything_is_as_expected(self) -> None:
        found = {one.number: one for one in self.run(self.control.models.versions(ADMIN, "m", limit=10))}
        assert {number: (one.state, one.archived_at is not None) for number, one in found.items()} == {
            number: (one.state, one.archived) for number, one in self.versions.items()
        }
        deployment, _serving = self.run(self.control.deployments.deployment(ADMIN, "m"))
        assert (deployment.version, deployment.revision) == (self.serving, self.revision)
        model = self.run(self.control.models.model(ADMIN, "m"))
        assert (model.latest_version, model.serving_version) == (len(self.versions) or None, self.serving)
        assert model.aliases == self.aliases

    @invariant()
    def the_history_has_every_move_and_nothing_else(self) -> None:
        for alias, moves in self.moves.items():
            if not moves:
                assert self.code(self.control.models.alias_history(ADMIN, "m", alias, limit=9)) == "alias_not_found"
                continue
            found = self.run(self.control.models.alias_history(ADMIN, "m", alias, limit=100))
            assert [(one.from_version, one.to_version) for one in reversed(found)] == moves
            assert [one.revision for one in reversed(found)] == list(range(1, len(moves) + 1))

    @invariant()
    def serving_hears_exactly_that(self) -> None:
        news = self.run(self._latest())
        snapshot = decode_snapshot(news.payload) if news else None
        served = {version.number: version.id for version in snapshot.versions} if snapshot else {}
        answers = self.serving is not None and not self.archived
        assert served.keys() == ({self.serving, *self.aliases.values()} if answers else set())
        aliases = snapshot.deployments[0].aliases if snapshot and snapshot.deployments else {}
        assert aliases == ({name: served[number] for name, number in self.aliases.items()} if answers else {})

    async def _latest(self) -> broadcast.News | None:
        async with self.db.read() as tx:
            return await broadcast.latest(tx, SNAPSHOT, 0)


def test_no_order_of_events_breaks_the_life_cycle(tmp_path: Path):
    Life.folder = tmp_path
    relaxed = settings(
        max_examples=20, stateful_step_count=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Life, settings=relaxed)


@pytest.fixture(autouse=True)
def _no_loop_is_left():
    yield
    asyncio.set_event_loop(None)
