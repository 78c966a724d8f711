"""A long audit trail, on SQLite and PostgreSQL: how long it takes to verify, and that each change to it is named.

ROWS says how many entries (`make soak-audit`: a million). They come by the service's own way into the chain, a thousand in a
transaction, and to PostgreSQL by COPY; the commands are the real ones, and ask a real server. One entry of ten names the person
who is erased.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN
from fixtures.databases import new_postgres_database
from fixtures.installation import Installation
from fixtures.standings import through
from modelkeep.app.places import Places
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.audit_chain import Report
from modelkeep.control.audit.service import Audit
from modelkeep.control.audit.tables import audit_entries, audit_payloads
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.infra.site_key import opened

ROWS = int(os.environ.get("ROWS", "20000"))
AT_ONCE = 1000
PEOPLE = [
    Actor(f"key_{n}", f"person {n}", f"usr_{n}", through(Scope.ADMIN, user=f"usr_{n}"), "", "192.0.2.7") for n in range(10)
]
LEAVER = PEOPLE[7]
AT = ROWS // 2 + 3
"""The entry that something happens to: one without a checkpoint."""
_PEAK = """
import resource, subprocess, sys
status, used = subprocess.call(sys.argv[1:]), resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, file=sys.stderr)
sys.exit(status)
"""
"""Run by a small process of its own: a child's highest memory begins with its parent's."""

pytestmark = pytest.mark.timeout(900 + ROWS // 100)


def tell(what: str, kind: str, seconds: float, busy: float, megabytes: float) -> None:
    """Print a measurement: time, of which a processor was busy so long, and memory."""
    print(f"\n{kind:10} {what:62} {seconds:8.1f} s ({busy:.1f} s busy), {megabytes:,.0f} MB", end="")


@contextmanager
def measured(what: str, kind: str) -> Iterator[None]:
    """Print how long something took in this process, and by how much its memory rose meanwhile."""
    status, began, busy = Path("/proc/self/status"), time.perf_counter(), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # so that the highest is the highest from here on

    def kilobytes(name: str) -> int:
        return int(next(line for line in status.read_text().splitlines() if line.startswith(name)).split()[1])

    before = kilobytes("VmRSS")
    yield
    took, busy = time.perf_counter() - began, time.process_time() - busy
    tell(what, kind, took, busy, (kilobytes("VmHWM") - before) / 1024)


class Copying:
    """A transaction that hands rows to PostgreSQL in one piece: inserting them one by one takes most of the time."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.connection = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    async def execute(self, statement: Any, rows: list[dict[str, Any]] | None = None) -> None:
        if rows is None:
            await self._tx.execute(statement)
            return
        into = await self._tx.connection.get_raw_connection()
        copying = f"COPY {statement.table.name} ({', '.join(rows[0])}) FROM STDIN"
        async with into.driver_connection.cursor() as cursor, cursor.copy(copying) as copy:
            for row in rows:
                await copy.write_row(tuple(row.values()))


class Trail:
    """A long trail in the database of an installation, which runs only where a test starts it."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind = kind
        self.folder = folder
        self.exported = folder / "trail.jsonl"
        self.verifier = ""
        self.installation = Installation(folder / "data", MODELKEEP_DATABASE__URL=url)
        self._url = url

    def do(self, work: Callable[[Database, Audit], Awaitable[Any]]) -> Any:
        """Run something on the database that needs the service."""

        async def all_of_it() -> Any:
            db = Database(DatabaseSettings(url=self._url))
            try:
                return await work(db, Audit(db, utc_now, _no_circumstances, opened(Places(self.folder / "data").site_key)))
            finally:
                await db.close()

        return asyncio.run(all_of_it())

    def fill(self) -> None:
        """Make it as long as it is to be."""

        async def work(db: Database, audit: Audit) -> None:
            number = (await audit.head()).seq
            while number < ROWS:
                some = range(number + 1, min(number + AT_ONCE, ROWS) + 1)
                async with db.begin() as tx:
                    into = tx if db.sqlite else Copying(tx)
                    await audit._append(into, *(_entry(audit, number) for number in some))
                await audit.checkpoint()
                number = some[-1]

        with measured(f"{ROWS:,} entries are written", self.kind):
            self.do(work)

    def verified(self, what: str) -> Report:
        """Verify it as the worker does."""
        with measured(f"verified in the database: {what}", self.kind):
            return self.do(lambda _db, audit: audit.verify())

    def command(self, what: str, *arguments: str) -> tuple[int, str]:
        """Run `modelkeep ARGUMENTS` or a script, as an administrator; returns its status and what it printed."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "MODELKEEP_URL": self.installation.url,
            "MODELKEEP_API_KEY": self.installation.key,
        }
        program = [] if arguments[0].endswith(".py") else ["-m", "modelkeep.app.cli"]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PEAK, sys.executable, *program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            timeout=600 + ROWS // 200,
        )
        tell(what, self.kind, time.perf_counter() - began, *map(float, done.stderr.split()[-2:]))
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode, done.stdout


