"""kill -9 in the middle of rollouts, seeded, under load: each is running, or at its one end, whole, and comes to it.

KILLS rollouts on each database (`make soak-releases`: 20). The worker, the api, the server or the whole tree is killed at a
moment within the first seconds, some of them while the rollout is being asked for.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import pytest

from fixtures.askers import OK, Asked, askers
from fixtures.databases import new_postgres_database
from fixtures.failing_ranges import SAMPLE, archive
from fixtures.installation import Installation, eventually, installed
from fixtures.odds import at_least
from modelkeep.client import Client, ModelkeepError
from modelkeep.client.rollouts import Rollout
from modelkeep.contracts.audit_chain import verify_file

pytestmark = pytest.mark.timeout(3600)

KILLS = int(os.environ.get("KILLS", "2"))
SEED = int(os.environ.get("KILL_SEED", "20261123"))
LATEST_S = 3.0
BACK_S = 60.0
NAME = "rolled"
ROLES = ("worker", "api", "server", "whole")
RANGES = {1: (0.0, 0.01), 2: (0.01, 0.02), 3: (0.02, 0.42)}
"""For which inputs each version fails: version 3 is worse than the others, which take turns."""
WORSE, ALPHA, SURPRISE = 3, 0.01, 0.001


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """An installation on this database."""
    environment = {}
    if request.param == "postgresql":
        environment["MODELKEEP_DATABASE__URL"] = new_postgres_database(request.getfixturevalue("postgres"))
    with installed(tmp_path / "data", patience_s=120, **environment) as place:
        with place.client() as client:
            for number, (low, high) in RANGES.items():
                file = tmp_path / f"{number}.zip"
                file.write_bytes(archive(low, high))
                client.push(file, NAME, format="python", sample=SAMPLE)
            client.promote(NAME, 1)
            client.wait_serving(NAME, 1)
        yield place


def started(house: Installation, version: int) -> Rollout | None:
    """Ask for a rollout once; None where the installation was gone before it said what became of that."""
    steps = ["50:10m"] if version == WORSE else ["20:1s", "50:1s"]
    try:
        with house.client() as client:
            return client.start_rollout(NAME, version, steps=steps, least=20, alpha=ALPHA)
    except (ModelkeepError, OSError):
        return None


def kill(house: Installation, what: str) -> None:
    if what == "whole":
        house.kill()
        house.start()
        return
    eventually(lambda: house.role(what), f"the {what}")
    victim = house.role(what)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)


def wholeness(client: Client, rollout_id: str, old: int) -> str:
    """Return how the deployment is not what its rollout says; "" where it is. Asked until nothing changed in between."""
    while True:
        before, rollout, after = client.deployment(NAME), client.rollout(rollout_id), client.deployment(NAME)
        if before.revision == after.revision:
            break
    split, trial = after.raw["traffic"]["split"], after.raw["trial"]
    share = {str(rollout.version): rollout.percent}
    wanted: dict[str, tuple[int, dict[str, float], bool]] = {
        "running": (old, share, True),
        "promoted": (rollout.version, {}, False),
        "rolled_back": (old, {}, False),
    }
    found = (after.version, split, trial is not None)
    return "" if wanted.get(rollout.state) == found else f"{rollout.state} at {rollout.percent} %: {found}"


def looked(house: Installation, rollout_id: str, old: int) -> list[str]:
    """Look again and again until a rollout is over, through whatever is away; return what was not whole."""
    found, deadline = [], time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        try:
            with house.client(timeout=5) as client:
                while time.monotonic() < deadline:
                    found += [wrong for wrong in [wholeness(client, rollout_id, old)] if wrong]
                    if client.rollout(rollout_id).over:
                        return [*found, *(wrong for wrong in [wholeness(client, rollout_id, old)] if wrong)]
        except (ModelkeepError, OSError):
            continue
    raise AssertionError(f"{rollout_id} never came to its end")


def answers(house: Installation) -> bool:
    """Whether the api answers, through the server."""
    try:
        with house.client(timeout=5) as client:
            client.deployment(NAME)
    except (ModelkeepError, OSError):
        return False
    return True


def serves(house: Installation, version: int) -> float:
    """Return when all that is asked is answered by this version."""

    def only() -> bool:
        with house.client() as client:
            return {client.predict(NAME, [{"x": 0.5}]).version for _ in range(10)} == {version}

    eventually(only, f"answers of version {version} alone", BACK_S)
    return time.monotonic()


def faults(asked: Sequence[Asked], versions: set[int]) -> list[str]:
    """Return which answers are by a version that is none of these, or a failure that is none of theirs."""
    found = []
    for one in asked:
        bad = {number for number in versions if RANGES[number][0] <= one.x < RANGES[number][1]}
        fails = one.status == HTTPStatus.INTERNAL_SERVER_ERROR and bad
        away = one.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY}
        if not (fails or away or (one.status == OK and one.version in versions - bad)):
            found.append(f"{one}, where {sorted(versions)} may answer")
    return found


def once(client: Client, rollout: Rollout) -> list[str]:
    """Return what happened to a rollout not exactly once, by its own story, the audit trail and the deployment's revisions."""
    what = Counter(one["what"] for one in rollout.raw["events"])
    noted = Counter(one.action.removeprefix("rollout.") for one in client.audit(target=rollout.id, limit=500))
    advanced = rollout.step - 1
    wanted = Counter({"start": 1, "advance": advanced, rollout.state: 1})
    return [f"{rollout.id}: {found}" for found in (what, noted) if found != +wanted]


