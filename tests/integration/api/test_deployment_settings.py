"""Settings of deployments and rates of keys, over HTTP."""

import httpx
import pytest

from fixtures.control import ADMIN, ready_version
from fixtures.control_api import key_with
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope

IRIS = "/api/v1/deployments/iris"
DEFAULTS = {
    "deadline_s": 0.0,
    "batching": {"mode": "auto", "max_rows": 0, "max_wait_ms": -1.0, "latency_target_ms": 0.0},
    "replicas": {"min": 1, "max": 0},
    "concurrency": 0,
    "memory": {"keep": "auto", "idle_s": 300.0},
    "not_finite": "null",
    "golden": "enforce",
    "rate": {"per_minute": 0, "burst": 0},
    "bake_s": 600.0,
    "cache": {"mode": "auto", "ttl_s": 3600.0, "share": "caller"},
    "recording": {"enabled": True, "sample": 1.0, "inputs": "keep", "outputs": "keep", "fields": {}, "keep_days": 30},
}


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with a ready version 1, which promoted itself: revision 1."""
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")


async def test_settings_are_shown_whole_and_changed_in_part(client: httpx.AsyncClient, iris: None):
    assert (await client.get(IRIS)).json()["settings"] == DEFAULTS
    changed = await client.patch(IRIS, json={"settings": {"deadline_s": 2, "batching": {"mode": "off"}}})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    expected = DEFAULTS | {"deadline_s": 2.0, "batching": DEFAULTS["batching"] | {"mode": "off"}}
    assert changed.json()["settings"] == expected
    assert (await client.get("/api/v1/deployments")).json()["items"][0]["settings"] == expected
    back = await client.patch(IRIS, json={"settings": {"deadline_s": None, "batching": None}})
    assert back.json()["settings"] == DEFAULTS


async def test_a_change_of_an_old_revision_is_stale_and_says_the_present_one(client: httpx.AsyncClient, iris: None):
    first = await client.patch(IRIS, json={"settings": {"concurrency": 1}}, headers={"If-Match": '"1"'})
    assert first.status_code == 200
    second = await client.patch(IRIS, json={"settings": {"concurrency": 2}}, headers={"If-Match": '"1"'})
    assert (second.status_code, second.json()["code"]) == (409, "stale")
    assert "revision 2" in second.json()["detail"]
    third = await client.patch(IRIS, json={"settings": {"concurrency": 2}}, headers={"If-Match": first.headers["etag"]})
    assert third.json()["revision"] == 3


async def test_faults_name_their_place_and_change_nothing(client: httpx.AsyncClient, iris: None):
    answer = await client.patch(IRIS, json={"settings": {"concurrency": 5, "batchng": {}, "recording": {"sample": 7}}})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_settings")
    (unknown,) = answer.json()["errors"]
    assert (unknown["path"], unknown["code"]) == ("settings.batchng", "unknown_setting")
    assert "Did you mean 'batching'?" in unknown["message"]
    assert (await client.get(IRIS)).json()["settings"] == DEFAULTS


@pytest.mark.parametrize("body", [b'{"settings": {"deadline_s": NaN}}', b'{"settings": []}', b"{}", b'{"setings": {}}'])
async def test_what_is_no_change_of_settings_is_refused(client: httpx.AsyncClient, iris: None, body: bytes):
    answer = await client.patch(IRIS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert (await client.get(IRIS)).json()["revision"] == 1


async def test_a_key_that_only_reads_changes_no_settings(
    stranger: httpx.AsyncClient, control: ControlPlane, admin_key: str, iris: None
):
    reading = {"X-API-Key": await key_with(control, admin_key, Scope.MODELS_READ)}
    assert (await stranger.get(IRIS, headers=reading)).status_code == 200
    refused = await stranger.patch(IRIS, json={"settings": {}}, headers=reading)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_key_is_made_with_a_rate(client: httpx.AsyncClient):
    made = await client.post("/api/v1/keys", json={"name": "ci", "scopes": ["predict"], "rate": "100/min"})
    assert (made.status_code, made.json()["rate"], made.json()["burst"]) == (201, "100/min", None)
    plain = await client.post("/api/v1/keys", json={"name": "plain", "scopes": ["predict"]})
    assert plain.json()["rate"] == "user"
    narrow = await client.post("/api/v1/keys", json={"name": "narrow", "scopes": ["predict"], "concurrency": 8})
    assert (plain.json()["concurrency"], narrow.json()["concurrency"]) == (None, 8)
    none = await client.post("/api/v1/keys", json={"name": "none", "scopes": ["predict"], "concurrency": 0})
    assert (none.status_code, none.json()["errors"][0]["path"]) == (400, "concurrency")
    wrong = await client.post("/api/v1/keys", json={"name": "ci", "scopes": ["predict"], "rate": "fast"})
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "rate")
