"""kill -9 under load, seeded: nothing acknowledged is lost, nothing is left half done, and it is back in time."""

import os
import pickle
import random
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from sklearn.dummy import DummyRegressor

from fixtures.installation import Installation, eventually, installed
from modelkeep.client import Client, ModelkeepError

SEED = int(os.environ.get("KILL_SEED", "20261121"))
ROUNDS = int(os.environ.get("KILL_ROUNDS", "12"))
SERVERS = [int(one) for one in os.environ.get("KILL_SERVERS", "1,2").split(",")]  # server processes
ROLES = ("worker", "runner", "api", "courier", "template", "supervisor")
RUNNER_BACK_S = 2.0
WHOLE_BACK_S = 10.0


class Ledger:
    """What the installation has acknowledged to its clients."""

    def __init__(self) -> None:
        self.uploads: dict[int, str] = {}
        self.promotions: list[tuple[int, int]] = []
        self.wrong: list[str] = []
        self.answers: list[float] = []  # when a prediction was answered
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
                    ledger.answers.append(time.monotonic())
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


def _all_answer(house: Installation, servers: int) -> bool:
    """Whether each server answers: of so many connections one or more come to each, all but once in a hundred times."""
    return all(_answers(house, "steady") for _connection in range(8 if servers > 1 else 1))


def _longest_silence(answers: list[float], begin: float, end: float) -> float:
    """Return the longest time, in seconds, from `begin` to `end` in which no prediction was answered."""
    within = [begin, *sorted(one for one in answers if begin < one < end), end]
    return max(after - before for before, after in pairwise(within))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", SERVERS)
def test_nothing_acknowledged_is_lost_when_processes_are_killed_under_load(servers: int, tmp_path: Path) -> None:
    with installed(tmp_path / "data", MODELKEEP_SERVER__PROCESSES=str(servers)) as house:
        _campaign(house, servers, tmp_path)


def _campaign(house: Installation, servers: int, tmp_path: Path) -> None:
    ledger, stop, dice = Ledger(), threading.Event(), random.Random(SEED)
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
    kills: list[tuple[str, float]] = []
    roles = [*(f"server-{number + 1}" for number in range(servers)), *ROLES]
    deck: list[str] = []
    try:
        for _round in range(ROUNDS):
            time.sleep(dice.uniform(0.3, 1.2))  # the moment of the kill is the experiment's variable, drawn from the seed
            deck = deck or dice.sample(roles, len(roles))  # each is killed before any is killed again
            what = deck.pop()
            kills.append((what, _kill(house, what, dice)))
            eventually(lambda: _all_answer(house, servers), f"predictions after the {what} was killed")
    finally:
        stop.set()
        for thread in work:
            thread.join()
    house.wait()
    silences: dict[str, list[float]] = {}
    for (what, begin), (_next, end) in pairwise([*kills, ("", ledger.answers[-1])]):
        silences.setdefault(what, []).append(_longest_silence(ledger.answers, begin, end))
    print(
        "\nseconds without an answered prediction:", {what: [round(one, 2) for one in each] for what, each in silences.items()}
    )
    assert ledger.wrong == []
    assert max(silences.get("runner", [0.0])) < RUNNER_BACK_S
    assert max(one for each in silences.values() for one in each) < WHOLE_BACK_S
    _check(house, ledger)


def _kill(house: Installation, what: str, dice: random.Random) -> float:
    if what == "supervisor":
        killed = time.monotonic()
        house.kill()
        house.start()
        return killed
    if what == "runner":
        eventually(house.runners, "a runner to kill")
        victim = dice.choice(house.runners())
    else:
        eventually(lambda: house.role(what), f"the {what}")
        victim = house.role(what)
    orphans = house.runners() if what == "template" else []
    victim.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: not any(one.is_running() for one in orphans), "the runners have followed their template")
    return killed


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
