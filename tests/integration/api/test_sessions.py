"""Logging in over HTTP: tokens where keys are taken, what is refused, and that a fault lets nobody in."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fixtures.control import TestClock
from fixtures.people import EMAIL, PASSWORD, People
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction

LOGIN = {"email": EMAIL, "password": PASSWORD}


async def logged_in(stranger: httpx.AsyncClient) -> dict[str, Any]:
    answer = await stranger.post("/api/v1/auth/login", json=LOGIN, headers={"user-agent": "browser"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_token_goes_wherever_a_key_does(stranger: httpx.AsyncClient, people: People):
    made = await logged_in(stranger)
    assert made["token_type"] == "Bearer"
    for headers in (bearer(made["access_token"]), {"x-api-key": made["access_token"]}):
        me = (await stranger.get("/api/v1/me", headers=headers)).json()
        assert (me["key"], me["session"], me["scopes"]) == (None, made["session"], None)
        assert me["user"]["email"] == EMAIL
    answer = await stranger.post("/api/v1/models", json={"name": "m"}, headers=bearer(made["access_token"]))
    assert answer.status_code == 201
    (entry, *_rest) = await people.control.audit.entries(limit=2, target=answer.json()["id"])
    assert (entry.actor, entry.actor_name) == (made["session"], "ada")


async def test_logging_out_and_theft_are_answered_with_401(stranger: httpx.AsyncClient, people: People, clock: TestClock):
    made = await logged_in(stranger)
    body = {"refresh_token": made["refresh_token"]}
    renewed = await stranger.post("/api/v1/auth/refresh", json=body)
    assert renewed.status_code == 200
    assert (await stranger.post("/api/v1/auth/refresh", json=body)).json() == renewed.json()
    clock.advance(seconds=11)
    # with a key that would take back what a refused request has written
    stolen = await stranger.post("/api/v1/auth/refresh", json=body, headers={"idempotency-key": "1"})
    assert (stolen.status_code, stolen.json()["code"]) == (401, "refresh_refused")
    dead = await stranger.get("/api/v1/me", headers=bearer(renewed.json()["access_token"]))
    assert (dead.status_code, dead.json()["code"]) == (401, "unauthenticated")
    made = await logged_in(stranger)
    (only,) = (await stranger.get("/api/v1/me/sessions", headers=bearer(made["access_token"]))).json()["items"]
    assert (only["id"], only["program"], only["this"]) == (made["session"], "browser", True)
    assert (await stranger.post("/api/v1/auth/logout", headers={"x-api-key": people.key})).json()["code"] == "no_session"
    assert (await stranger.post("/api/v1/auth/logout", headers=bearer(made["access_token"]))).status_code == 204
    assert (await stranger.post("/api/v1/auth/logout", headers=bearer(made["access_token"]))).status_code == 401


async def test_an_unknown_name_and_a_wrong_password_are_answered_alike(stranger: httpx.AsyncClient, people: People):
    answers = [
        await stranger.post("/api/v1/auth/login", json={"email": email, "password": "wrong"}, headers={"x-request-id": "r"})
        for email in (EMAIL, "nobody@example.org", "no address")
    ]
    assert {(one.status_code, one.text) for one in answers} == {(401, answers[0].text)}
    assert answers[0].json()["code"] == "login_refused"
    assert {str(sorted((*one.headers.items(),))) for one in answers} == {str(sorted((*answers[0].headers.items(),)))}
    for _ in range(4):
        await stranger.post("/api/v1/auth/login", json={"email": EMAIL, "password": "wrong"}, headers={"idempotency-key": "1"})
    await stranger.post("/api/v1/auth/login", json={"email": EMAIL, "password": "wrong"}, headers={"idempotency-key": "1"})
    waits = await stranger.post("/api/v1/auth/login", json=LOGIN)
    assert (waits.status_code, waits.json()["code"], waits.headers["retry-after"]) == (429, "tried_too_often", "1")


async def test_a_repeated_write_is_known_again_after_the_token_was_renewed(stranger: httpx.AsyncClient, people: People):
    made = await logged_in(stranger)
    new = {"name": "ci", "scopes": ["predict"]}
    first = await stranger.post("/api/v1/keys", json=new, headers=bearer(made["access_token"]) | {"idempotency-key": "k"})
    renewed = (await stranger.post("/api/v1/auth/refresh", json={"refresh_token": made["refresh_token"]})).json()
    again = await stranger.post("/api/v1/keys", json=new, headers=bearer(renewed["access_token"]) | {"idempotency-key": "k"})
    assert (again.status_code, again.text) == (201, first.text)
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_public_keys_are_for_anyone_and_rotating_them_for_administrators(stranger: httpx.AsyncClient, people: People):
    made = await logged_in(stranger)
    answer = await stranger.get("/api/v1/auth/jwks")
    assert [sorted(key) for key in answer.json()["keys"]] == [["alg", "crv", "kid", "kty", "use", "x"]]
    assert (await stranger.post("/api/v1/auth/signing-keys")).status_code == 401
    rotated = await stranger.post("/api/v1/auth/signing-keys", headers=bearer(made["access_token"]))
    assert rotated.status_code == 201
    assert len((await stranger.get("/api/v1/auth/jwks")).json()["keys"]) == 2


class Faulty:
    """Fails the nth statement of any transaction, from when it is armed."""

    def __init__(self) -> None:
        self.left = -1

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise DatabaseUnavailable(retry_after_s=1)


async def test_a_fault_in_any_step_of_the_way_in_lets_nobody_in(
    people: People, sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
):
    faulty = Faulty()
    execute = Transaction.execute
    one, many = Transaction.one, Transaction.all

    async def faulty_execute(tx: Transaction, statement: Any) -> Any:
        faulty.step()
        return await execute(tx, statement)

    async def faulty_one(tx: Transaction, statement: Any) -> Any:
        faulty.step()
        return await one(tx, statement)

    async def faulty_all(tx: Transaction, statement: Any) -> Any:
        faulty.step()
        return await many(tx, statement)

    made = await people.login()
    bad = await people.login()
    await people.sessions.end(people.admin, bad.session_id)
    monkeypatch.setattr(Transaction, "execute", faulty_execute)
    monkeypatch.setattr(Transaction, "one", faulty_one)
    monkeypatch.setattr(Transaction, "all", faulty_all)

    async def ways() -> AsyncIterator[tuple[str, Any]]:
        yield "right token", people.sessions.authenticate(made.access)
        yield "ended session", people.sessions.authenticate(bad.access)
        yield "ended refresh", people.sessions.refresh(bad.refresh)
        yield "wrong password", people.login(password="wrong horse battery")
        yield "right password", people.login()

    failed = {}
    for nth in range(1, 60):
        async for name, way in ways():
            faulty.left = -1
            people.control.users._clock.advance(minutes=16)  # no attempt waits for one before it
            made = await people.sessions.refresh(made.refresh)
            faulty.left = nth
            result = (await asyncio.gather(way, return_exceptions=True))[0]
            hit = faulty.left <= 0
            if hit:
                failed[name] = nth
                assert isinstance(result, Exception), (name, nth)
            if name not in {"right token", "right password"}:
                assert isinstance(result, Exception), (name, nth)
    assert set(failed) == {"right token", "ended session", "ended refresh", "wrong password", "right password"}
    assert failed["right password"] > 10