async def _no_circumstances(_tx: Transaction) -> dict[str, str]:
    return {}


def _entry(audit: Audit, number: int) -> Any:
    who, before, after = PEOPLE[number % 10], f"was {number}", f"is {number}"
    return audit._entry(who, "model.describe", f"mdl_{number % 97}", details={"name": "churn"}, before=before, after=after)


def named(report: Report) -> list[tuple[str, int, int]]:
    """What was found, as kind and numbers."""
    return [(one.kind, one.first, one.last) for one in report.findings]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def trail(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trail]:
    folder = tmp_path_factory.mktemp(request.param)
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder}/trail.db" if sqlite else new_postgres_database(request.getfixturevalue("postgres"))
    made = Trail(request.param, folder, url)
    try:
        made.installation.start().wait(90).set_up()
    finally:
        made.installation.stop()
    made.fill()
    yield made
    for file in folder.glob("trail*"):
        file.unlink()  # gigabytes


def test_the_worker_finds_it_whole(trail: Trail) -> None:
    report = trail.verified("untouched")
    assert named(report) == []
    assert (report.entries, report.last) == (ROWS, ROWS)
    assert report.checkpoints >= ROWS // AT_ONCE - 1
    assert report.signatures == "checked"


def test_a_person_is_erased_and_it_is_whole(trail: Trail) -> None:
    with measured("a person is erased", trail.kind):
        erased = trail.do(lambda _db, audit: audit.erase(ADMIN, [LEAVER.id, LEAVER.user], "asked for"))
    assert ROWS // 10 - 10 <= erased <= ROWS // 10
    report = trail.verified("with a person erased")
    assert (named(report), report.erased, report.entries) == ([], erased, ROWS + 1)


def test_the_commands_find_it_whole(trail: Trail) -> None:
    try:
        trail.installation.start().wait(90)
        with trail.installation.client() as client:
            assert client.audit(limit=1)  # the api is there, too, and what follows is not its start
        status, said = trail.command("modelkeep audit verify", "audit", "verify", "--json")
        report = json.loads(said)
        assert (status, report["whole"], report["findings"]) == (0, True, [])
        assert report["entries"] > ROWS
        assert trail.command("modelkeep audit export", "audit", "export", str(trail.exported))[0] == 0
        api = trail.installation.role("api")
        assert api is not None
        lines = Path(f"/proc/{api.pid}/status").read_text().splitlines()
        peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        print(f"\n{trail.kind:10} most memory of the api meanwhile: {peak / 1024:,.0f} MB", end="")
        status, trail.verifier = trail.command("modelkeep audit verifier", "audit", "verifier")
        assert status == 0
    finally:
        trail.installation.stop()


# ---- a file that somebody has changed


def _edited(number: int, line: bytes) -> list[bytes]:
    return [line.replace(b'"outcome":"done"', b'"outcome":"refused"')] if number == AT else [line]


def _deleted(number: int, line: bytes) -> list[bytes]:
    return [] if number == AT else [line]


def _inserted(number: int, line: bytes) -> list[bytes]:
    return [line.replace(b'"action":"model.describe"', b'"action":"user.create"'), line] if number == AT else [line]