def check_history(house: Installation, made: Sequence[tuple[Rollout, int]], folder: Path) -> None:
    """Hold the deployment's revisions against the rollouts that it has seen, and verify the audit trail."""
    with house.client() as client:
        revisions = client.revisions(NAME, limit=10_000)[::-1]
        trail = client.export_audit(folder / "audit.jsonl")
    assert [one.revision for one in revisions] == list(range(len(revisions))), "a revision is missing, or there twice"
    seen = [(one.version, dict(one.traffic.get("split") or {})) for one in revisions]
    wanted: list[tuple[int | None, dict[str, float]]] = [(None, {}), (1, {})]
    for rollout, old in made:
        shares = [step["percent"] for step in (rollout.raw["steps"][: rollout.step])]
        wanted += [(old, {str(rollout.version): share}) for share in shares]
        wanted.append((rollout.version if rollout.state == "promoted" else old, {}))
    assert seen == wanted, "the deployment was more, or less, than its rollouts have made of it"
    report = verify_file(trail)
    assert report.whole, report


def test_a_rollout_is_whole_whatever_is_killed_at_whatever_moment(house: Installation, tmp_path: Path) -> None:
    dice, ends, killed, wrong, lost = random.Random(SEED), Counter[str](), Counter[str](), [], 0
    made: list[tuple[Rollout, int]] = []
    with askers(f"{house.url}/api/v1/predict/{NAME}", house.key, seed=SEED, connections=2, pause_s=0.002) as seen:
        for _round in range(KILLS):
            with house.client() as client:
                old = client.deployment(NAME).version or 0
                before = {one.id for one in client.rollouts(deployment=NAME, limit=500)}
            version = dice.choice([WORSE, 3 - old])
            what = dice.choice(ROLES)
            began = time.monotonic()
            with ThreadPoolExecutor(1) as aside:
                asked: Future[Rollout | None] = aside.submit(started, house, version)
                at_once = dice.random() < 0.25
                time.sleep(dice.uniform(0, 0.1 if at_once else LATEST_S))  # the moment is the experiment's, by the seed
                kill(house, what)
                said = asked.result()
            killed[what] += 1
            house.wait(BACK_S)
            eventually(lambda: answers(house), f"the api after the {what}", BACK_S)
            with house.client() as client:
                new = [one for one in client.rollouts(deployment=NAME, limit=500) if one.id not in before]
            assert len(new) <= 1, f"asked for once, there several times: {new}"
            if not new:
                assert said is None, "a rollout that was acknowledged is gone"
                lost += 1
                continue
            wrong += looked(house, new[0].id, old)
            with house.client() as client:
                rollout = client.rollout(new[0].id)
                ends[f"{'worse' if version == WORSE else 'as good'}: {rollout.state}"] += 1
                left = version if rollout.state == "promoted" else old
                settled = serves(house, left)
                made.append((rollout, old))
                wrong += faults(seen.between(began, settled), {old, version})
                wrong += once(client, rollout)
                wrong += faults(seen.between(settled, float("inf")), {left})
    print(f"\n{sum(killed.values())} kills {dict(killed)}: {dict(ends)}, {lost} never begun; {len(seen.asked)} answers")
    print(f"{Counter(one.status for one in seen.asked)}, connections lost: {len(seen.lost)}")
    assert wrong == []
    assert ends["worse: promoted"] == 0
    good = ends["as good: promoted"] + ends["as good: rolled_back"]
    assert at_least(ends["as good: rolled_back"], good, ALPHA) > SURPRISE
    check_history(house, made, tmp_path)
