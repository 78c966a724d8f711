"""Limits of a real installation with two server processes: by person, by address behind a proxy, and of who has no good key."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.installation import Installation, eventually, installed

PREDICT = "/api/v1/predict/quick"
ROWS = {"inputs": [[1.0, 0.0]]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two server processes that trust a proxy on this machine, with rates by class, person and address."""
    folder: Path = tmp_path_factory.mktemp("pair")
    options = {
        "MODELKEEP_SERVER__PROCESSES": "2",
        "MODELKEEP_SERVER__TRUSTED_PROXIES": "127.0.0.1",
        "MODELKEEP_LIMITS__USER_RATE": "1/min:20",
        "MODELKEEP_LIMITS__CLASSES": "trial=1/min:5",
        "MODELKEEP_LIMITS__FAILURE_RATE": "1/min:30",
    }
    with installed(folder / "data", **options) as house:
        (folder / "quick.echo").write_text('{"echo": 1}')
        with house.client() as client:
            client.push(folder / "quick.echo", "quick")
            eventually(lambda: all(len(one.raw["serving"]) == 2 for one in client.deployments()), "both servers answer")
        yield house


def key(house: Installation, **asked: object) -> str:
    """Make a key that both servers know when it is returned."""
    with house.http() as http:
        body = {"name": "k", "scopes": ["predict", "models:read"], **asked}
        secret: str = http.post("/api/v1/keys", json=body).raise_for_status().json()["secret"]
        eventually(lambda: all(known(house, secret, n) for n in range(12)), "both servers know the key")
        return secret


def known(house: Installation, secret: str, number: int) -> bool:
    """Whether a server knows the key; it is asked from an address of its own, so that no failure counts for the tests'."""
    headers = {"x-api-key": secret, "x-forwarded-for": f"203.0.113.{number}"}
    return httpx.get(f"{house.url}/v2/models/quick", headers=headers).status_code != 401


def asked(house: Installation, secrets: list[str], times: int, **headers: str) -> Counter[int]:
    """Ask by these keys in turn, each time on a connection of its own; count the statuses."""
    return Counter(
        httpx.post(house.url + PREDICT, json=ROWS, headers={"x-api-key": secrets[n % len(secrets)], **headers}).status_code
        for n in range(times)
    )


def test_the_keys_of_one_person_share_a_rate_and_a_class_is_for_each_key(pair: Installation) -> None:
    mine = [key(pair, rate="user") for _ in range(2)]
    assert asked(pair, mine, 60) == {200: 20, 429: 40}
    trials = [key(pair, rate="trial") for _ in range(2)]
    assert asked(pair, trials, 40) == {200: 10, 429: 30}
    answer = httpx.post(pair.url + PREDICT, json=ROWS, headers={"x-api-key": mine[0]})
    assert answer.headers["ratelimit-policy"] == '"user";q=1;w=60'
    assert answer.headers["ratelimit"] == f'"user";r=0;t={answer.headers["retry-after"]}'


def test_a_bound_key_is_good_from_its_network_alone_at_both_doors(pair: Installation) -> None:
    bound = key(pair, networks=["192.0.2.0/24"])
    forged = {"x-modelkeep-address": "192.0.2.7"}
    assert asked(pair, [bound], 4, **forged) == {403: 4}
    assert asked(pair, [bound], 4, **{"x-forwarded-for": "192.0.2.7"}) == {200: 4}
    for headers, status in (({"x-forwarded-for": "192.0.2.7"}, 200), (forged, 403), ({"x-forwarded-for": "x"}, 403)):
        answer = httpx.get(f"{pair.url}/api/v1/models", headers={"x-api-key": bound, **headers})
        assert answer.status_code == status, headers


def test_guesses_are_slowed_down_and_who_works_goes_on(pair: Installation) -> None:
    good, here = key(pair), {"x-forwarded-for": "198.51.100.1"}
    both = asked(pair, ["wrong", good], 200, **here)
    assert both[200] + both[429] + both[401] == 200
    assert 30 <= both[401] <= 64, "each process counts by itself"
    assert both[200] == 100
    assert asked(pair, [good], 4, **{"x-forwarded-for": "198.51.100.2"}) == {200: 4}
