"""How often the API may be asked: by one person, and by an address without a good key; and keys bound to networks."""

import httpx
import pytest

from fixtures.people import EMAIL, PASSWORD, People
from modelkeep.infra import secrets
from modelkeep.infra.db import Database
from modelkeep.infra.settings import LimitSettings

ADDRESS = "x-modelkeep-address"


@pytest.fixture
def api_rates() -> LimitSettings:
    return LimitSettings(api_rate="1/min:3", failure_rate="1/min:3", classes="batch=6000/min")


async def made(client: httpx.AsyncClient, **more) -> dict[str, str]:
    """Make a key, and return the headers of who has it."""
    answer = await client.post("/api/v1/keys", json={"name": "k", "scopes": ["models:read"], **more})
    assert answer.status_code == 201, answer.text
    return {"x-api-key": answer.json()["secret"]}


async def statuses(client: httpx.AsyncClient, times: int, path: str = "/api/v1/models", **headers: str) -> list[int]:
    return [(await client.get(path, headers=headers)).status_code for _ in range(times)]


async def test_the_keys_of_one_person_share_a_rate_and_unlimited_ones_have_none(client: httpx.AsyncClient):
    one, other = await made(client, rate="user"), await made(client, rate="100/min")
    assert await statuses(client, 2, **one) == [200, 200]
    last = await client.get("/api/v1/models", headers=other)
    assert (last.headers["ratelimit-policy"], last.headers["ratelimit"]) == ('"api";q=1;w=60', '"api";r=0;t=60')
    refused = await client.get("/api/v1/models", headers=one)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert (refused.headers["retry-after"], refused.headers["ratelimit"]) == ("60", '"api";r=0;t=60')
    assert await statuses(client, 5) == [200] * 5, "the administrator's first key is unlimited"
    assert await statuses(client, 9, "/api/v1/health", **one) == [200] * 9