def _cut_off(number: int, line: bytes) -> list[bytes]:
    return [line] if number < ROWS - 500 else []


def _exchanged(number: int, line: bytes, held: list[bytes] = []) -> list[bytes]:  # noqa: B006 - from one line to the next
    if number == AT:
        held.append(line)
        return []
    return [line, held.pop()] if number == AT + 1 else [line]


Change = Callable[[int, bytes], list[bytes]]


@pytest.mark.parametrize(
    ("change", "kind", "first"),
    [
        (None, "", 0),
        (_edited, "edited", AT),
        (_deleted, "deleted", AT),
        (_exchanged, "reordered", AT),
        (_inserted, "inserted", AT),
        (_cut_off, "cut off", ROWS - 500),
    ],
    ids=["untouched", "edited", "deleted", "exchanged", "inserted", "cut"],
)
def test_the_verifier_alone_names_what_was_done_to_a_file(trail: Trail, change: Change | None, kind: str, first: int) -> None:
    script, file = trail.folder / "verify_audit.py", trail.folder / "trail-changed.jsonl"
    script.write_text(trail.verifier)
    number = 0
    with trail.exported.open("rb") as good, file.open("wb") as bad:
        for line in good:
            entry = line.startswith(b'{"record"')
            number += entry
            bad.writelines(change(number, line) if change and entry else [line])
    status, said = trail.command(f"the verifier alone: {kind or 'untouched'}", str(script), "--json", str(file))
    found = [(one["kind"], one["first"], one["last"]) for one in json.loads(said)["findings"]]
    if kind == "cut off":  # with the erasure, so that nothing tells any more why payloads are gone
        assert found.pop() == (kind, first, number)
        assert {what for what, _first, _last in found} == {"payload deleted"}
    else:
        assert found == ([] if change is None else [(kind, first, first)])
    assert status == (0 if change is None else 1)
    if change in {None, _edited}:
        assert trail.command("the same without short cuts", str(script), "--json", "--plain", str(file)) == (status, said)


# ---- a database that somebody has changed; nothing comes after these


def test_what_is_done_to_the_database_is_named(trail: Trail) -> None:
    edited, deleted, one, payload = (ROWS * part // 10 + 8 for part in (1, 3, 5, 8))
    last = trail.do(lambda _db, audit: audit.head()).seq
    row = {column.name: column for column in audit_entries.c} | {"seq": sa.literal(last + 1), "id": sa.literal("aud_stranger")}
    inserted = sa.select(*row.values()).where(audit_entries.c.seq == edited)
    moved = [
        sa.update(table).where(table.c.seq == old).values(seq=new)
        for old, new in ((one, -1), (one + 1, one), (-1, one + 1))
        for table in (audit_entries, audit_payloads)
    ]

    async def change(db: Database, _audit: Audit) -> None:
        async with db.begin() as tx:
            for statement in (
                sa.update(audit_entries).where(audit_entries.c.seq == edited).values(action="model.read"),
                sa.delete(audit_entries).where(audit_entries.c.seq == deleted),
                *moved,
                sa.update(audit_payloads).where(audit_payloads.c.seq == payload).values(payload='{"actor":"nobody"}'),
                sa.insert(audit_entries).from_select(list(row), inserted),
            ):
                await tx.execute(statement)

    trail.do(change)
    assert sorted(named(trail.verified("edited, deleted, exchanged, inserted")), key=lambda found: found[1:]) == [
        ("edited", edited, edited),
        ("deleted", deleted, deleted),
        ("edited", one, one + 1),
        ("payload edited", payload, payload),
        ("edited", last + 1, last + 1),
        ("payload deleted", last + 1, last + 1),
    ]


def test_a_tail_that_was_cut_from_the_database_is_named(trail: Trail) -> None:
    async def cut(db: Database, audit: Audit) -> int:
        async with db.begin() as tx:
            await tx.execute(sa.delete(audit_entries).where(audit_entries.c.seq > ROWS - 500))
        return (await audit.head()).seq

    last = trail.do(cut)
    assert ("cut off", ROWS - 499, last) in named(trail.verified("with its tail cut off"))
