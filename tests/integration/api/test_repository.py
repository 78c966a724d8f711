"""Open Inference's loading and unloading: archive and restore, answered once every server has followed."""

import asyncio

import httpx
import pytest

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.control_api import key_with
from modelkeep.api.routes import repository
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.infra.broadcast import latest
from modelkeep.infra.db import Database

LOAD, UNLOAD = "/v2/repository/models/iris/load", "/v2/repository/models/iris/unload"


class Servers:
    """What servers say, in place of servers."""

    def __init__(self, control: ControlPlane, db: Database, clock: TestClock) -> None:
        self._control = control
        self._db = db
        self._clock = clock
        self.version = ""

    async def number(self) -> int:
        async with self._db.read() as tx:
            news = await latest(tx, SNAPSHOT, -1)
        assert news is not None
        return news.number

    async def say(self, server: str, *, answers: bool, number: int | None = None, failing: str = "") -> None:
        """Have a server say whether it answers for iris, by the snapshot of this number, or by the newest."""
        serving = {"iris": self.version} if answers else {}
        applied = await self.number() if number is None else number
        self._clock.advance(seconds=0.001)
        at = self._clock().timestamp()
        await self._control.deployments.hear(
            Heartbeat(server, at, applied, serving, {self.version: failing} if failing else {})
        )


@pytest.fixture
async def servers(client: httpx.AsyncClient, control: ControlPlane, db: Database, clock: TestClock) -> Servers:
    """Two of them, which answer for the model iris."""
    del client  # with it comes the first administrator
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")
    servers = Servers(control, db, clock)
    servers.version = (await control.models.version(ADMIN, "iris", 1)).id
    for one in ("s1", "s2"):
        await servers.say(one, answers=True)
    return servers


async def test_unloading_answers_once_no_server_answers_for_the_model(client: httpx.AsyncClient, servers: Servers) -> None:
    before = await servers.number()
    asked = asyncio.create_task(client.post(UNLOAD))
    while await servers.number() == before:
        await asyncio.sleep(0.01)
    await servers.say("s1", answers=False)
    await servers.say("s2", answers=False, number=before)  # so it was before, for another reason
    done, _waiting = await asyncio.wait({asked}, timeout=0.3)
    assert not done
    await servers.say("s2", answers=False)
    answer = await asked
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await client.get("/api/v1/models/iris")).json()["archived_at"] is not None


async def test_loading_answers_once_every_server_answers_with_the_promoted_version(
    client: httpx.AsyncClient, control: ControlPlane, servers: Servers
) -> None:
    await control.lifecycle.archive(ADMIN, "iris")
    before = await servers.number()
    for one in ("s1", "s2"):
        await servers.say(one, answers=False)
    asked = asyncio.create_task(client.post(LOAD, json={"parameters": {"config": "{}"}}))
    while await servers.number() == before:
        await asyncio.sleep(0.01)
    await servers.say("s1", answers=True)
    await servers.say("s2", answers=False)
    done, _waiting = await asyncio.wait({asked}, timeout=0.3)
    assert not done
    await servers.say("s2", answers=True)
    assert (await asked).status_code == 200
    assert (await client.get("/api/v1/models/iris")).json()["archived_at"] is None


async def test_what_is_so_already_is_answered_at_once(client: httpx.AsyncClient, servers: Servers) -> None:
    assert (await client.post(LOAD, content=b"")).status_code == 200


async def test_a_server_that_has_not_spoken_for_long_is_not_waited_for(
    client: httpx.AsyncClient, servers: Servers, clock: TestClock
) -> None:
    clock.advance(minutes=1)
    assert (await client.post(UNLOAD)).status_code == 200


async def test_waiting_has_an_end(client: httpx.AsyncClient, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_UNLOADED_WITHIN_S", 0.2)
    answer = await client.post(UNLOAD)
    assert (answer.status_code, answer.json().keys()) == (504, {"error"})


async def test_a_version_that_cannot_be_served_is_told_with_its_reason(client: httpx.AsyncClient, servers: Servers) -> None:
    await servers.say("s2", answers=False, failing="it does not load")
    answer = await client.post(LOAD)
    assert (answer.status_code, "it does not load" in answer.json()["error"]) == (503, True)


async def test_a_model_without_a_version_that_answers_cannot_be_loaded(
    client: httpx.AsyncClient, control: ControlPlane
) -> None:
    await control.models.create(ADMIN, "iris")
    assert (await client.post(LOAD)).status_code == 409


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
async def test_refusals_have_the_protocol_s_shape(
    stranger: httpx.AsyncClient, control: ControlPlane, admin_key: str, path: str
) -> None:
    async def refused(**request: object) -> tuple[int, set[str]]:
        answer = await stranger.post(path, **request)
        return answer.status_code, {*answer.json()}

    assert await refused() == (401, {"error"})
    stranger.headers["X-API-Key"] = await key_with(control, admin_key, Scope.PREDICT)
    assert await refused() == (403, {"error"})
    stranger.headers["X-API-Key"] = admin_key
    assert await refused() == (404, {"error"})
    for body in (b"{", b"[]", b'{"parameters": 1}', b"[" * 100_000, b"\xff", b"NaN"):
        assert await refused(content=body) == (400, {"error"})
    assert await refused(content=b" " * 2_000_000) == (413, {"error"})
    assert {*(await stranger.post("/v2/repository/other")).json()} == {"error"}
