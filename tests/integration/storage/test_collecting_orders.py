"""Whatever the order in which uploads, validations, rotations and collections take their steps, no file that is needed goes."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.collecting import DAYS, Keeper, read_keys
from fixtures.control import TestClock
from fixtures.stores import content
from modelkeep.contracts.errors import BeingRemoved
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.models.rules import State, Version
from modelkeep.infra.blob_claims import OthersTurn
from modelkeep.infra.db import Database
from modelkeep.infra.envelopes import MasterKeys, new_master_key
from modelkeep.infra.sealed_store import SealedStore
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore


@dataclass
class Stage:
    """Runs tasks one step at a time, in an order that is drawn."""

    tasks: dict[asyncio.Task[None], str] = field(default_factory=dict)
    gates: dict[asyncio.Task[None], asyncio.Future[None]] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def step(self) -> None:
        """Wait until this task's turn comes; whoever is no task of the stage goes on."""
        task = asyncio.current_task()
        if task not in self.tasks:
            return
        gate = self.gates[task] = asyncio.get_running_loop().create_future()
        self.arrived.set()
        await gate

    async def begin(self, kind: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = kind
        await self._settled(task)

    async def advance(self, number: int, *, kill: bool = False) -> None:
        """Let one of the tasks take a step, or be killed where it stands."""
        task = list(self.tasks)[number % len(self.tasks)]
        if kill:
            task.cancel()
        self.gates.pop(task).set_result(None) if not kill else self.gates.pop(task)
        await self._settled(task)

    async def _settled(self, task: asyncio.Task[None]) -> None:
        while not task.done() and task not in self.gates:
            self.arrived.clear()
            arriving = asyncio.create_task(self.arrived.wait())
            await asyncio.wait({task, arriving}, return_when=asyncio.FIRST_COMPLETED)
            arriving.cancel()
        if task.done():
            del self.tasks[task]
            if not task.cancelled():
                task.result()


DATA = [bytes([number]) * (number + 1) for number in range(2)]


actions = st.lists(
    st.tuples(
        st.sampled_from(["upload", "upload", "validate", "rotate", "collect", "collect", "wait", "wait", "jump", "kill"]),
        st.integers(0, 5),
        st.integers(0, 9),
    ),
    min_size=4,
    max_size=30,
)


class Play:
    """Uploads, validations, rotations and collections in a drawn order, and what must stay true throughout."""

    def __init__(self, keeper: Keeper, stage: Stage, folder: Path, keys: list[str]) -> None:
        self.keeper, self.stage, self.folder, self.keys = keeper, stage, folder, keys
        self.versions: list[Version] = []
        self.needed: dict[str, bytes] = {}
        self.refused = 0

    async def act(self, kind: str, which: int, steps: int) -> None:
        match kind:
            case "upload":
                await self.stage.begin(kind, self._upload(DATA[which % len(DATA)]))
            case "validate":
                await self.stage.begin(kind, self._validate(which))
            case "rotate" if self.keys:
                await self.stage.begin(kind, self._rotate())
            case "collect":
                await self.stage.begin(kind, self._collect())
            case "wait":  # no step takes days
                await self.finished(which)
                self.keeper.clock.advance(days=1 if which == 0 else DAYS + 1)
            case "jump" if not {"collect", "rotate"} & set(self.stage.tasks.values()):  # a turn is as long as the clock says
                self.keeper.clock.advance(days=DAYS + 1)
            case "kill" if self.stage.tasks:
                await self.stage.advance(which, kill=True)
        for number in range(steps):
            if self.stage.tasks:
                await self.stage.advance(which + number)
            await self.check()

    async def step(self, kind: str) -> None:
        """Let the task of this kind take a step, if it has not ended."""
        kinds = list(self.stage.tasks.values())
        if kind in kinds:
            await self.stage.advance(kinds.index(kind))

    async def finished(self, which: int = 0) -> None:
        while self.stage.tasks:
            await self.stage.advance(which)
            await self.check()

    async def finish(self) -> None:
        await self.finished()
        self.keeper.clock.advance(days=30)
        await self.keeper.collector.collect()
        await self.check()
        assert (await self.keeper.collector.look()).unused == ()

    async def check(self) -> None:
        """Every file that any version names, those of fresh rejected ones too, is there and whole."""
        async with self.keeper.db.read() as tx:
            files = await self.keeper.control.models.files(tx, self.keeper.clock() - timedelta(days=DAYS))
        fresh: BlobStore = LocalStore(self.folder)
        if self.keys:
            fresh = SealedStore(LocalStore(self.folder), self._master_keys())
        for digest in files.used:
            assert hashlib.sha256(await content(fresh, digest)).hexdigest() == digest

    def _master_keys(self) -> MasterKeys:
        return read_keys(self.folder.parent / "keys", self.keys)

    async def _upload(self, data: bytes) -> None:
        try:
            self.versions.append(await self.keeper.receive(data))
        except BeingRemoved:
            self.refused += 1

    async def _validate(self, which: int) -> None:
        waiting = [one for one in self.versions if one.state is State.RECEIVED]
        if not waiting:
            return
        version = waiting[which % len(waiting)]
        self.versions.remove(version)
        if which % 2:
            await self.keeper.reject(version)
            return
        try:
            compiled = await self.keeper.put(DATA[which // 2 % len(DATA)])
            await self.stage.step()
            await self.keeper.accept(version, compiled if which % 4 else None)
        except BeingRemoved:
            self.versions.append(version)

    async def _rotate(self) -> None:
        self.keys.append(self.keys.pop(0))
        try:
            async with self.keeper.claims.turn() as turn:
                await SealedStore(self.keeper.dated, self._master_keys()).rotate(turn.keep)
        except OthersTurn:
            return

    async def _collect(self) -> None:
        try:
            await self.keeper.collector.collect()
        except OthersTurn:
            return


@asynccontextmanager
async def acting(migrated: Path, folder: Path, *, sealed: bool) -> AsyncIterator[Play]:
    """A play in a new installation."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(migrated, folder / "modelkeep.db")
    db = Database(DatabaseSettings(url=f"sqlite:///{folder}/modelkeep.db"))
    stage = Stage()
    keys = [new_master_key(f"key{number}") for number in range(3)] if sealed else []
    mine = read_keys(folder / "keys", keys) if sealed else None
    keeper = Keeper(db, TestClock(), LocalStore(folder / "blobs"), stage.step, mine)
    try:
        yield Play(keeper, stage, folder / "blobs", keys)
    finally:
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        await db.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("sealed", [False, True])
@given(play=actions)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_referred_to_is_ever_gone(migrated_sqlite: Path, tmp_path_factory, play: list, sealed: bool):
    async def walk() -> None:
        async with acting(migrated_sqlite, tmp_path_factory.mktemp("play"), sealed=sealed) as played:
            for kind, which, steps in play:
                await played.act(kind, which, steps)
            await played.finish()

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("sealed", "kinds"),
    [
        *((sealed, kinds) for sealed in (False, True) for kinds in (("upload", "collect"), ("collect", "upload"))),
        (True, ("rotate", "collect", "upload")),
    ],
    ids=str,
)
async def test_a_file_that_comes_again_while_it_is_removed_stays_or_is_refused(
    migrated_sqlite: Path, tmp_path: Path, sealed: bool, kinds: tuple[str, ...]
):
    """Every place where the first is stopped, every one where the second is; then the last goes on to its end, first."""
    stops = [(first, second) for first in range(8) for second in range(8)]
    uploaded = 0
    async with acting(migrated_sqlite, tmp_path / "play", sealed=sealed) as played:
        for first, second in stops:
            gone = await played.keeper.receive(DATA[0])
            await played.keeper.reject(gone)
            played.keeper.clock.advance(days=DAYS + 1)
            played.versions.clear()
            for kind, steps in zip(kinds, (first, second, 0), strict=False):
                await played.act(kind, 0, 0)
                for _step in range(steps):
                    await played.step(kind)
            for kind in reversed(kinds):
                while kind in played.stage.tasks.values():
                    await played.step(kind)
            await played.check()
            uploaded += len(played.versions)
            for version in played.versions:
                await played.keeper.reject(version)
            played.keeper.clock.advance(days=DAYS + 1)
            await played.keeper.collector.collect()
    assert uploaded + played.refused == len(stops)
    assert uploaded > 0
