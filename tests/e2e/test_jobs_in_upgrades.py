"""Jobs that are under way when another server takes over: each comes to its end, and has its effect once."""

import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from fixtures import python_models
from fixtures.databases import new_postgres_database
from fixtures.installation import Installation, eventually, installed

pytestmark = pytest.mark.timeout(600)

PREDICTIONS = 12
RUNNERS_OF_A_REPLAY = 1
MODEL = """
import time

class Model:
    signature = [{{"name": "x", "datatype": "FP64", "shape": [-1]}}]

    def load(self, path):
        time.sleep({load_s})

    def predict(self, inputs):
        time.sleep({run_s})
        return {{"y": inputs["x"] * 2.0}}
"""
Rows = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Installation, Rows]]:
    """An installation on this database, whose kept connections leave soon, and what reads its tables."""
    environment, url = {"MODELKEEP_SERVER__IDLE_S": "3"}, ""
    if request.param == "postgresql":
        url = environment["MODELKEEP_DATABASE__URL"] = new_postgres_database(request.getfixturevalue("postgres"))

    def rows(query: str) -> list[tuple[object, ...]]:
        if url:
            with psycopg.connect(url) as connection:
                return connection.execute(query).fetchall()
        with closing(sqlite3.connect(tmp_path / "data" / "modelkeep.db", timeout=20)) as connection:
            return connection.execute(query).fetchall()

    with installed(tmp_path / "data", patience_s=120, **environment) as house:
        yield house, rows


def model(folder: Path, name: str, **times: float) -> Path:
    file = folder / f"{name}.zip"
    file.write_bytes(python_models.archive(model=MODEL.format(**times)))
    return file


def halted(house: Installation, count: int, known: set[int]) -> list[psutil.Process]:
    """Stop the runners of jobs in the middle of their work, which is then under way for as long as its worker lives."""
    found: dict[int, psutil.Process] = {}

    def begun() -> bool:
        for one in house.runners():
            if one.pid not in known | found.keys():
                one.send_signal(signal.SIGSTOP)
                found[one.pid] = one
        return len(found) >= count

    eventually(begun, "runners of jobs")
    return list(found.values())


def test_a_validation_and_a_replay_that_an_upgrade_ends_are_done_once_by_the_next_server(
    place: tuple[Installation, Rows], tmp_path: Path
) -> None:
    house, rows = place
    with house.client() as client, ThreadPoolExecutor(4) as many:
        client.push(model(tmp_path, "asked", load_s=0.0, run_s=0.1), "asked", format="python")
        list(many.map(lambda x: client.predict("asked", [{"x": float(x)}]), range(PREDICTIONS)))
        eventually(lambda: len(client.predictions(deployment="asked", limit=100)) == PREDICTIONS, "the history")
        known = {one.pid for one in house.runners()}
        replay = client.replay("asked", 1, last=PREDICTIONS, wait=False)
        stopped = halted(house, RUNNERS_OF_A_REPLAY, known)
        version = client.push(model(tmp_path, "slow", load_s=2.0, run_s=0.0), "slow", format="python", wait=False)
        stopped += halted(house, 1, known | {one.pid for one in stopped})
        subjects = f"('{replay.id}', '{version.id}')"
        under_way = f"SELECT kind, state, attempts FROM jobs WHERE subject IN {subjects} ORDER BY kind"
        eventually(lambda: {row[1:] for row in rows(under_way)} == {("running", 1)}, "both jobs under way")

        code, said = house.upgrade()

        assert code == 0, said
        assert not any(one.is_running() for one in stopped), "runners of a worker that has ended are left"
        ready = client.wait_ready("slow", version.number)
        done = client.wait_replay(replay.id)
        events = [one.action for one in client.audit(target=version.id, limit=100)]
        recorded = len(client.predictions(deployment="asked", limit=100))
        versions = [(one.number, one.state) for one in client.versions("slow")]
    print(rows(under_way), events)
    assert [row[1:] for row in rows(under_way)] == [("done", 2)] * 2, "begun by each of both workers, and ended once"
    assert (ready.state, versions, events.count("version.ready")) == ("ready", [(1, "ready")], 1)
    assert done.summary is not None
    assert (done.summary["predictions"], done.summary["replayed"], done.summary["rows"]) == (PREDICTIONS,) * 3
    assert recorded == PREDICTIONS, "what is answered again is no prediction"
    assert len(rows("SELECT id FROM replays")) == 1
