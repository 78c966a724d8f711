"""The site key is replaced beside running processes: nobody is logged out, and a write is not done twice."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from fixtures.control import TestClock
from fixtures.people import EMAIL, HERE, PASSWORD, People
from modelkeep.app import site_key_work
from modelkeep.app.settings import Settings
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM
from modelkeep.contracts.errors import AnswerSealed, Unauthenticated
from modelkeep.control.audit.service import Audit
from modelkeep.control.audit.tables import audit_checkpoints
from modelkeep.control.sessions.service import Sessions
from modelkeep.infra import site_key
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.idempotency import Answer, Repeated, Write
from modelkeep.infra.settings import DatabaseSettings


class Process:
    """An api process, which has read the site key when it started."""

    def __init__(self, people: People, db: Database, path: Path, clock: TestClock) -> None:
        control = people.control
        self.sessions = Sessions(
            db=db,
            users=control.users,
            audit=control.audit,
            events=control.events,
            passwords=control.passwords,
            site_key=site_key.opened(path),
            clock=clock,
        )


@pytest.fixture
def settings(db: Database, tmp_path: Path) -> Settings:
    data = tmp_path / "data"
    data.mkdir()
    url = db.url.render_as_string(hide_password=False)
    return Settings(data=data, database=DatabaseSettings(url=url))  # type: ignore[arg-type]


async def test_nobody_is_logged_out_at_any_step(people: People, db: Database, settings: Settings, clock: TestClock):
    path = settings.data / "site.key"

    def start() -> Sessions:
        return Process(people, db, path, clock).sessions

    running = start()
    people.sessions = running
    tokens = [await people.login()]

    async def all_are_in(*processes: Sessions) -> None:
        """Each process lets in whoever has a token of any other, and gives new ones that all take."""
        tokens.extend([await process.login(EMAIL, PASSWORD, HERE) for process in processes])
        for process in processes:
            tokens.append(await process.refresh(tokens.pop(0).refresh))
            for one in tokens:
                assert (await process.authenticate(one.access))[1].name == "ada"

    await all_are_in(running)
    site_key_work.add(settings)
    await all_are_in(running, start())
    running = start()
    carried = await site_key_work.rotate(settings)
    assert (carried.signing_keys.rewritten, carried.signing_keys.lost) == (1, 0)
    await all_are_in(running, start())
    again = await site_key_work.rotate(settings)
    assert (again.signing_keys.rewritten, again.signing_keys.already) == (0, 1)
    running = start()
    clock.advance(minutes=31)  # the tokens that the key from before has signed are over
    tokens[:] = [await running.refresh(one.refresh) for one in tokens]
    await site_key_work.forget(settings)
    await all_are_in(running, start())
    assert len(path.read_text().splitlines()) == 1


async def test_what_the_older_key_has_sealed_after_all_is_carried_over_before_it_goes(
    people: People, db: Database, settings: Settings, clock: TestClock
):
    path = settings.data / "site.key"
    old = Process(people, db, path, clock).sessions
    await old.login(EMAIL, PASSWORD, HERE)
    site_key_work.add(settings)
    await site_key_work.rotate(settings)
    clock.advance(minutes=1)
    await old.rotate_keys(people.admin)  # by a process that was not started again
    with pytest.raises(site_key_work.StillNeeded):
        await site_key_work.forget(settings)
    assert len(path.read_text().splitlines()) == 2
    await site_key_work.forget(settings)
    new = Process(people, db, path, clock).sessions
    clock.advance(minutes=11)
    await new.login(EMAIL, PASSWORD, HERE)


async def test_a_write_that_is_repeated_gets_its_answer_across_a_rotation_and_is_never_done_twice(
    people: People, db: Database, settings: Settings, clock: TestClock
):
    path, actor = settings.data / "site.key", people.admin

    def write() -> Write:
        return Write("ses_1", "k", *Process(people, db, path, clock).sessions.secrets_of(actor))

    async with people.control.idempotency.once(write()) as once:
        await people.control.users.issue_key(actor, "made once", frozenset({Scope.PREDICT}), None)
        await once.keep(Answer(201, (), b"the answer"))

    async def repeated() -> bytes:
        with pytest.raises(Repeated) as found:
            async with people.control.idempotency.once(write()):
                await people.control.users.issue_key(actor, "made once", frozenset({Scope.PREDICT}), None)
        answer = found.value.answer
        return answer.body

    site_key_work.add(settings)
    assert await repeated() == b"the answer"
    assert (await site_key_work.rotate(settings)).answers in (0, 1)  # its clock is the machine's, ours stands still
    assert await repeated() == b"the answer"
    await site_key_work.forget(settings)
    with pytest.raises(AnswerSealed):
        await repeated()
    assert [key.name for key in await people.control.users.keys(actor, limit=10)].count("made once") == 1


async def nothing_else(tx: Transaction) -> dict[str, str]:
    del tx
    return {}


class Trail:
    """The audit trail as a process has it that started now, which notes entries that nothing but their subject's key finds."""

    def __init__(self, people: People, db: Database, path: Path, clock: TestClock) -> None:
        self.audit = Audit(db, clock, nothing_else, site_key.opened(path))
        self._person, self._db, self._clock = people.admin.user, db, clock

    async def note(self) -> str:
        """Note something about a person, and sign it; returns the entry's id."""
        async with self._db.begin() as tx:
            await self.audit.note(tx, SYSTEM, "group.add_member", "grp_1", about=self._person)
        self._clock.advance(minutes=6)
        assert await self.audit.checkpoint() is not None
        (entry,) = await self.audit.entries(limit=1)
        return entry.id

    async def erased(self) -> set[str]:
        """Erase the person; returns the ids of what was erased."""
        await self.audit.erase(SYSTEM, [self._person], "asked for")
        return {entry.id for entry in await self.audit.entries(limit=100) if entry.erased}


