"""Keys that go with client certificates, over HTTP, as the server in front tells of them."""

import json

import httpx
import pytest

from fixtures.control import TestClock
from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.infra.client_certificates import FORWARDED, header

SCORING = "uri:spiffe://example.org/scoring"


@pytest.fixture
def told(clock: TestClock) -> dict[str, str]:
    """What the server in front says of a connection that shows a certificate."""
    shown = ShownCertificate(frozenset({SCORING, "sha256:" + "a" * 64}), clock().timestamp() + 3600, b"d" * 32)
    name, value = header(shown)
    return {name.decode(): value.decode()}


async def made(client: httpx.AsyncClient, *names: str, stands_for: bool = False, **more: object) -> dict:
    body = {"name": "k", "scopes": ["admin"], "certificate": {"names": names, "stands_for": stands_for}, **more}
    answer = await client.post("/api/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def without_key(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers.pop("x-api-key", None)
    return client


async def test_what_a_key_goes_with_is_shown(client: httpx.AsyncClient):
    key = await made(client, "dns:Scoring.example.org", SCORING)
    facts = {"names": ["dns:scoring.example.org", SCORING], "stands_for": False}
    assert key["certificate"] == facts
    listed = (await client.get("/api/v1/keys")).json()["items"]
    assert [one["certificate"] for one in listed] == [facts, None]


async def test_a_certificate_stands_for_its_key(client: httpx.AsyncClient, told: dict[str, str]):
    key = await made(client, SCORING, stands_for=True)
    without_key(client)
    me = await client.get("/api/v1/me", headers=told)
    assert (me.status_code, me.json()["key"]["id"]) == (200, key["id"])
    assert (await client.get("/docs", headers=told)).status_code == 200
    assert (await client.get("/api/v1/me")).status_code == 401, "the control"
    assert (await client.get("/api/v1/models", headers=told)).status_code == 200


@pytest.mark.parametrize(
    "shown",
    [
        {"x-api-key": "mk_wrong"},
        {"x-api-key": ""},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic YTpi"},
        {"origin": "https://elsewhere.example"},
        {"sec-fetch-site": "same-site"},
        {"cookie": "__Host-modelkeep=wrong"},
    ],
)
async def test_a_credential_of_its_own_decides_alone(client: httpx.AsyncClient, told: dict[str, str], shown: dict[str, str]):
    await made(client, SCORING, stands_for=True)
    without_key(client)
    assert (await client.get("/api/v1/me", headers=told | shown)).status_code in {401, 403}
    assert (await client.get("/api/v1/me", headers=told)).status_code == 200, "the control"


async def test_with_a_key_s_secret_the_certificate_says_nothing_of_who_asks(client: httpx.AsyncClient, told: dict[str, str]):
    await made(client, SCORING, stands_for=True)
    me = await client.get("/api/v1/me", headers=told)
    assert me.json()["key"]["name"] == "first key"


async def test_a_bound_key_needs_its_certificate_and_a_stolen_secret_is_an_entry(
    client: httpx.AsyncClient, told: dict[str, str]
):
    key = await made(client, SCORING)
    secret = {"x-api-key": key["secret"]}
    assert (await client.get("/api/v1/me", headers=secret | told)).status_code == 200
    other = {FORWARDED.decode(): json.dumps({"names": ["dns:other"], "expires": 9e9, "digest": ""})}
    for given in ({}, other):
        refused = await client.get("/api/v1/me", headers=secret | given)
        assert (refused.status_code, refused.json()["code"]) == (401, "wrong_certificate")
    trail = (await client.get("/api/v1/audit", params={"outcome": "refused"})).json()["items"]
    assert [(one["action"], one["actor"]) for one in trail] == [("access.unauthenticated", key["id"])] * 2


async def test_a_certificate_that_has_expired_or_whose_key_is_revoked_is_refused_and_an_entry(
    client: httpx.AsyncClient, told: dict[str, str], clock: TestClock, admin_key: str
):
    key = await made(client, SCORING, stands_for=True)
    without_key(client)
    assert (await client.get("/api/v1/me", headers=told)).status_code == 200
    clock.advance(hours=1)
    refused = await client.get("/api/v1/me", headers=told)
    assert (refused.status_code, refused.json()["code"]) == (401, "certificate_expired")
    client.headers["x-api-key"] = admin_key
    assert (await client.delete(f"/api/v1/keys/{key['id']}")).status_code == 204
    without_key(client)
    assert (await client.get("/api/v1/me", headers=told)).json()["code"] == "unauthenticated"
    client.headers["x-api-key"] = admin_key
    trail = (await client.get("/api/v1/audit", params={"outcome": "refused"})).json()["items"]
    assert [(one["action"], one["actor"]) for one in trail] == [("access.unauthenticated", key["id"])] * 2


async def test_a_certificate_that_is_nobody_s_is_no_entry(client: httpx.AsyncClient, told: dict[str, str], admin_key: str):
    without_key(client)
    assert (await client.get("/api/v1/me", headers=told)).status_code == 401
    assert (await client.get("/api/v1/me", headers=told, auth=("x", admin_key))).status_code == 401, "of pages alone"
    client.headers["x-api-key"] = admin_key
    assert (await client.get("/api/v1/audit", params={"outcome": "refused"})).json()["items"] == []


async def test_names_are_taken_once_unclear_ones_refused_and_keys_bound_anew(client: httpx.AsyncClient, told: dict[str, str]):
    first = await made(client, SCORING, stands_for=True)
    again = {"name": "k", "scopes": ["predict"], "certificate": {"names": [SCORING], "stands_for": True}}
    taken = await client.post("/api/v1/keys", json=again)
    assert (taken.status_code, taken.json()["code"]) == (409, "certificate_in_use")
    second = await made(client, "sha256:" + "a" * 64, stands_for=True)
    secret = client.headers.pop("x-api-key")
    unclear = await client.get("/api/v1/me", headers=told)
    assert (unclear.status_code, unclear.json()["code"]) == (401, "certificate_unclear")
    client.headers["x-api-key"] = secret
    path = f"/api/v1/keys/{first['id']}/certificate"
    bound = await client.put(path, json={"names": ["dns:elsewhere"], "stands_for": True})
    assert (bound.status_code, bound.json()["certificate"]) == (200, {"names": ["dns:elsewhere"], "stands_for": True})
    assert (await client.put(path, json={"names": ["sha256:" + "A" * 64], "stands_for": True})).status_code == 409
    without_key(client)
    assert (await client.get("/api/v1/me", headers=told)).json()["key"]["id"] == second["id"]


async def test_a_name_that_is_none_is_refused_at_its_field(client: httpx.AsyncClient):
    body = {"name": "k", "scopes": ["predict"], "certificate": {"names": ["dns:*.example.org"]}}
    refused = await client.post("/api/v1/keys", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "certificate.names")


async def test_a_write_is_repeated_by_whoever_shows_the_same_certificate(client: httpx.AsyncClient, told: dict[str, str]):
    """Its answer is sealed with what the certificate says, as it is with a secret: of another certificate it is not read."""
    await made(client, SCORING, stands_for=True)
    without_key(client)
    headers = told | {"idempotency-key": "once"}
    first = await client.post("/api/v1/models", json={"name": "m"}, headers=headers)
    again = await client.post("/api/v1/models", json={"name": "m"}, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    renewed = json.loads(told[FORWARDED.decode()]) | {"digest": "ZWVl"}
    other = await client.post("/api/v1/models", json={"name": "m"}, headers=headers | {FORWARDED.decode(): json.dumps(renewed)})
    assert other.json()["code"] == "answer_sealed", other.text
