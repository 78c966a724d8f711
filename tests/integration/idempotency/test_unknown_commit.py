"""The connection to PostgreSQL is cut at COMMIT, so that nobody knows whether it happened: the key tells."""

from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from fixtures.control import SITE, Rings, TestClock
from fixtures.control_api import api_over
from fixtures.cut_postgres import CommitCutter, cutting
from fixtures.databases import new_postgres_database
from modelkeep.api.settings import ApiSettings
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.db import Database
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore

TRIES = 100
MOST_REPEATS = 200


@pytest.fixture
async def cutter(postgres: str, migrated_postgres: str) -> AsyncIterator[CommitCutter]:
    async with cutting(new_postgres_database(postgres, migrated_postgres)) as proxy:
        yield proxy


@pytest.fixture
async def client(cutter: CommitCutter, clock: TestClock, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API behind the proxy, with the first administrator's key."""
    db, rings = Database(DatabaseSettings(url=cutter.url)), Rings()
    control = control_plane(
        db, ring_worker=rings.ring_worker, ring_courier=rings.ring_courier, limits=Limits(), site=SITE, clock=clock
    )
    app = api_over(control, Predictions(db, clock), db, LocalStore(tmp_path / "blobs"), ApiSettings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        token = await control.users.ensure_setup_token(clock())
        made = (await client.post("/api/v1/setup", json={"token": token.reveal()})).json()
        client.headers["x-api-key"] = made["key"]["secret"]
        assert (await client.get("/api/v1/me")).status_code == 200
        yield client
    await db.close()


async def issue(client: httpx.AsyncClient, name: str, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return await client.post("/api/v1/keys", json={"name": name, "scopes": ["predict"]}, headers=headers)


async def until_made(client: httpx.AsyncClient, name: str, key: str | None) -> httpx.Response:
    """Repeat what was refused for now, until it is answered."""
    for _attempt in range(MOST_REPEATS):
        answer = await issue(client, name, key)
        if answer.status_code == 201:
            return answer
        assert answer.json()["code"] in {"database_unavailable", "idempotency_key_in_use"}, answer.text
        assert answer.headers["retry-after"] == "1"
    raise AssertionError(f"refused {MOST_REPEATS} times: {answer.text}")


async def names(client: httpx.AsyncClient) -> Counter[str]:
    found = (await client.get("/api/v1/keys", params={"limit": 500})).json()["items"]
    return Counter(one["name"] for one in found if one["name"] != "first key")


async def test_a_repeated_write_is_done_once_whatever_became_of_its_commit(client: httpx.AsyncClient, cutter: CommitCutter):
    replayed: Counter[tuple[str, str | None]] = Counter()
    for number, when in zip(range(TRIES), cycle(["before", "meanwhile", "after"]), strict=False):
        name = f"k{number}"
        cutter.cut = when
        cut = await issue(client, name, name)
        assert (cut.status_code, cut.json()["code"], cut.headers["retry-after"]) == (503, "database_unavailable", "1")
        made = await until_made(client, name, name)
        replayed[when, made.headers.get("idempotency-replayed")] += 1
        again = await issue(client, name, name)
        assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (201, made.json(), "true")
        own = await client.get("/api/v1/me", headers={"x-api-key": made.json()["secret"]})
        assert own.json()["key"]["id"] == made.json()["id"]
    assert cutter.cuts == TRIES
    assert await names(client) == Counter(f"k{number}" for number in range(TRIES))
    assert replayed["before", "true"] == 0
    assert replayed["after", None] == 0


async def test_without_a_key_a_repeated_write_is_done_twice(client: httpx.AsyncClient, cutter: CommitCutter):
    """The control: this is what the key is for."""
    for number in range(10):
        cutter.cut = "after"
        assert (await issue(client, f"k{number}", None)).status_code == 503
        assert (await until_made(client, f"k{number}", None)).status_code == 201
    assert await names(client) == Counter({f"k{number}": 2 for number in range(10)})


async def test_the_first_set_up_is_repeated_with_the_same_key(
    cutter: CommitCutter, clock: TestClock, tmp_path: Path, rings: Rings
):
    """Without this the first administrator would be locked out: the token is used, and the key was never seen."""
    db = Database(DatabaseSettings(url=cutter.url))
    control = control_plane(
        db, ring_worker=rings.ring_worker, ring_courier=rings.ring_courier, limits=Limits(), site=SITE, clock=clock
    )
    app = api_over(control, Predictions(db, clock), db, LocalStore(tmp_path / "blobs"), ApiSettings())
    token = await control.users.ensure_setup_token(clock())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        asked = {"url": "/api/v1/setup", "json": {"token": token.reveal()}, "headers": {"idempotency-key": "first"}}
        cutter.cut = "after"
        assert (await client.post(**asked)).status_code == 503
        made = await client.post(**asked)
        assert (made.status_code, made.headers["idempotency-replayed"]) == (201, "true")
        secret = made.json()["key"]["secret"]
        assert (await client.get("/api/v1/me", headers={"x-api-key": secret})).status_code == 200
        other = await client.post("/api/v1/setup", json={"token": "mks_x"}, headers={"idempotency-key": "first"})
        assert other.status_code in {401, 409}
        assert secret not in other.text
    await db.close()