async def test_the_audit_trail_stays_whole_and_people_are_found_in_it(
    people: People, db: Database, settings: Settings, clock: TestClock
):
    path = settings.data / "site.key"
    noted = {await Trail(people, db, path, clock).note()}
    site_key_work.add(settings)
    running = Trail(people, db, path, clock)
    noted.add(await running.note())
    carried = (await site_key_work.rotate(settings)).trail
    assert (carried.checkpoints, carried.subjects) == (2, 2)
    assert (await site_key_work.rotate(settings)).trail.checkpoints == 0
    noted.add(await running.note())  # it has not been started again yet
    started = Trail(people, db, path, clock)
    for one in (running, started):
        report = await one.audit.verify()
        assert (report.whole, report.signatures) == (True, "checked")
    with pytest.raises(site_key_work.StillNeeded):
        await site_key_work.forget(settings)
    noted.add(await started.note())
    await site_key_work.forget(settings)
    last = Trail(people, db, path, clock)
    report = await last.audit.verify()
    assert (report.whole, report.checkpoints) == (True, 4)
    assert await last.erased() >= noted
    assert (await last.audit.verify()).whole


async def test_a_forged_checkpoint_is_not_made_true_by_a_rotation(
    people: People, db: Database, settings: Settings, clock: TestClock
):
    path = settings.data / "site.key"
    await Trail(people, db, path, clock).note()
    async with db.begin() as tx:
        await tx.execute(sa.update(audit_checkpoints).values(head="0" * 64))
    site_key_work.add(settings)
    await site_key_work.rotate(settings)
    report = await Trail(people, db, path, clock).audit.verify()
    assert [one.kind for one in report.findings] == ["forged checkpoint"]


async def test_a_token_of_another_installation_is_none_here(
    people: People, db: Database, settings: Settings, clock: TestClock, tmp_path: Path
):
    here = Process(people, db, settings.data / "site.key", clock).sessions
    token = (await here.login(EMAIL, PASSWORD, HERE)).access
    there = Process(people, db, tmp_path / "another", clock).sessions
    with pytest.raises(Unauthenticated):
        await there.authenticate(token)
