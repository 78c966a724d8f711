"""More models than there is memory for: all of them answer, the budget holds, and what must be there always is.

MODELS says how many (`make soak`: 200 on 4 GB).
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures.installation import Installation, eventually, installed

MODELS = int(os.environ.get("MODELS", "12"))
BUDGET_MB = int(os.environ.get("BUDGET_MB", "800"))
EACH_MB = int(os.environ.get("EACH_MB", "70"))
SECONDS = float(os.environ.get("SECONDS", "6"))
TOLERANCE = 1.05
CALLERS = 4

pytestmark = pytest.mark.timeout(240 + 6 * MODELS + SECONDS)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    with installed(
        tmp_path / "data", MODELKEEP_RUNNERS__BUDGET_MB=str(BUDGET_MB), MODELKEEP_RUNNERS__MIN_IDLE_S="0.3"
    ) as installation:
        yield installation


class Watch:
    """Looks at what runners and template hold, as the kernel counts it, again and again."""

    def __init__(self, house: Installation) -> None:
        self.most = 0
        self._house = house
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            self.most = max(self.most, held(self._house))


def held(house: Installation) -> int:
    """Bytes: each page once, however many of the processes share it."""
    template = house.role("template")
    found = 0
    for process in [*house.runners(), *([template] if template else [])]:
        try:
            found += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return found


def push(house: Installation, folder: Path, number: int, **behaviour: object) -> None:
    path = folder / f"m{number}.echo"
    path.write_text(json.dumps({"echo": 1, "load_mb": EACH_MB, "factor": number + 1.0, **behaviour}))
    with house.client() as client:
        client.push(path, f"m{number}")


def ask(client: httpx.Client, number: int) -> None:
    answer = client.post(f"/api/v1/predict/m{number}", json={"inputs": [[1.0, 2.0]]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"]["input"] == [[number + 1.0, 2.0 * (number + 1)]]


def skewed(house: Installation, seconds: float) -> tuple[int, float]:
    """Ask all models, few of them often and most of them rarely; returns how many answers there were, and the slowest."""
    weights = [1 / (rank + 1) for rank in range(MODELS)]
    ends = time.monotonic() + seconds

    def caller(seed: int) -> tuple[int, float]:
        chance, count, slowest = random.Random(seed), 0, 0.0
        with house.http() as client:
            while (started := time.monotonic()) < ends:
                ask(client, chance.choices(range(MODELS), weights)[0])
                slowest = max(slowest, time.monotonic() - started)
                count += 1
        return count, slowest

    with ThreadPoolExecutor(CALLERS) as pool:
        done = list(pool.map(caller, range(CALLERS)))
    return sum(count for count, _slowest in done), max(slowest for _count, slowest in done)


def metric(house: Installation, name: str) -> dict[str, float]:
    """A metric's value by deployment."""
    with house.http() as client:
        text = client.get("/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples if one.name == name]
    return {one.labels["deployment"]: one.value for one in samples}


def models(house: Installation) -> dict[str, int]:
    with house.http() as client:
        return client.get("/health").json()["models"]


def test_more_models_than_there_is_memory_for_all_answer_within_the_budget(house: Installation, tmp_path: Path) -> None:
    with Watch(house) as watch:
        for number in range(MODELS):
            push(house, tmp_path, number)
        assert models(house)["asleep"] > 0
        answers, slowest = skewed(house, SECONDS)
    cold = sum(metric(house, "modelkeep_cold_starts_total").values())
    now = models(house)
    print(
        f"\n{MODELS} models of {EACH_MB} MB, {BUDGET_MB} MB: {answers} answers, none failed; {cold:.0f} cold starts, slowest"
        f" answer {slowest:.2f} s; most held {watch.most >> 20} MB; {now}"
    )
    assert cold > 0
    assert watch.most <= TOLERANCE * (BUDGET_MB << 20)
    assert now["failing"] == 0
    assert now["ready"] + now["asleep"] + now["loading"] == MODELS
    assert house.supervisor.is_running()
    with house.http() as client:
        for number in range(MODELS):
            ask(client, number)


def test_what_is_always_kept_stays_and_what_is_kept_on_demand_goes(house: Installation, tmp_path: Path) -> None:
    for number in range(3):
        push(house, tmp_path, number)
    with house.client() as client, house.http() as http:
        client.configure("m0", {"memory": {"keep": "always"}})
        client.configure("m1", {"memory": {"keep": "on_demand", "idle_s": 1}})
        eventually(lambda: metric(house, "modelkeep_model_asleep").get("m1") == 1, "nobody asked for m1")
        ask(http, 1)
        assert metric(house, "modelkeep_cold_starts_total")["m1"] == 1
        eventually(lambda: metric(house, "modelkeep_model_asleep").get("m1") == 1, "nobody asks for m1 any more")
        for number in range(3, MODELS):
            push(house, tmp_path, number)
        eventually(lambda: metric(house, "modelkeep_model_asleep").get("m2") == 1, "the oldest goes")
        assert metric(house, "modelkeep_model_asleep")["m0"] == 0
        assert http.get("/info", params={"model": "m1"}).status_code in {200, 404}
        info = http.get("/v2/models/m2/ready")
        assert (info.status_code, info.json()["ready"]) == (200, True), "it answers whoever asks"


def test_after_a_death_of_the_server_and_after_a_restart_everything_answers(house: Installation, tmp_path: Path) -> None:
    for number in range(MODELS):
        push(house, tmp_path, number)
    server = house.role("server")
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(house.is_ready, "a server again")
    with house.http() as client:
        for number in range(MODELS):
            ask(client, number)
    assert house.stop() == 0
    house.start().wait()
    assert models(house)["asleep"] > 0
    with house.http() as client:
        for number in reversed(range(MODELS)):
            ask(client, number)


def test_a_runner_that_grows_is_replaced_before_its_limit_ends_it(tmp_path: Path) -> None:
    runs = {"MODELKEEP_SERVING__CACHE_MB": "0"}  # each question is run, though it is always the same
    with installed(tmp_path / "data", MODELKEEP_RUNNERS__MEMORY_MB="512", **runs) as house:
        push(house, tmp_path, 0, load_mb=10, leak_mb=5)
        pids = set()
        with house.http() as client:
            for _ in range(250):
                ask(client, 0)
                pids |= {one.pid for one in house.runners()}
                time.sleep(0.02)  # slower than the supervisor's looks, a few of which see the growth
        assert len(pids) > 2, "it was replaced"
        said = house.log.read_text()
        assert "a runner is replaced before its memory limit ends it" in said
        assert "cause=memory" not in said
