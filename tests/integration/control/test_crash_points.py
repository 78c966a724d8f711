"""A process that dies at any statement of a change leaves the old state or the new one, and nothing between."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

_CRASH = """
import asyncio, os, shutil, sys
from pathlib import Path
import sqlalchemy as sa
from fixtures.control import ADMIN, FINDINGS, ready_version, upload, SITE
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.replays.rules import Asked
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.settings import DatabaseSettings

folder, change = Path(sys.argv[1]), sys.argv[2]

def build(file):
    db = Database(DatabaseSettings(url=f"sqlite:///{file}"))
    return db, control_plane(db, ring_worker=int, ring_courier=int, limits=Limits(), site=SITE)

async def prepare():
    db, control = build(folder / "before.db")
    await migrate(db)
    await control.models.create(ADMIN, "m")
    await ready_version(control, "m")
    await ready_version(control, "m", b"two")
    await control.models.receive(ADMIN, "m", upload(b"three"))
    await control.models.create(ADMIN, "fresh")
    await control.models.receive(ADMIN, "fresh", upload(b"four"))
    await db.close()

async def do(control):
    if change == "upload":
        await control.models.receive(ADMIN, "m", upload(b"new"))
    elif change == "promote":
        await control.deployments.promote(ADMIN, "m", 2)
    elif change == "accept":
        version = await control.models.version(ADMIN, "fresh", 1)
        await control.models.accept(version.id, FINDINGS, "job_x")
    elif change == "archive":
        await control.lifecycle.archive(ADMIN, "m")
    elif change == "replay":
        await control.replays.ask(ADMIN, "m", 1, Asked(rows=True), "[[1]]")
    elif change == "set up":
        _user, _key = await control.users.set_up(await control.users.ensure_setup_token(control.models._clock()), "ada")

async def crash_at(number):
    file = folder / f"after-{number}.db"
    shutil.copyfile(folder / "before.db", file)
    db, control = build(file)
    seen = 0

    def count(*_arguments):
        nonlocal seen
        seen += 1
        if seen > number:
            os._exit(9)

    sa.event.listen(db._writer.sync_engine, "before_cursor_execute", count)
    sa.event.listen(db._writer.sync_engine, "commit", count)
    await do(control)
    await db.close()
    os._exit(0)

asyncio.run(prepare())
for number in range(200):
    child = os.fork()  # before any thread exists in this process
    if child == 0:
        asyncio.run(crash_at(number))
    _pid, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        print(number)
        break
    assert os.waitstatus_to_exitcode(status) == 9
"""


def state(file: Path) -> dict[str, object]:
    """Everything that must agree with everything else."""
    with sqlite3.connect(file) as connection:
        rows = {
            name: sorted(map(repr, connection.execute(f"SELECT {columns} FROM {table}")))
            for name, columns, table in (
                ("models", "name, archived_at IS NULL, latest_version, serving_version", "models"),
                ("versions", "number, state, digest", "versions"),
                ("deployments", "name, version, revision", "deployments"),
                ("audit", "action, target", "audit_entries NATURAL JOIN audit_payloads"),
                ("jobs", "kind, subject, state", "jobs"),
                ("news", "number, length(payload)", "broadcasts"),
                ("replays", "state, rows", "replays"),
                ("users", "name", "users"),
                ("keys", "name, revoked_at IS NULL", "api_keys"),
                ("tokens used", "used_at IS NULL", "setup_tokens"),
            )
        }
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return rows


@pytest.mark.parametrize(
    ("change", "touches"),
    [
        ("upload", {"models", "versions", "audit", "jobs"}),
        ("promote", {"models", "deployments", "audit", "news"}),
        ("accept", {"models", "versions", "deployments", "audit", "news"}),
        ("archive", {"models", "audit", "news"}),
        ("replay", {"replays", "audit", "jobs"}),
        ("set up", {"audit", "news", "users", "keys", "tokens used"}),
    ],
)
def test_a_death_at_any_statement_leaves_old_or_new(change: str, touches: set[str], tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _CRASH, str(tmp_path), change], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    old, new = _counted(state(tmp_path / "before.db")), _counted(state(tmp_path / f"after-{points}.db"))
    assert points >= 4
    assert {name for name in old if old[name] != new[name]} == touches
    for number in range(points):
        found = _counted(state(tmp_path / f"after-{number}.db"))
        if change == "set up":  # two transactions: the token, then its use
            found["tokens used"] = old["tokens used"] if found["users"] == old["users"] else found["tokens used"]
        assert found in (old, new), number


def _counted(rows: dict[str, object]) -> dict[str, object]:
    """Leave out what is random: ids."""
    return {name: [row for row in found if "_01" not in row] or len(found) for name, found in rows.items()}
