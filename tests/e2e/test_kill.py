"""kill -9 under load, seeded: nothing acknowledged is lost, nothing is left half done, and it is back in time."""

import os
import pickle
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from sklearn.dummy import DummyRegressor

from fixtures.installation import Installation, eventually
from modelkeep.client import Client, ModelkeepError

SEED = int(os.environ.get("KILL_SEED", "20261121"))
ROUNDS = int(os.environ.get("KILL_ROUNDS", "20"))
RUNNER_BACK_S = 2.0
WHOLE_BACK_S = 10.0


class Ledger:
    """What the installation has acknowledged to its clients."""

    def __init__(self) -> None:
        self.uploads: dict[int, str] = {}
        self.promotions: list[tuple[int, int]] = []
        self.wrong: list[str] = []
        self.answered = 0
        self.lock = threading.Lock()


def _artifact(folder: Path, value: int) -> Path:
    path = folder / f"{value}.pkl"
    path.write_bytes(pickle.dumps(DummyRegressor(strategy="constant", constant=float(value)).fit([[0.0]], [0.0])))
    return path


def _upload(house: Installation, folder: Path, ledger: Ledger, stop: threading.Event) -> None:
    """Upload version after version; the constant a version answers with says which upload it was."""
    value = 1
    while not stop.is_set():
        path = _artifact(folder, value)
        try:
            with house.client(timeout=5) as client:
                version = client.push(path, "ledger", wait=False, description=str(value))
        except (ModelkeepError, OSError):
            value += 1
            continue
        with ledger.lock:
            ledger.uploads[version.number] = str(value)
        value += 1
        stop.wait(0.4)


def _promote(house: Installation, ledger: Ledger, stop: threading.Event, dice: random.Random) -> None:
    while not stop.is_set():
        try:
            with house.client(timeout=5) as client:
                ready = [one.number for one in client.versions("ledger") if one.state == "ready"]
                if ready:
                    done = client.promote("ledger", dice.choice(ready))
                    with ledger.lock:
                        ledger.promotions.append((done.revision, done.version))
        except (ModelkeepError, OSError):
            pass
        stop.wait(0.3)


def _predict(house: Installation, ledger: Ledger, stop: threading.Event) -> None:
    """Every answer must be the one of the version that it names."""
    while not stop.is_set():
        try:
            with house.client(timeout=5) as client:
                while not stop.is_set():
                    answer = client.predict("steady", [[0.0]])
                    ledger.answered += 1
                    if float(answer.outputs["value"][0]) != 1000.0:
                        ledger.wrong.append(str(answer))
        except (ModelkeepError, OSError):
            stop.wait(0.02)


def _answers(house: Installation, name: str) -> bool:
    try:
        with Client(house.url, house.key, timeout=2) as client:
            client.predict(name, [[0.0]])
    except (ModelkeepError, OSError):
        return False
    return True


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_when_processes_are_killed_under_load(own_house: Installation, tmp_path: Path) -> None:
    house, ledger, stop, dice = own_house, Ledger(), threading.Event(), random.Random(SEED)
    with house.client() as client:
        client.push(_artifact(tmp_path, 1000), "steady")
        client.push(_artifact(tmp_path, 0), "ledger", description="0")
        ledger.uploads[1] = "0"
    work = [
        threading.Thread(target=_upload, args=(house, tmp_path, ledger, stop)),
        threading.Thread(target=_promote, args=(house, ledger, stop, random.Random(SEED + 1))),
        *(threading.Thread(target=_predict, args=(house, ledger, stop)) for _ in range(2)),
    ]
    for thread in work:
        thread.start()
    back: dict[str, list[float]] = {}
    try:
        for _round in range(ROUNDS):
            time.sleep(dice.uniform(0.3, 1.2))  # the moment of the kill is the experiment's variable, drawn from the seed
            what = dice.choice(["server", "worker", "runner", "api", "courier", "template", "supervisor"])
            started = _kill(house, what, dice)
            eventually(lambda: _answers(house, "steady"), f"predictions after the {what} was killed")
            back.setdefault(what, []).append(time.monotonic() - started)
    finally:
        stop.set()
        for thread in work:
            thread.join()
    house.wait()
    print(
        "\nseconds until predictions were answered again:",
        {what: [round(one, 2) for one in times] for what, times in back.items()},
    )
    assert ledger.wrong == []
    assert ledger.answered > 0
    assert max(back.get("runner", [0.0])) < RUNNER_BACK_S
    assert max(one for times in back.values() for one in times) < WHOLE_BACK_S
    _check(house, ledger)


def _kill(house: Installation, what: str, dice: random.Random) -> float:
    if what == "supervisor":
        house.kill()
        started = time.monotonic()
        house.start()
        return started
    if what == "runner":
        eventually(house.runners, "a runner to kill")
        victim = dice.choice(house.runners())
    else:
        eventually(lambda: house.role(what), f"the {what}")
        victim = house.role(what)
    victim.send_signal(signal.SIGKILL)
    return time.monotonic()


def _check(house: Installation, ledger: Ledger) -> None:
    """Compare what was acknowledged with what is there, and with what is served."""
    with house.client() as client:
        eventually(
            lambda: all(one.state in {"ready", "rejected"} for one in client.versions("ledger")),
            "every version has been validated",
            60,
        )
        there = {one.number: one for one in client.versions("ledger")}
        missing = ledger.uploads.keys() - there.keys()
        assert not missing, f"acknowledged uploads lost: {missing}"
        assert {number: there[number].description for number in ledger.uploads} == ledger.uploads
        assert all(one.state == "ready" for one in there.values()), [one for one in there.values() if one.state != "ready"]
        assert sorted(there) == list(range(1, len(there) + 1)), "version numbers have gaps"
        now = client.deployment("ledger")
        revision, version = max(ledger.promotions)
        assert now.revision >= revision, "an acknowledged promotion was lost"
        if now.revision == revision:
            assert now.version == version
        assert len({one for one, _version in ledger.promotions}) == len(dict(ledger.promotions)), "one revision, two versions"
        eventually(lambda: client.predict("ledger", [[0.0]]).version == now.version, "the promoted version answers")
        answer = client.predict("ledger", [[0.0]])
        assert str(int(answer.outputs["value"][0])) == there[now.version].description
    unfinished = house.data / "blobs" / "unfinished"
    assert not unfinished.exists() or list(unfinished.iterdir()) == [], "half an upload was left behind"
