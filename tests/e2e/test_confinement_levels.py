"""Where a machine locks runners in less well, what could do harm is refused; an administrator can accept it, for all to see."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fixtures import artifacts
from fixtures.attacks.setups import PLAIN_USER
from fixtures.installation import NO_NAMESPACES, Installation, eventually
from modelkeep.client import Conflict, Rejected

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are refused by their x86-64 numbers")

NO_LANDLOCK = f"{NO_NAMESPACES},landlock_create_ruleset"
NO_FILTER = f"{NO_LANDLOCK},seccomp"


@contextmanager
def installation(folder: Path, without_calls: str, **environment: str) -> Iterator[Installation]:
    house = Installation(folder / "data", **environment)
    house.without_calls = without_calls
    house.start()
    try:
        yield house
    finally:
        house.stop()


def status(house: Installation, path: str = "/readyz") -> dict[str, object]:
    answer: dict[str, object] = httpx.get(f"{house.url}{path}", timeout=10).json()
    return answer


def level(house: Installation) -> object:
    sandbox = status(house)["sandbox"]
    return sandbox["level"] if isinstance(sandbox, dict) else None


def may_not_run(house: Installation, name: str) -> bool:
    """Whether the deployment's model may not run."""
    with house.http() as http:
        return http.post(f"/api/v1/predict/{name}", json={"inputs": [[0.0] * 4]}).status_code != 200


@pytest.fixture
def forest(tmp_path: Path) -> Path:
    path = tmp_path / "m.joblib"
    path.write_bytes(artifacts.as_joblib(artifacts.classifier()))
    return path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(artifacts.onnx_scores())
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_plain_user_serves_all_models(forest: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="modelkeep-plain-") as folder:
        os.chown(folder, PLAIN_USER, PLAIN_USER)
        with installation(Path(folder), "plain") as house, house.wait().set_up().client() as client:
            assert house.supervisor.uids().real == PLAIN_USER
            eventually(lambda: level(house) in {"L3", "L2"}, "a level")  # the former where users may have namespaces
            assert client.push(forest, "m").state == "ready"
            assert {one.uids().real for one in house.runners()} == {PLAIN_USER}


def test_roots_runners_have_users_of_their_own(tmp_path: Path, forest: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give runners users of their own")
    with installation(tmp_path, "") as house, house.wait().set_up().client() as client:
        for name in ("one", "two"):
            client.push(forest, name)
        users = [one.uids().real for one in house.runners()]
        assert len(users) == len({*users, 0, os.getuid()}) - 1 >= 2


def test_without_namespaces_all_models_are_loaded(tmp_path: Path, forest: Path) -> None:
    with installation(tmp_path, NO_NAMESPACES) as house, house.wait().set_up().client() as client:
        eventually(lambda: level(house) == "L2", "level L2")
        assert client.push(forest, "m").state == "ready"


def test_without_landlock_only_data_is_loaded_until_somebody_accepts_less(tmp_path: Path, forest: Path, graph: Path) -> None:
    environment = {"MODELKEEP_RUNNERS__UNSAFE_ALLOW_LEVEL": "L1"}
    with installation(tmp_path, NO_LANDLOCK, **environment) as house, house.wait().set_up().client() as client:
        eventually(lambda: level(house) == "L1", "level L1")
        assert client.push(graph, "data").state == "ready"
        with pytest.raises(Rejected, match="L2") as refused:
            client.push(forest, "code")
        assert refused.value.code == "not_confined"
        assert status(house)["sandbox"]["accepted"] is None  # type: ignore[index]
        client.accept_sandbox("L1", reason="an old kernel, until May")
        assert client.push(forest, "code", compile="off").state == "ready"  # its compiled form would be data
        for page in ("/readyz", "/health"):
            assert status(house, page)["sandbox"]["accepted"] == "L1"  # type: ignore[index]
        with house.http() as http:
            metrics = http.get("/metrics").text
        assert "modelkeep_sandbox_level 1" in metrics
        assert "modelkeep_sandbox_accepted 1" in metrics
        assert not may_not_run(house, "code")
        client.accept_sandbox(None, reason="a new kernel")
        eventually(lambda: status(house)["sandbox"]["accepted"] is None, "taken back")  # type: ignore[index]
        with pytest.raises(Rejected):
            client.push(forest, "again")
        eventually(lambda: may_not_run(house, "code"), "an end of what may not run any more")
        assert not may_not_run(house, "data")
        client.accept_sandbox("L1", reason="the old kernel again")
        eventually(lambda: not may_not_run(house, "code"), "its return")


def test_nobody_can_accept_what_the_settings_do_not_allow(tmp_path: Path, forest: Path) -> None:
    with installation(tmp_path, NO_LANDLOCK) as house, house.wait().set_up().client() as client:
        with pytest.raises(Conflict):
            client.accept_sandbox("L1", reason="please")
        with pytest.raises(Rejected):
            client.push(forest, "m")


def test_without_a_filter_nothing_is_loaded_and_it_is_not_ready(tmp_path: Path, graph: Path) -> None:
    with installation(tmp_path, NO_FILTER) as house:
        eventually((house.data / "setup-token").exists, "a token")
        house.set_up()
        eventually(lambda: level(house) == "L0", "level L0")
        assert httpx.get(f"{house.url}/readyz").status_code == 503
        assert "no model can be locked in" in str(status(house)["reasons"])
        with house.client() as client, pytest.raises(Rejected, match="L0"):
            client.push(graph, "m")


def test_data_is_not_kept_where_models_may_read(tmp_path: Path) -> None:
    house = Installation(Path(sys.prefix) / "modelkeep-data")
    house.log = tmp_path / "log"
    house.start()
    assert house._process is not None
    assert house._process.wait(20) != 0
    assert "models may read" in house.log.read_text()
    assert not house.data.exists()
