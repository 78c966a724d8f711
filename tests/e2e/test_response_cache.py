"""Answers that are kept, in a real installation: found again, retired by a promotion, and shared through a Redis server."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.installation import Installation, eventually, installed
from fixtures.valkey import Valkey, valkey

ROWS = {"inputs": [[1.0, 2.0]]}
NO_CACHE = {"cache-control": "no-cache"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey"), "s3cret") as found:
        yield found


def slow(folder: Path, factor: float, **more: object) -> Path:
    """A model that takes its time, and answers with its rows times `factor`."""
    file = folder / f"{factor}.echo"
    file.write_text(json.dumps({"echo": 1, "run_s": 0.02, "factor": factor, **more}))
    return file


def counted(http: httpx.Client, name: str) -> dict[str, float]:
    """The samples of a metric, by their labels."""
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return {line.rpartition(" ")[0].removeprefix(name): float(line.rpartition(" ")[2]) for line in lines}


def ask(http: httpx.Client, headers: dict[str, str] | None = None, model: str = "slow") -> tuple[str, list[float]]:
    answer = http.post(f"/api/v1/predict/{model}", json=ROWS, headers=headers or {})
    assert answer.status_code == 200, answer.text
    ((row,),) = answer.json()["outputs"].values()
    return answer.headers.get("x-cache", ""), row


def test_a_slow_model_answers_an_equal_question_again_until_it_is_replaced(own_house: Installation, tmp_path: Path) -> None:
    with own_house.client() as client, own_house.http() as http:
        client.push(slow(tmp_path, 2.0), "slow")
        client.push(slow(tmp_path, 3.0, noise=1.0), "moody")
        assert [ask(http) for _ in range(3)] == [("miss", [2.0, 4.0]), ("hit", [2.0, 4.0]), ("hit", [2.0, 4.0])]
        assert [ask(http, NO_CACHE)[0], ask(http)[0]] == ["miss", "hit"]
        assert [ask(http, model="moody")[0] for _ in range(2)] == ["", ""], "it never says the same again"

        made = http.post("/api/v1/keys", json={"name": "second", "scopes": ["predict"]})
        assert made.status_code == 201
        second = {"x-api-key": made.json()["secret"]}
        eventually(lambda: http.get("/v2/models/slow", headers=second).status_code != 401, "news of the key")
        assert ask(http, second)[0] == "hit", "another key of the same person"

        results = counted(http, "modelkeep_cache_requests_total")
        assert results == {
            '{deployment="slow",result="bypassed"}': 1.0,
            '{deployment="slow",result="hit"}': 4.0,
            '{deployment="slow",result="miss"}': 1.0,
        }
        eventually(lambda: client.deployment("slow").cache.get("hits") == 4, "the servers have told")
        told = client.deployment("slow").cache
        assert (told["state"], told["misses"], told["bypassed"], told["ratio"]) == ("on", 1, 1, 4 / 6)
        assert told["bytes"] == counted(http, "modelkeep_cache_bytes")[""] > 0
        assert client.deployment("moody").cache["state"] == "unsure"
        client.push(slow(tmp_path, 5.0), "slow")
        client.promote("slow", 2)
        eventually(lambda: ask(http)[1] == [5.0, 10.0], "the second version answers")
        assert {tuple(ask(http)[1]) for _ in range(20)} == {(5.0, 10.0)}, "nobody hears of the first one any more"
        assert counted(http, "modelkeep_cache_evictions_total") == {'{reason="retired"}': 1.0}
        client.promote("slow", 1)
        eventually(lambda: ask(http)[1] == [2.0, 4.0], "the first version answers again")

        client.configure("slow", {"cache": {"mode": "off"}})
        eventually(lambda: ask(http)[0] == "", "nothing is kept")
        eventually(lambda: counted(http, "modelkeep_cache_entries") == {"": 0.0}, "and nothing is left")
        assert client.deployment("slow").cache["said"] == "off"


def test_two_servers_share_answers_and_need_nobody_for_it(tmp_path: Path, server: Valkey) -> None:
    options = {"MODELKEEP_SERVER__PROCESSES": "2", "MODELKEEP_SERVING__CACHE_REDIS_URL": server.url}
    with installed(tmp_path / "data", **options) as house:
        with house.client() as client:
            client.push(slow(tmp_path, 2.0), "slow")
            eventually(lambda: all(len(one.raw["serving"]) == 2 for one in client.deployments()), "both answer")

        def asked(times: int, headers: dict[str, str] | None = None) -> Counter[str]:
            """Ask over connections of its own each time, so that both processes are asked."""
            found: Counter[str] = Counter()
            for _ in range(times):
                with house.http() as http:
                    said, row = ask(http, headers)
                    assert row == [2.0, 4.0]
                    found[said] += 1
            return found

        def outcome(name: str) -> float:
            with house.http() as http:
                return counted(http, "modelkeep_cache_shared_total").get(f'{{outcome="{name}"}}', 0.0)

        asked(40)
        eventually(lambda: not asked(10)["miss"], "both know the answer")
        with server.client() as redis:
            (name,) = redis.keys("modelkeep:answer:*")
            value = redis.get(name)
            assert 3_000_000 < redis.pttl(name) <= 3_600_000
            assert b"output" not in value

            with house.http() as http:
                other = {"inputs": [[7.0, 8.0]]}
                assert http.post("/api/v1/predict/slow", json=other).headers["x-cache"] == "miss"
            eventually(lambda: len(redis.keys("modelkeep:answer:*")) == 2, "the other answer is shared, too")
            (second,) = set(redis.keys("modelkeep:answer:*")) - {name}
            redis.set(second, value)  # under another's name
            redis.set(name, b"\x80\x04poison")
            for _ in range(20):
                with house.http() as http:
                    answer = http.post("/api/v1/predict/slow", json=other)
                    assert next(iter(answer.json()["outputs"].values())) == [[14.0, 16.0]]
            eventually(lambda: outcome("refused") + outcome("late") + outcome("skipped") >= 1, "the other server looked")

        server.stop()
        try:
            assert asked(40)["hit"] == 40, "each has its own"
            with house.http() as http:
                for number in range(30):
                    rows = {"inputs": [[float(number), 99.0]]}
                    assert http.post("/api/v1/predict/slow", json=rows).status_code == 200
                eventually(lambda: outcome("failed") + outcome("late") >= 5, "it is away")
        finally:
            server.start()
        assert "s3cret" not in house.log.read_text()
        assert "Traceback" not in house.log.read_text()
