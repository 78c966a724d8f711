"""PostgreSQL is stopped under a running installation, and started again: predictions go on, and everything else comes back."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sklearn.dummy import DummyRegressor

from fixtures.databases import PostgresServer, new_postgres_database, postgres_server
from fixtures.installation import Installation, eventually, installed

BACK_S = 5.0
ROLES = ("server", "api", "courier", "worker")
WAITING = ("api", "worker", "courier")  # the roles that cannot work without a database


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one test, which may stop it."""
    with postgres_server() as server:
        yield server


def artifact(folder: Path, value: float) -> Path:
    path = folder / f"{value}.pkl"
    path.write_bytes(pickle.dumps(DummyRegressor(strategy="constant", constant=value).fit([[0.0]], [0.0])))
    return path


def processes(house: Installation) -> dict[str, int]:
    """The process id of each role; a role that is missing for a moment fails the test."""
    found = {name: house.role(name) for name in ROLES}
    assert None not in found.values(), found
    return {name: process.pid for name, process in found.items() if process is not None}


def predicted(client: httpx.Client, model: str = "steady") -> float:
    answer = client.post(f"/api/v1/predict/{model}", json={"inputs": [[0.0]]})
    assert answer.status_code == 200, answer.text
    return float(answer.json()["outputs"]["value"][0])


def written(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/api/v1/models", json={"name": name})


@pytest.mark.timeout(180)
def test_predictions_go_on_while_postgresql_is_away_and_the_job_in_flight_ends_once(
    own_postgres: PostgresServer, tmp_path: Path
):
    url = new_postgres_database(own_postgres.address)
    with (
        installed(tmp_path / "data", MODELKEEP_DATABASE__URL=url) as house,
        house.http() as client,
        house.client() as modelkeep,
    ):
        modelkeep.push(artifact(tmp_path, 1.0), "steady")
        eventually(lambda: client.post("/api/v1/predict/steady", json={"inputs": [[0.0]]}).status_code == 200, "an answer")
        before = processes(house)
        modelkeep.push(artifact(tmp_path, 2.0), "inflight", wait=False)
        eventually(lambda: modelkeep.version("inflight", 1).state == "validating", "the job has been begun")
        own_postgres.stop()
        away_until = time.monotonic() + 6  # longer than the job takes, so that its end finds no database
        while time.monotonic() < away_until:
            assert predicted(client) == 1.0
            refused = written(client, "refused")
            assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            time.sleep(0.1)  # the rate of asking; what is waited for is the clock
        assert processes(house) == before
        own_postgres.start()
        started = time.monotonic()
        eventually(lambda: written(client, "accepted").status_code == 201, "writes are taken again", BACK_S)
        wrote = time.monotonic() - started
        eventually(lambda: modelkeep.version("inflight", 1).state == "ready", "the job has ended", BACK_S)
        ended = time.monotonic() - started
        eventually(lambda: client.post("/api/v1/predict/inflight", json={"inputs": [[0.0]]}).status_code == 200, "its answer")
        print(f"\nback after {wrote:.2f} s for writes, {ended:.2f} s for the job")
        assert predicted(client, "inflight") == 2.0
        assert processes(house) == before
        deployment = client.get("/api/v1/deployments/inflight").json()
        assert (deployment["version"], deployment["revision"]) == (1, 1)
        trail = client.get("/api/v1/audit", params={"limit": 500}).json()["items"]
        promoted = [one for one in trail if one["action"] == "deployment.promote"]
        assert len(promoted) == len({one["target"] for one in promoted}) == 2, promoted
        assert predicted(client) == 1.0


@pytest.mark.timeout(180)
def test_a_start_while_postgresql_is_away_waits_for_it(own_postgres: PostgresServer, tmp_path: Path):
    url = new_postgres_database(own_postgres.address)
    own_postgres.stop()
    house = Installation(tmp_path / "data", MODELKEEP_DATABASE__URL=url).start()
    try:
        with httpx.Client(base_url=house.url, timeout=10) as client:
            eventually(lambda: answers(client), "the server answers")
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["reasons"]) == (503, ["no news from the control plane yet"])
            eventually(lambda: client.get("/api/v1/health").status_code == 503, "the control plane says that it waits")
            eventually(lambda: all(house.role(name) for name in ROLES), "every process has been started")
            waiting = [f"{role}: waits_for_the_database" for role in WAITING]
            eventually(lambda: all(line in house.log.read_text() for line in waiting), "each says that it waits")
            before = processes(house)
            health = client.get("/api/v1/health")
            assert (health.json()["code"], health.headers["retry-after"]) == ("database_unavailable", "1")
            time.sleep(3)  # long enough for anything that ends at its first failure to have ended twice
            assert processes(house) == before
            own_postgres.start()
            eventually(lambda: client.get("/readyz").status_code == 200, "ready", BACK_S)
            assert processes(house) == before
        house.set_up()
        with house.client() as modelkeep:
            assert modelkeep.push(artifact(tmp_path, 3.0), "first").state == "ready"
        said = house.log.read_text()
        for role in WAITING:
            assert said.count(f"{role}: waits_for_the_database") == said.count(f"{role}: database_is_back") == 1, role
    finally:
        assert house.stop() == 0


@pytest.mark.timeout(180)
def test_an_installation_whose_database_is_away_still_ends_when_it_is_told_to(own_postgres: PostgresServer, tmp_path: Path):
    url = new_postgres_database(own_postgres.address)
    with installed(tmp_path / "data", MODELKEEP_DATABASE__URL=url) as house:
        with house.client() as modelkeep:
            modelkeep.push(artifact(tmp_path, 1.0), "steady")
        own_postgres.stop()
        began = time.monotonic()
        assert house.stop() == 0
        assert time.monotonic() - began < 10
        assert "ended before it was done" not in house.log.read_text()


def test_a_start_that_waits_for_its_database_ends_when_it_is_told_to(unused_tcp_port: int, tmp_path: Path):
    url = f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none"
    house = Installation(tmp_path / "data", MODELKEEP_DATABASE__URL=url).start()
    with httpx.Client(base_url=house.url, timeout=10) as client:
        eventually(lambda: answers(client) and client.get("/api/v1/health").status_code == 503, "it says that it waits")
    eventually(lambda: all(house.role(name) for name in ROLES), "every process has been started")
    eventually(lambda: "worker: waits_for" in house.log.read_text(), "the worker waits too")
    assert house.stop() == 0
    assert "ended before it was done" not in house.log.read_text()
    assert "database_is_back" not in house.log.read_text()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.HTTPError:
        return False