async def test_a_session_is_held_to_its_persons_rate(stranger: httpx.AsyncClient, people: People):
    login = await stranger.post("/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})
    session = {"authorization": f"Bearer {login.json()['access_token']}"}
    assert await statuses(stranger, 5, **session) == [200, 200, 200, 429, 429]


async def test_wrong_passwords_are_failures_of_their_address(stranger: httpx.AsyncClient, people: People):
    here, wrong = {ADDRESS: "192.0.2.1"}, {"email": "nobody@example.org", "password": "wrong"}
    came = [(await stranger.post("/api/v1/auth/login", json=wrong, headers=here)).status_code for _ in range(4)]
    assert came == [401, 401, 401, 429]


async def test_wrong_keys_and_setup_tokens_are_slowed_down_by_address(client: httpx.AsyncClient):
    here, there = {ADDRESS: "192.0.2.1"}, {ADDRESS: "192.0.2.2"}
    assert await statuses(client, 5, **here, **{"x-api-key": "mk_wrong"}) == [401, 401, 401, 429, 429]
    assert await statuses(client, 1, **there) == [200]
    guesses = [(await client.post("/api/v1/setup", json={"token": "mks_x"}, headers=there)).status_code for _ in range(3)]
    assert guesses == [409, 409, 409], "it is set up: there is nothing to guess"
    assert await statuses(client, 1, **here) == [200], "a good key goes on, whoever else is behind its address"


async def test_who_has_a_session_goes_on_behind_an_address_that_fails(stranger: httpx.AsyncClient, people: People):
    """A scraper with an old key behind the same address would have had everybody out of the control plane."""
    here = {ADDRESS: "192.0.2.1"}
    login = {"email": EMAIL, "password": PASSWORD}
    tokens = (await stranger.post("/api/v1/auth/login", json=login, headers=here)).json()
    assert await statuses(stranger, 4, **here, **{"x-api-key": "mk_wrong"}) == [401, 401, 401, 429]
    for _ in range(4):
        wrong = await stranger.post("/api/v1/auth/login", json=login | {"password": "wrong"}, headers=here)
    assert wrong.status_code == 429
    refresh = {"refresh_token": tokens["refresh_token"]}
    fresh = await stranger.post("/api/v1/auth/refresh", json=refresh, headers=here)
    assert fresh.status_code == 200
    mine = {"authorization": f"Bearer {fresh.json()['access_token']}"}
    assert await statuses(stranger, 1, **here, **mine) == [200], "a token that was never seen there"


async def test_refresh_tokens_that_anybody_can_make_are_slowed_down_and_write_nothing(
    stranger: httpx.AsyncClient, people: People, monkeypatch: pytest.MonkeyPatch
):
    here = {ADDRESS: "192.0.2.1"}
    good = (await stranger.post("/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}, headers=here)).json()
    writes, begin_apart = [], Database.begin_apart
    monkeypatch.setattr(Database, "begin_apart", lambda self: writes.append(1) or begin_apart(self))

    async def refresh(token: str) -> httpx.Response:
        return await stranger.post("/api/v1/auth/refresh", json={"refresh_token": token}, headers=here)

    answers = [await refresh(secrets.new_secret(secrets.REFRESH).reveal()) for _ in range(5)]
    assert [one.status_code for one in answers] == [401, 401, 401, 429, 429]
    assert (answers[-1].json()["code"], answers[-1].headers["retry-after"]) == ("rate_limited", "60")
    assert writes == []
    assert (await refresh(good["refresh_token"])).status_code == 200, "a good one goes on behind the same address"
    assert writes, "the control: what is counted is what refreshes write"


async def test_what_browsers_are_led_to_ask_is_a_failure_of_their_address(stranger: httpx.AsyncClient, people: People):
    login = await stranger.post("/api/v1/auth/browser/login", json={"email": EMAIL, "password": PASSWORD})
    cookie = "; ".join(line.partition(";")[0] for line in login.headers.get_list("set-cookie"))
    led = {"cookie": cookie, "sec-fetch-site": "same-site"}
    assert await statuses(stranger, 4, **led) == [403, 403, 403, 429]


async def test_no_key_is_unlimited_for_what_all_servers_learn(client: httpx.AsyncClient):
    came = [(await client.post("/api/v1/auth/logout-all")).status_code for _ in range(4)]
    assert came == [204, 204, 204, 429]


async def test_setup_tokens_cannot_be_guessed_at_speed(stranger: httpx.AsyncClient):
    guesses = [(await stranger.post("/api/v1/setup", json={"token": "mks_x"})).status_code for _ in range(5)]
    assert guesses == [401, 401, 401, 429, 429]


async def test_a_key_is_good_from_its_networks_alone(client: httpx.AsyncClient):
    bound = await made(client, networks=["192.0.2.0/24", "2001:db8::/32"])
    assert await statuses(client, 1, **bound, **{ADDRESS: "192.0.2.7"}) == [200]
    assert await statuses(client, 1, **bound, **{ADDRESS: "2001:db8::7"}) == [200]
    refused = await client.get("/api/v1/models", headers={**bound, ADDRESS: "198.51.100.1"})
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_network")
    (entry,) = (await client.get("/api/v1/audit", params={"outcome": "refused"})).json()["items"]
    assert (entry["action"], entry["actor_name"], entry["address"]) == ("access.forbidden", "ada", "198.51.100.1")
    assert await statuses(client, 1, **bound) == [403]
    listed = (await client.get("/api/v1/keys")).json()["items"][0]
    assert listed["networks"] == ["192.0.2.0/24", "2001:db8::/32"]


async def test_a_network_with_a_slip_in_it_makes_no_key(client: httpx.AsyncClient):
    body = {"name": "k", "scopes": ["predict"], "networks": ["10.0.0.0/8", "10.0.0.1/8"]}
    refused = await client.post("/api/v1/keys", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "networks[1]")


@pytest.mark.parametrize("rate", ["gold", "100/min:5", "user/ada"])
async def test_a_key_names_a_class_that_there_is(client: httpx.AsyncClient, rate: str):
    refused = await client.post("/api/v1/keys", json={"name": "k", "scopes": ["predict"], "rate": rate})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "invalid_rate")
