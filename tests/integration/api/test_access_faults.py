"""Whatever fails in the control plane while it is decided who may do what: nobody comes in, and nothing is done, by that."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from fixtures.control import ADMIN
from fixtures.nth_fault import BROKEN_OFF, each_fault, let_in
from fixtures.people import people_over
from fixtures.tenants import Tenants
from modelkeep.api.middleware import Guard
from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.infra.headers import Headers

WAY_IN = (
    *(f"api/{name}.py" for name in ("middleware", "auth", "pace", "idempotency", "refusals")),
    *(f"contracts/{name}.py" for name in ("access", "actor", "errors")),
    *(f"control/{noun}/" for noun in ("access", "users", "sessions", "identities", "models")),
    *(f"infra/{name}.py" for name in ("headers", "cookies", "tokens", "secrets")),
)
"""The modules in which it is decided who comes in, and what they may."""
SECRET = "of-nobody-else"


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Each fault is told in the log, with all that was at hand."""
    with capture_logs():
        yield


@pytest.fixture
async def caller(api_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client in the loop of the API, so that faults are raised there."""
    transport = httpx.ASGITransport(api_app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


@pytest.fixture
async def secrets(tenants: Tenants) -> dict[str, str]:
    """What each caller presents."""
    people = await people_over(tenants.control, tenants.db)
    tokens = await people.login()
    await tenants.control.sessions.logout(await people.acting(tokens.access))
    red = tenants.places["red"]
    await tenants.control.models.describe(ADMIN, "red-model", SECRET)
    await tenants.person("stranger")
    await tenants.person("viewer", Role.VIEWER, red)
    await tenants.person("elsewhere", Role.ADMIN, tenants.places["blue"])
    await tenants.person("developer", Role.DEVELOPER, red)
    await tenants.person("left", Role.ADMIN, red)
    found = {name: await tenants.secret(name) for name in ("stranger", "viewer", "elsewhere", "developer", "left")}
    found["reader"] = await tenants.secret("developer", Scope.MODELS_READ)
    found["bound"] = await tenants.secret("developer", models=("mod_other",))
    found["none"] = ""
    found["wrong"] = found["developer"][:-1] + ("a" if found["developer"][-1] != "a" else "b")
    await tenants.control.users.set_active(ADMIN, tenants.people["left"], active=False)
    return found | {"ended": tokens.access}


READ = ("GET", "/api/v1/models/red-model")
WRITE = ("PATCH", "/api/v1/models/red-model")
INSTALLATION = ("GET", "/api/v1/users")
REFUSED = [
    *((READ, who) for who in ("none", "wrong", "left", "ended", "stranger", "elsewhere", "bound")),
    *((WRITE, who) for who in ("none", "ended", "viewer", "elsewhere", "reader", "bound")),
    *((INSTALLATION, who) for who in ("ended", "elsewhere", "developer")),
]


@pytest.mark.parametrize(("route", "who"), REFUSED)
async def test_no_fault_on_the_way_lets_in_who_is_refused(
    caller: httpx.AsyncClient, tenants: Tenants, secrets: dict[str, str], route: tuple[str, str], who: str
):
    async def ask() -> int:
        answer = await asked(caller, route, secrets[who])
        assert SECRET not in answer.text
        return answer.status_code

    assert await ask() in {401, 403, 404}
    answers = await each_fault(ask, WAY_IN)
    assert len(answers) >= 10
    assert let_in(answers) == []
    assert [one for one in answers if one.after >= 500] == []
    assert (await tenants.control.models.model(ADMIN, "red-model")).description == SECRET, "nothing has been written"


@pytest.mark.parametrize("route", [READ, WRITE])
async def test_who_is_let_in_is_so_again_once_the_fault_is_over(
    caller: httpx.AsyncClient, secrets: dict[str, str], route: tuple[str, str]
):
    async def ask() -> int:
        return (await asked(caller, route, secrets["developer"])).status_code

    assert await ask() == 200
    answers = await each_fault(ask, WAY_IN)
    assert len(answers) >= 20
    assert [one for one in answers if one.after != 200] == []
    assert {one.status for one in answers} <= {200, 400, 401, 403, 404, 500, BROKEN_OFF}


async def asked(caller: httpx.AsyncClient, route: tuple[str, str], secret: str) -> httpx.Response:
    method, path = route
    given = {"Authorization": f"Bearer {secret}"} if secret else {}
    return await caller.request(method, path, headers=given, json={"description": "changed"} if method == "PATCH" else None)


# ---- controls: doors that fail open are found


async def test_a_decision_that_is_taken_as_read_when_it_fails_is_found(
    caller: httpx.AsyncClient, tenants: Tenants, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    assert tenants.places
    need = Actor.need

    def open_when_broken(self: Actor, *arguments: object, **named: object) -> None:
        try:
            need(self, *arguments, **named)  # type: ignore[arg-type]
        except RuntimeError:
            return

    monkeypatch.setattr(Actor, "need", open_when_broken)

    async def ask() -> int:
        return (await asked(caller, READ, secrets["stranger"])).status_code

    assert let_in(await each_fault(ask, WAY_IN))


async def test_a_guard_that_goes_on_with_whom_it_had_is_found(
    caller: httpx.AsyncClient, tenants: Tenants, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    known = await tenants.actor("developer")
    admit = Guard._admit

    async def open_when_broken(self: Guard, given: Headers, path: str, method: str, state: dict) -> Actor:
        try:
            return await admit(self, given, path, method, state)
        except Unauthenticated:
            raise
        except RuntimeError:
            state["actor"], state["sealed_with"] = known, (b"",)
            return known

    monkeypatch.setattr(Guard, "_admit", open_when_broken)

    async def ask() -> int:
        return (await asked(caller, READ, secrets["wrong"])).status_code

    assert let_in(await each_fault(ask, WAY_IN))
