"""Logging in through a real directory: OpenLDAP over TLS, when it is there, when it lies, and when it is away."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.authority import server_side
from fixtures.browsing import kept, sent, session_of
from fixtures.control import TestClock
from fixtures.control_api import IdentityProviders
from fixtures.people import EMAIL, People
from fixtures.people import PASSWORD as LOCAL_PASSWORD
from fixtures.slapd import GROUPS, PASSWORD, PEOPLE, SERVICE, SERVICE_PASSWORD, Slapd, group, person
from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.auth import IdentityRefused, LdapSettings, ProviderBusy, ProviderUnavailable
from modelkeep.contracts.errors import Invalid
from modelkeep.infra import cookies
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database

LOGIN = "/api/v1/auth/ldap/corp/login"
PAGES_LOGIN = "/api/v1/auth/browser/ldap/corp/login"
Make = Callable[..., Any]


@pytest.fixture
def settings(slapd: Slapd, tmp_path: Path) -> LdapSettings:
    password = tmp_path / "bind-password"
    password.write_text(SERVICE_PASSWORD + "\n")
    return LdapSettings(
        name="corp",
        people="all",
        servers=(slapd.ldaps,),
        base=PEOPLE,
        bind_dn=SERVICE,
        bind_password_file=str(password),
        ca_file=str(slapd.authority),
        group_base=GROUPS,
        groups=(group("everybody"),),
        group_map={group("ml").replace(",ou", ", OU"): "ml", group("everybody"): "staff"},
        timeout_s=1,
        deadline_s=5,
    )


@pytest.fixture
def made(settings: LdapSettings) -> Iterator[Make]:
    """Make directories that differ from the settings."""
    from modelkeep.plugins.auth.ldap import Directory

    there = []

    def make(**changes: Any) -> Directory:
        there.append(Directory(replace(settings, **changes), utc_now))
        return there[-1]

    yield make
    for one in there:
        one._logins.threads.shutdown()
        one._asked_again.threads.shutdown()


@pytest.fixture
def identity_providers(made: Make) -> IdentityProviders:
    return {"password": [made()]}


async def login(stranger: httpx.AsyncClient, name: str = "ada", password: str = PASSWORD) -> httpx.Response:
    return await stranger.post(LOGIN, json={"login": name, "password": password})


async def refreshed(stranger: httpx.AsyncClient, answer: httpx.Response) -> httpx.Response:
    return await stranger.post("/api/v1/auth/refresh", json={"refresh_token": answer.json()["refresh_token"]})


@pytest.fixture
async def writers(people: People) -> None:
    """Who is in `ml` may write models."""
    await people.group("ml", Role.DEVELOPER)


async def may_write(stranger: httpx.AsyncClient, answer: httpx.Response) -> bool:
    headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
    found = await stranger.get("/api/v1/authz/explain", params={"scope": Scope.MODELS_WRITE}, headers=headers)
    return found.json()["allowed"]


@contextmanager
def stopped(slapd: Slapd) -> Iterator[None]:
    slapd.stop()
    try:
        yield
    finally:
        slapd.start()


@contextmanager
def server_that(answers: bytes | None) -> Iterator[str]:
    """A server that cuts each connection (None), or answers once and says nothing more."""
    listening, held = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _address = listening.accept()
            except OSError:
                return
            if answers is None:
                connection.close()
                continue
            held.append(connection)
            if answers:
                connection.recv(1000)
                connection.sendall(answers)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)
    for one in held:
        one.close()


STARTS_TLS = bytes.fromhex("300c02010178070a010004000400")


@pytest.mark.usefixtures("writers")
async def test_people_log_in_as_the_directory_knows_them(stranger: httpx.AsyncClient, people: People):
    (listed,) = (await stranger.get("/api/v1/auth/providers")).json()["items"]
    assert (listed["kind"], listed["login"]) == ("ldap", LOGIN)
    answer = await login(stranger)
    assert answer.status_code == 200
    assert await may_write(stranger, answer)
    (ada, *_others) = await people.control.users.users(limit=10)
    assert await people.control.access.members(people.admin, "staff") == [ada.id], "a group that was not there has been made"
    assert (await login(stranger, "eve")).json()["code"] == "not_admitted"  # she is in no group
    assert (await refreshed(stranger, answer)).status_code == 200


async def test_a_page_logs_in_with_a_session_of_its_browser(stranger: httpx.AsyncClient, people: People, db: Database):
    wrong = await stranger.post(PAGES_LOGIN, json={"login": "ada", "password": "wrong"})
    assert (wrong.status_code, wrong.json()["code"], kept(wrong)) == (401, "login_refused", {})
    led = await stranger.post(PAGES_LOGIN, json={"login": "ada", "password": PASSWORD}, headers={"sec-fetch-site": "same-site"})
    assert (led.status_code, led.json()["code"], kept(led)) == (403, "csrf_refused", {})
    answer = await stranger.post(PAGES_LOGIN, json={"login": "ada", "password": PASSWORD}, headers=sent({}))
    jar, told = kept(answer), answer.json()
    assert jar.keys() == {cookies.ACCESS, cookies.REFRESH}
    assert not any(token in answer.text for token in jar.values())
    change = {"display_name": "Countess"}
    assert (await stranger.patch("/api/v1/me", json=change, headers=sent(jar))).json()["code"] == "csrf_refused"
    assert (await stranger.patch("/api/v1/me", json=change, headers=sent(jar, told["csrf_token"]))).status_code == 200
    row = await session_of(db, told["session"])
    assert (row.provider, row.browser, (row.expires_at - row.created_at).total_seconds()) == ("corp", True, 12 * 60 * 60)
    assert not (await session_of(db, (await login(stranger)).json()["session"])).browser, "a program's is none"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"group_base": ""},
        {"bind_dn": "", "bind_password_file": "", "bind_template": f"uid={{login}},{PEOPLE}"},
    ],
    ids=["searched", "memberOf", "template"],
)
@pytest.mark.parametrize("way", ["ldaps", "starttls"])
async def test_groups_within_groups_are_followed_also_in_a_circle(made: Make, slapd: Slapd, changes: dict[str, Any], way: str):
    directory = made(servers=(getattr(slapd, way),), **changes)
    found = await directory.identity("ada", PASSWORD)
    assert (found.email, found.name, found.display_name) == ("ada@corp.test", "ada", "Ada Lovelace")
    assert found.groups == {group(name) for name in ("ml", "builders", "everybody", "circle")}
    assert (await made(depth=0, **changes).identity("ada", PASSWORD)).groups == {group("ml")}


@pytest.mark.parametrize(
    "name",
    ["*", "a*", "ada)(uid=*", "*)(objectClass=*", "ada,ou=people", "ada\\", "ada\0", "", "  ", "x" * 300, "(&)", "|", "ada*"],
)
@pytest.mark.parametrize("template", [False, True])
async def test_a_name_means_nothing_but_itself(made: Make, name: str, template: bool):
    how = {"bind_dn": "", "bind_template": f"uid={{login}},{PEOPLE}"} if template else {}
    directory = made(**how)
    with pytest.raises(IdentityRefused):
        await directory.identity(name, PASSWORD)
    assert (await directory.identity("ada", PASSWORD)).name == "ada"


@pytest.mark.parametrize("password", ["", "\0", "\0" + PASSWORD, "wrong"])
@pytest.mark.parametrize("template", [False, True])
async def test_no_password_is_no_proof_although_the_server_takes_it(made: Make, password: str, template: bool):
    directory = made(**({"bind_dn": "", "bind_template": f"uid={{login}},{PEOPLE}"} if template else {}))
    with pytest.raises(IdentityRefused):
        await directory.identity("ada", password)


async def test_a_server_whose_certificate_another_signed_gets_no_password(made: Make, slapd: Slapd, tmp_path: Path):
    _context, other = server_side(tmp_path)
    for server in (slapd.ldaps, slapd.starttls):
        for file in (str(other), ""):
            with pytest.raises(ProviderUnavailable):
                await made(servers=(server,), ca_file=file).identity("ada", PASSWORD)
        named = server.replace("127.0.0.1", "localhost")  # which is not in its certificate
        with pytest.raises(ProviderUnavailable):
            await made(servers=(named,)).identity("ada", PASSWORD)
        assert (await made(servers=(server,)).identity("ada", PASSWORD)).name == "ada"


@pytest.mark.parametrize("answers", [None, b"", STARTS_TLS], ids=["cut", "silent", "silent after StartTLS"])
@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
async def test_a_server_that_fails_is_passed_over_and_asked_last_for_a_while(
    made: Make, slapd: Slapd, answers: bytes | None, scheme: str
):
    with server_that(answers) as place:
        bad = f"{scheme}://{place}"
        directory = made(servers=(bad, slapd.ldaps), deadline_s=2)
        try:
            found = await directory.identity("ada", PASSWORD)
        except ProviderUnavailable:  # it was held up until the end of its time: from now on the other one comes first
            while directory._failed[bad] == float("-inf"):
                await asyncio.sleep(0.01)
            found = await directory.identity("ada", PASSWORD)
        assert found.name == "ada"
        assert directory._failed[bad] > float("-inf")
        failed_at = directory._failed[bad]
        assert (await directory.identity("ada", PASSWORD)).name == "ada"
        assert directory._failed[bad] == failed_at, "it was asked again at once"


@pytest.mark.parametrize("error", ["INSUFFICIENT_ACCESS", "INVALID_DN_SYNTAX", "NO_SUCH_OBJECT", "REFERRAL"])
def test_a_group_that_cannot_be_read_gives_nothing_and_keeps_nobody_out(
    made: Make, slapd: Slapd, monkeypatch: pytest.MonkeyPatch, error: str
):
    import ldap

    asking = made(group_base="")._servers[slapd.ldaps]
    search = asking._search

    def hidden(connection: Any, base: str, *rest: Any, **how: Any) -> Any:
        if base == group("builders"):
            raise getattr(ldap, error)
        return search(connection, base, *rest, **how)

    monkeypatch.setattr(asking, "_search", hidden)
    assert asking.identity("ada", PASSWORD).groups == {group("ml"), group("builders")}


async def test_only_so_many_wait_for_a_directory(made: Make):
    with server_that(b"") as place:
        directory = made(servers=(f"ldap://{place}",), timeout_s=0.1)
        asked = [*(directory.identity("ada", PASSWORD) for _ in range(24)), directory.again("x"), directory.again("y")]
        *logins, again, other = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in logins} == {ProviderUnavailable, ProviderBusy}
        assert sum(isinstance(one, ProviderBusy) for one in logins) == 4
        assert (type(again), type(other)) == (ProviderUnavailable, ProviderUnavailable), "logins take their places from nobody"
    while directory._logins.taken or directory._asked_again.taken:
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("writers")
async def test_when_the_directory_is_away_local_people_come_in_and_sessions_go_on(
    stranger: httpx.AsyncClient, people: People, slapd: Slapd
):
    answer = await login(stranger)
    with stopped(slapd):
        for _attempt in range(7):  # more than may fail before a wait
            away = await login(stranger)
            assert (away.status_code, away.json()["code"]) == (503, "identity_provider_unavailable")
        local = await stranger.post("/api/v1/auth/login", json={"email": EMAIL, "password": LOCAL_PASSWORD})
        assert local.status_code == 200
        assert await may_write(stranger, answer)
        answer = await refreshed(stranger, answer)
        assert answer.status_code == 200
    assert (await login(stranger)).status_code == 200, "nobody waits because the directory was away"
    assert (await refreshed(stranger, answer)).status_code == 200


@pytest.mark.usefixtures("writers")
async def test_what_changes_in_the_directory_holds_from_the_next_refresh_on(
    stranger: httpx.AsyncClient, people: People, slapd: Slapd
):
    answer, gone = await login(stranger, "bob"), ["changetype: modify", "delete: member", f"member: {person('bob')}"]
    assert await may_write(stranger, answer)
    back = [one.replace("delete:", "add:") for one in gone]
    slapd.change(f"dn: {group('everybody')}", *back)
    slapd.change(f"dn: {group('ml')}", *gone)
    try:
        answer = await refreshed(stranger, answer)
        assert not await may_write(stranger, answer)
        assert len(await people.control.access.members(people.admin, "staff")) == 1
        slapd.change(f"dn: {group('everybody')}", *gone)
        ended = await refreshed(stranger, answer)
        assert (ended.status_code, ended.json()["code"]) == (401, "refresh_refused")
        headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
        assert (await stranger.get("/api/v1/me", headers=headers)).status_code == 401
        assert "session.gone" in {one.action for one in await people.control.audit.entries(limit=10)}
        assert await people.control.access.members(people.admin, "staff") == []
    finally:
        slapd.change(f"dn: {group('ml')}", *back)
    assert await may_write(stranger, await login(stranger, "bob"))


async def test_guessing_here_waits_as_anywhere(stranger: httpx.AsyncClient, people: People, clock: TestClock):
    for name in ("ada", "ADA", " ada", "ada", "Ada", "ada"):
        wrong = await login(stranger, name, "wrong")
        assert (wrong.status_code, wrong.json()["code"]) == (401, "login_refused")
    held = await login(stranger)
    assert (held.status_code, held.json()["code"]) == (429, "tried_too_often")
    clock.advance(seconds=float(held.headers["retry-after"]))
    assert (await login(stranger)).status_code == 200


async def test_one_subject_is_one_user_whatever_its_name_becomes(stranger: httpx.AsyncClient, people: People, slapd: Slapd):
    await login(stranger)
    moved = f"uid=lovelace,{PEOPLE}"
    slapd.change(f"dn: {person('ada')}", "changetype: modrdn", "newrdn: uid=lovelace", "deleteoldrdn: 1")
    membership = ["changetype: modify", "replace: member", f"member: {moved}", f"member: {person('bob')}"]
    slapd.change(f"dn: {group('ml')}", *membership)
    try:
        assert (await login(stranger, "lovelace")).status_code == 200
        names = {one.name for one in await people.control.users.users(limit=10)}
        assert names == {"ada", "ada-2"}  # the administrator, and whom the directory called ada
    finally:
        slapd.change(f"dn: {moved}", "changetype: modrdn", "newrdn: uid=ada", "deleteoldrdn: 1")
        slapd.change(f"dn: {group('ml')}", *(one.replace(moved, person("ada")) for one in membership))


@pytest.mark.parametrize(
    "changes",
    [
        {"servers": ("http://corp.test",)},
        {"servers": ("ldap://",)},
        {"bind_dn": ""},
        {"bind_template": "uid={login}"},
        {"bind_dn": "", "bind_template": "uid=ada"},
        {"login_filter": "(uid=ada)"},
        {"group_map": {"ml": "ml"}},
        {"ca_file": "/nonexistent"},
        {"bind_password_file": "/nonexistent"},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_at_the_start(made: Make, changes: dict[str, Any]):
    with pytest.raises(Invalid):
        made(**changes)


def test_a_directory_shows_no_password(made: Make):
    assert SERVICE_PASSWORD not in repr(made().settings)
