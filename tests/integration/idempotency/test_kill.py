"""An API process that dies at any statement of a write: asked again, another process does it, or tells that it was done."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

_CRASH = """
import asyncio, json, os, shutil, sys
from pathlib import Path
import httpx
import sqlalchemy as sa
from fixtures.control import ADMIN, ready_version, SITE
from fixtures.control_api import api_over
from modelkeep.api.settings import ApiSettings
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore

folder, asked, key = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]

def build(file):
    db = Database(DatabaseSettings(url=f"sqlite:///{file}"))
    control = control_plane(db, ring_worker=int, ring_courier=int, limits=Limits(), site=SITE)
    app = api_over(control, Predictions(db, utc_now), db, LocalStore(folder / "blobs"), ApiSettings())
    return db, control, app

async def prepare():
    db, control, app = build(folder / "before.db")
    await migrate(db)
    token = await control.users.ensure_setup_token(utc_now())
    user, issued = await control.users.set_up(token, "ada")
    await control.access.authenticate(issued.secret.reveal())  # whose use is noted now, and not in the middle
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")
    await ready_version(control, "iris", b"two")
    await db.close()
    return issued.secret.reveal()

served = folder / "served.db"
db, _control, app = build(served)  # once, for all that are forked: nothing is connected yet

async def ask(secret, crash_at=None):
    seen = 0

    def count(*_arguments):
        nonlocal seen
        seen += 1
        if crash_at is not None and seen > crash_at:
            os._exit(9)

    sa.event.listen(db._writer.sync_engine, "before_cursor_execute", count)
    sa.event.listen(db._writer.sync_engine, "commit", count)
    headers = {"x-api-key": secret} | ({"idempotency-key": key} if key else {})
    form = {"files": {"file": ("m.onnx", b"new")}} if asked["method"] == "UPLOAD" else {"json": asked["json"]}
    method = "POST" if asked["method"] == "UPLOAD" else asked["method"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers) as client:
        answer = await client.request(method, asked["url"], **form)
    await db.close()
    return [answer.status_code, answer.headers.get("idempotency-replayed"), answer.text]

def in_child(work):
    child = os.fork()  # before any thread exists in this process
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def first(file, secret, number):
    answer = asyncio.run(ask(secret, number))
    file.with_suffix(".first").write_text(json.dumps(answer))

def again(file, secret):
    file.with_suffix(".again").write_text(json.dumps(asyncio.run(ask(secret))))

def prepared():
    (folder / "secret").write_text(asyncio.run(prepare()))

assert in_child(prepared) == 0
secret = (folder / "secret").read_text()
for number in range(int(sys.argv[4]), 200):
    file = folder / f"after-{number}.db"
    shutil.copyfile(folder / "before.db", served)
    ended = in_child(lambda: first(file, secret, number))
    assert in_child(lambda: again(file, secret)) == 0
    served.rename(file)  # the last of them closed it: all is in it
    assert not list(folder.glob("served.db*"))
    if ended == 0:
        print(number)
        break
    assert ended == 9
"""
_COUNT = {
    "issue": "SELECT count(*) FROM api_keys WHERE name = 'ci'",
    "upload": "SELECT count(*) FROM versions WHERE number > 2",
    "promote": "SELECT count(*) FROM audit_entries"
    " JOIN audit_payloads USING (seq) WHERE action = 'deployment.promote' AND actor <> 'system'",
}
_LATER = 199  # than the last statement of any of them
_ASKED = {
    "issue": {"method": "POST", "url": "/api/v1/keys", "json": {"name": "ci", "scopes": ["predict"]}},
    "upload": {"method": "UPLOAD", "url": "/api/v1/models/iris/versions"},
    "promote": {"method": "POST", "url": "/api/v1/deployments/iris/promote", "json": {"version": 2}},
}


def crashed(tmp_path: Path, change: str, key: str, *, begin: int = 0) -> list[tuple[int, list[object]]]:
    """For each statement at which the first request died: how often it was done after the second, and that one's answer.

    The last of them is of a first request that did not die.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _CRASH, str(tmp_path), json.dumps(_ASKED[change]), key, str(begin)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout.split()[-1])
    assert last >= 6
    return [
        (_counted(tmp_path / f"after-{number}.db", change), json.loads((tmp_path / f"after-{number}.again").read_text()))
        for number in range(begin, last + 1)
    ]


def _counted(file: Path, change: str) -> int:
    connection = sqlite3.connect(file)
    try:
        return int(connection.execute(_COUNT[change]).fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("change", _ASKED)
def test_a_death_at_any_statement_and_a_repeat_do_it_once(change: str, tmp_path: Path):
    found = crashed(tmp_path, change, "k-1")
    assert [times for times, _answer in found] == [1] * len(found)
    *dead, (_times, last) = found
    assert {answer[1] for _times, answer in dead} == {None}, "nobody died between the commit and the answer"
    first = json.loads((tmp_path / f"after-{len(found) - 1}.first").read_text())
    assert {answer[0] for _times, answer in dead} == {first[0]}
    assert last == [first[0], "true", first[2]]


def test_without_a_key_it_is_done_twice(tmp_path: Path):
    """The control."""
    ((times, _answer),) = crashed(tmp_path, "issue", "", begin=_LATER)
    assert times == 2
