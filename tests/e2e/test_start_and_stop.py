"""Starting, draining, and what stands in the way of either."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
from sklearn.dummy import DummyRegressor

from fixtures.databases import new_postgres_database
from fixtures.installation import Installation, eventually, free_port, installed


def _serve(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelkeep.app.cli", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **environment},
    )


def test_a_second_serve_on_the_same_data_says_so_and_ends(house: Installation, tmp_path: Path) -> None:
    done = _serve("--data", str(house.data), "--port", str(free_port()), cwd=tmp_path)
    assert done.returncode == 7
    assert "Another Modelkeep" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named(house: Installation, tmp_path: Path) -> None:
    done = _serve("--data", str(tmp_path / "data"), "--port", str(house.port), cwd=tmp_path)
    assert done.returncode == 7
    assert str(house.port) in done.stderr
    assert "--port" in done.stderr


def test_an_unknown_setting_is_refused_with_a_hint(tmp_path: Path) -> None:
    done = _serve(cwd=tmp_path, MODELKEEP_SERVER__PROT="1")
    assert done.returncode == 4
    assert "server.port" in done.stderr


def test_an_installation_starts_again_with_what_it_had(tmp_path: Path) -> None:
    with installed(tmp_path / "data") as house:
        with house.client() as client:
            client.push(_slow_model(tmp_path), "kept")
        assert house.stop() == 0
        house.start().wait()
        with house.client() as client:
            assert client.predict("kept", [[0.0]]).outputs["value"][0] == 5.0
        assert not (house.data / "setup-token").exists()


def _slow_model(folder: Path) -> Path:
    path = folder / "m.pkl"
    path.write_bytes(pickle.dumps(DummyRegressor(strategy="constant", constant=5.0).fit([[0.0]], [0.0])))
    return path


def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with installed(tmp_path / "data") as house:
        (tmp_path / "slow.echo").write_text('{"echo": 1, "run_s": 0.5}')
        with house.client() as client, house.http() as http:
            client.push(tmp_path / "slow.echo", "slow")
            answers: list[httpx.Response] = []
            call = threading.Thread(
                target=lambda: answers.append(
                    httpx.post(
                        f"{house.url}/api/v1/predict/slow",
                        json={"inputs": [[0.0, 0.0]]},
                        headers={"X-API-Key": house.key},
                        timeout=20,
                    )
                )
            )
            call.start()
            eventually(lambda: "modelkeep_inflight_requests 2" in http.get("/metrics").text, "the call is in flight")
            tree = [house.supervisor, *house.supervisor.children(recursive=True)]
            os.kill(house.supervisor.pid, signal.SIGTERM)
            call.join()
        assert [answer.status_code for answer in answers] == [200]
        _gone, alive = psutil.wait_procs(tree, timeout=10)
        assert alive == []


def test_everything_ends_with_the_supervisor(tmp_path: Path) -> None:
    with installed(tmp_path / "data") as house:
        with house.client() as client:
            client.push(_slow_model(tmp_path), "any")
        assert len(house.supervisor.children(recursive=True)) >= 6
        house.kill()
        house.start().wait()


def test_a_deep_data_directory_is_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "data"
    deep.parent.mkdir(parents=True)
    with installed(deep) as house, house.client() as client:
        assert client.models() == []


def test_the_same_house_stands_on_postgresql(postgres: str, tmp_path: Path) -> None:
    postgres_url = new_postgres_database(postgres)
    with installed(tmp_path / "data", MODELKEEP_DATABASE__URL=postgres_url) as house:
        with house.client() as client:
            client.push(_slow_model(tmp_path), "kept")
            assert client.predict("kept", [[0.0]]).outputs["value"][0] == 5.0
        house.kill()
        house.start().wait()
        with house.client() as client:
            assert client.predict("kept", [[0.0]]).outputs["value"][0] == 5.0
        assert not (house.data / "modelkeep.db").exists()
        server = house.role("server")
        assert server is not None
        assert postgres_url not in " ".join(server.environ().values())


def test_whoever_waits_for_a_prediction_comes_first(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        client.push(_slow_model(tmp_path), "first")
    nice = {name: process.nice() for name in ("server", "courier", "api", "worker") if (process := house.role(name))}
    nice["runner"] = house.runners()[0].nice()
    assert nice["server"] < nice["runner"] <= nice["courier"] < nice["api"] == nice["worker"]


def test_predictions_go_on_while_the_control_plane_is_stopped(own_house: Installation, tmp_path: Path) -> None:
    with own_house.client() as client:
        client.push(_slow_model(tmp_path), "going")
        stopped = [own_house.role(name) for name in ("api", "courier", "worker")]
        for process in stopped:
            assert process is not None
            process.suspend()
        try:
            started = time.monotonic()
            while time.monotonic() - started < 1.5:
                assert client.predict("going", [[0.0]]).version == 1
        finally:
            for process in stopped:
                process.resume()
