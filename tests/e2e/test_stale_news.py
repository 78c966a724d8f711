"""PostgreSQL is away: what was decided last is decided on, until that is too old; then nobody comes in, until there is news."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import httpx
import pytest

from fixtures.artifacts import onnx_scores
from fixtures.crowd import Crowd
from fixtures.databases import PostgresServer, new_postgres_database, postgres_server
from fixtures.installation import Installation, eventually, free_port, installed
from modelkeep.serving.protos import open_inference_pb2 as pb

STALE_S = 8.0
"""`serving.max_staleness_s` of this installation."""
BODY = {"inputs": [[1.0, 2.0]]}
INFER = "/inference.GRPCInferenceService/ModelInfer"
UNAVAILABLE = 503
CODES = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
}
Answers = dict[str, tuple[int, int, int]]


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one test, which may stop it."""
    with postgres_server() as server:
        yield server


class Doors:
    """Asks a prediction over REST, its description, and a prediction over gRPC, as each of some callers."""

    def __init__(self, house: Installation, callers: dict[str, dict[str, str]]) -> None:
        self._http = httpx.Client(base_url=house.url, timeout=20)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}")
        self._callers = callers
        asked = pb.ModelInferRequest(model_name="echo")
        asked.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
        self._question = asked.SerializeToString()

    def ask(self) -> Answers:
        return {name: (self._rest(one), self._described(one), self._rpc(one)) for name, one in self._callers.items()}

    def state(self) -> tuple[bool, float]:
        """What readiness says: whether it is, and how old the news is."""
        said = self._http.get("/readyz").json()
        return said["ready"], said["news_age_s"]

    def reasons(self) -> list[str]:
        return list(self._http.get("/readyz").json()["reasons"])

    def status(self, path: str, **headers: str) -> int:
        return self._http.get(path, headers=headers).status_code

    def _rest(self, headers: dict[str, str]) -> int:
        return self._http.post("/api/v1/predict/echo", json=BODY, headers=headers).status_code

    def _described(self, headers: dict[str, str]) -> int:
        return self._http.get("/v2/models/echo", headers=headers).status_code

    def _rpc(self, headers: dict[str, str]) -> int:
        try:
            self._channel.unary_unary(INFER)(self._question, metadata=tuple(headers.items()), timeout=20)
        except grpc.RpcError as error:
            return CODES.get(error.code(), 500)
        return 200

    def close(self) -> None:
        self._http.close()
        self._channel.close()


@pytest.mark.timeout(240)
def test_the_last_news_decides_until_it_is_too_old_and_then_nobody_comes_in(own_postgres: PostgresServer, tmp_path: Path):
    settings = {
        "MODELKEEP_DATABASE__URL": new_postgres_database(own_postgres.address),
        "MODELKEEP_SERVING__MAX_STALENESS_S": str(STALE_S),
        "MODELKEEP_LIMITS__USER_RATE": "1000000/min",
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
    }
    with installed(tmp_path / "data", patience_s=150, **settings) as house:
        callers = _callers(house, tmp_path)
        doors = Doors(house, callers)
        fresh = {"key": 200, "token": 200, "viewer": 403, "stranger": 404, "revoked": 401, "nobody": 401}
        decided = {name: (status,) * 3 for name, status in fresh.items()}
        eventually(lambda: doors.ask() == decided, "every server has the news")
        own_postgres.stop()
        ages = _decide_on(doors, decided)
        assert len(ages) >= 3
        assert ages == sorted(ages), "the news grows older"
        assert max(ages) <= STALE_S + 0.1
        denied = _are_denied(house, doors, callers)
        assert _told(doors, callers) == denied, "and it stays so"
        own_postgres.start()
        began = time.monotonic()
        eventually(lambda: doors.ask() == decided, "all are answered as before")
        back_s = time.monotonic() - began
        print(f"\nnews grew {max(ages):.1f} s old (bound {STALE_S:g} s), asked {len(ages)} times; back after {back_s:.2f} s")
        eventually(lambda: doors.state()[0], "ready")
        assert doors.status("/api/v1/me", **callers["key"]) == 200
        doors.close()


def _callers(house: Installation, folder: Path) -> dict[str, dict[str, str]]:
    with closing(Crowd(house)) as crowd:
        return _made(crowd, house, folder)


def _made(crowd: Crowd, house: Installation, folder: Path) -> dict[str, dict[str, str]]:
    file = folder / "model.onnx"
    file.write_bytes(onnx_scores(width=2))
    crowd.workspace("red")
    crowd.admin.post("/api/v1/models", json={"name": "echo", "workspace": "red"}).raise_for_status()
    with house.client() as client:
        client.push(file, "echo")
    predictor = crowd.person("pia", ("predictor", "workspace", "red"))
    viewer = crowd.person("vic", ("viewer", "workspace", "red"))
    key_id, revoked = predictor.key()
    crowd.admin.delete(f"/api/v1/keys/{key_id}").raise_for_status()
    return {
        "key": {"x-api-key": predictor.key()[1]},
        "token": predictor.bearer,
        "viewer": viewer.bearer,
        "stranger": crowd.person("sue").bearer,
        "revoked": {"x-api-key": revoked},
        "nobody": {},
    }


def _decide_on(doors: Doors, decided: Answers) -> list[float]:
    """Ask until readiness says that the news is too old; as long as it does not, all is decided as before."""
    ages: list[float] = []
    deadline = time.monotonic() + 10 * STALE_S
    while time.monotonic() < deadline:
        answers = doors.ask()
        ready, age = doors.state()  # after: had it been too old before, it would be now
        if not ready:
            return ages
        assert answers == decided, f"the news is {age} s old"
        ages.append(age)
        time.sleep(0.2)  # the rate of asking; what is waited for is the clock
    raise AssertionError("the news never grew too old")


def _are_denied(house: Installation, doors: Doors, callers: dict[str, dict[str, str]]) -> Answers:
    """Nobody comes in at any door, whatever they bring; health says why."""
    assert doors.reasons() == ["the news from the control plane is too old"]
    told = _told(doors, callers)
    assert told == {name: ((401,) * 3 if name == "nobody" else (UNAVAILABLE,) * 3) for name in callers}
    assert doors.status("/healthz") == doors.status("/health") == 200
    assert doors.status("/readyz") == UNAVAILABLE
    admin = {"x-api-key": house.key}
    for path in ("/metrics", "/api/v1/me", "/api/v1/models", "/api/v1/models/echo", "/docs", "/openapi.json", "/v1/models"):
        assert doors.status(path, **admin) == UNAVAILABLE, path
        assert doors.status(path) == 401, path
    with house.http() as http:
        assert http.post("/api/v1/workspaces", json={"name": "blue"}).status_code == UNAVAILABLE
    return told


def _told(doors: Doors, callers: dict[str, dict[str, str]]) -> Answers:
    answers = doors.ask()
    assert answers.keys() == callers.keys()
    return answers
