"""Limits of a real installation with several servers: by person, by address behind a proxy, and of who has no good key."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.installation import Installation, eventually, installed

PREDICT = "/api/v1/predict/quick"
ROWS = {"inputs": [[1.0, 0.0]]}
PASSWORD = "correct horse battery"
A_MINUTE, AT_ONCE = 100, 16
"""What the keys of one person share where nothing is set, and what ten seconds allow of it."""


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


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Three server processes with the limits that hold where nothing is set."""
    folder: Path = tmp_path_factory.mktemp("three")
    with installed(folder / "data", MODELKEEP_SERVER__PROCESSES="3") as house:
        (folder / "quick.echo").write_text('{"echo": 1}')
        with house.client() as client:
            client.push(folder / "quick.echo", "quick")
            eventually(lambda: all(len(one.raw["serving"]) == 3 for one in client.deployments()), "all servers answer")
        yield house


def logged_in(house: Installation, name: str) -> dict[str, str]:
    """Add a person who may predict and has a password; return the headers of their session."""
    email = f"{name}@example.org"
    with house.http() as http:
        person = http.post("/api/v1/users", json={"name": name, "email": email, "role": "predictor"}).raise_for_status().json()
        link = http.post(f"/api/v1/users/{person['id']}/reset-password").raise_for_status().json()
    set_to = {"token": link["token"], "password": PASSWORD}
    httpx.post(f"{house.url}/api/v1/auth/reset-password", json=set_to).raise_for_status()
    login = httpx.post(f"{house.url}/api/v1/auth/login", json={"email": email, "password": PASSWORD}).raise_for_status()
    return {"authorization": f"Bearer {login.json()['access_token']}"}


def keys_of(house: Installation, person: dict[str, str], count: int) -> list[str]:
    """Have a person make keys that share their rate; every server knows them when they are returned."""
    body = {"name": "k", "scopes": ["predict", "models:read"]}
    made = [httpx.post(f"{house.url}/api/v1/keys", json=body, headers=person).raise_for_status() for _ in range(count)]
    secrets: list[str] = [answer.json()["secret"] for answer in made]
    eventually(lambda: all(known(house, secret, n) for secret in secrets for n in range(18)), "all servers know the keys")
    return secrets


def key(house: Installation, **asked: object) -> str:
    """Make a key that both servers know when it is returned."""
    with house.http() as http:
        body = {"name": "k", "scopes": ["predict", "models:read"], "rate": "unlimited", **asked}
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


def test_a_person_has_a_hundred_a_minute_by_default_over_all_keys_and_servers(three: Installation) -> None:
    ada, grace = (keys_of(three, logged_in(three, name), 2) for name in ("ada", "grace"))
    for person in (ada, grace):  # what one has used up is nothing of the other's
        begun = time.monotonic()
        came = asked(three, person, 150)
        due = AT_ONCE + (time.monotonic() - begun) * A_MINUTE / 60
        assert came.keys() == {200, 429}
        assert AT_ONCE <= came[200] <= due + 1, f"{due:.0f} were due of all servers together: {came}"
    told = httpx.post(three.url + PREDICT, json=ROWS, headers={"x-api-key": ada[1]})
    assert told.headers["ratelimit-policy"] == f'"user";q={A_MINUTE};w=60'
    assert asked(three, [three.key], 40) == {200: 40}, "the first key is unlimited"
