"""Whoever watches a version is asked again each time: what they may no more, they are told no more."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from fixtures.control import ADMIN, FINDINGS, upload
from fixtures.people import people_over
from fixtures.tenants import Tenants
from modelkeep.contracts.access import Role

Take = Callable[[], Awaitable[object]]


async def watched(stranger: httpx.AsyncClient, tenants: Tenants, secret: str, take: Take) -> list[str]:
    """Watch a new version of red's model; something is taken when the first state has been told. Returns what was told."""
    version = await tenants.control.models.receive(ADMIN, "red-model", upload(b"second"))
    told: list[str] = []
    path = f"/api/v1/models/red-model/versions/{version.number}/events"
    async with asyncio.timeout(20), stranger.stream("GET", path, headers={"X-API-Key": secret}) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            told.append(json.loads(line.removeprefix("data: "))["state"])
            if told == ["received"]:
                await take()
                await tenants.control.models.begin_validation(version.id)
                await tenants.control.models.accept(version.id, FINDINGS, "job_none")
    return told


async def nothing() -> None:
    """Take nothing: the control."""


async def test_events_end_with_what_lets_one_see_them(stranger: httpx.AsyncClient, tenants: Tenants):
    await tenants.person("vic", Role.VIEWER, tenants.places["red"])
    secret = await tenants.secret("vic")
    assert (await watched(stranger, tenants, secret, nothing))[-1] == "ready"
    (grant,) = [
        one
        for one in await tenants.control.access.grants(ADMIN, limit=50, place=tenants.places["red"])
        if one.subject == tenants.people["vic"]
    ]

    async def take() -> None:
        await tenants.control.access.take(ADMIN, grant, tenants.places["red"])

    assert await watched(stranger, tenants, secret, take) == ["received"]


@pytest.mark.parametrize("what", ["person", "key"])
async def test_events_end_with_who_watches(stranger: httpx.AsyncClient, tenants: Tenants, what: str):
    await people_over(tenants.control, tenants.db)  # who administers when others leave
    await tenants.person("vic", Role.VIEWER, tenants.places["red"])
    secret = await tenants.secret("vic")
    actor = await tenants.control.access.authenticate(secret)

    async def take() -> None:
        if what == "person":
            await tenants.control.users.set_active(ADMIN, tenants.people["vic"], active=False)
        else:
            await tenants.control.users.revoke_key(actor, actor.id)

    assert await watched(stranger, tenants, secret, take) == ["received"]
