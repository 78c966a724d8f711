"""Releases under load: hey asks 200 times a second while versions change and servers are upgraded, and nobody may notice.

CHANGES promotions and rollbacks, UPGRADES of the server, on SQLite and PostgreSQL (`make soak-releases`: 50 and 20). Beside
hey, callers who keep their connections hold each answer against what had been released by then.

An upgrade is over when the last caller has left the old server: who asks leaves with the next answer, who rests is left alone
for `server.idle_s`. Its 75 s would have each upgrade wait that long for a connection on which nobody asks, and here it is
IDLE_S: the same goes on, sooner. Callers that rest for less and for longer than that are asked for, too: a connection that
was closed meanwhile is made anew by whoever looks before asking, as clients do, and nobody fails.
"""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from fixtures.artifacts import constant, onnx_file, value
from fixtures.databases import new_postgres_database
from fixtures.hey import load
from fixtures.installation import Installation, installed
from fixtures.witness import Cut, witnesses
from modelkeep.client import Client

CHANGES = int(os.environ.get("CHANGES", "6"))
UPGRADES = int(os.environ.get("UPGRADES", "1"))
PER_SECOND = 200
IDLE_S = 8.0
RESTS = (0.3 * IDLE_S, 0.7 * IDLE_S, 1.4 * IDLE_S)
VERSIONS = 3
NAME = "released"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """An installation on this database, with versions that multiply by their number."""
    environment = {"MODELKEEP_SERVER__IDLE_S": str(IDLE_S)}
    if request.param == "postgresql":
        environment["MODELKEEP_DATABASE__URL"] = request.getfixturevalue("postgres_url")
    with installed(tmp_path / "data", **environment) as house:
        with house.client() as client:
            for factor in range(1, VERSIONS + 1):
                push(client, tmp_path, factor)
        yield house


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """A database of its own."""
    return new_postgres_database(postgres)


def push(client: Client, folder: Path, factor: int) -> None:
    shape = ["n", 2]
    file = folder / f"{factor}.onnx"
    x, y = value("x", TensorProto.FLOAT, shape), value("y", TensorProto.FLOAT, shape)
    by = constant("factor", np.array(factor, dtype=np.float32))
    file.write_bytes(onnx_file([helper.make_node("Mul", ["x", "factor"], ["y"])], [x], [y], [by]))
    client.push(file, NAME)


@pytest.mark.timeout(3600)
def test_nobody_notices_releases_rollbacks_and_upgrades(place: Installation, tmp_path: Path) -> None:
    path, took = f"/api/v1/predict/{NAME}", []
    waited: list[float] = []
    with place.client() as client:
        client.promote(NAME, 1)
        client.wait_serving(NAME, 1)
        now = time.monotonic()
        cuts = [Cut(1, now, now)]
        each = max(1, CHANGES // max(1, UPGRADES))
        with (
            load(place.url + path, place.key, '{"inputs": [[1.0, 2.0]]}', per_second=PER_SECOND, most_s=3000) as counted,
            witnesses(place.url, place.key, path, 4, RESTS) as seen,
        ):
            for change in range(CHANGES):
                back = change % 2 == 1
                version = cuts[-2].version if back else cuts[-1].version % VERSIONS + 1
                asked = time.monotonic()
                if back:
                    client.rollback(NAME)
                else:
                    client.promote(NAME, version)
                client.wait_serving(NAME, version)
                cuts.append(Cut(version, asked, time.monotonic()))
                if back:
                    took.append(cuts[-1].settled - asked)
                if change % each == each - 1 and change // each < UPGRADES:
                    began = time.monotonic()
                    code, said = place.upgrade()
                    assert code == 0, said
                    waited.append(time.monotonic() - began)
    print(f"\n{counted.text}\n{len(seen.seen)} answers to callers who stay, {seen.rested} to such that rest")
    print(f"{CHANGES} changes, {UPGRADES} upgrades")
    print(f"rollbacks: median {statistics.median(took):.3f} s, longest {max(took):.3f} s, from the question to every server")
    print(f"upgrades: median {statistics.median(waited or [0.0]):.1f} s, longest {max(waited, default=0.0):.1f} s")
    assert seen.faults(cuts) == []
    assert seen.rested >= len(RESTS)
    assert counted.errors == []
    assert set(counted.statuses) == {200}, counted.text
    assert sum(counted.statuses.values()) > 0
