"""Who uploads is asked again when it has all come: hours may have gone by since it began."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from fixtures.control import ADMIN, TestClock
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import INSTALLATION, Role, Scope, Standing
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.storage import Blob
from modelkeep.control.access.rules import Subject
from modelkeep.control.sessions.service import Origin
from modelkeep.control.users.rules import User
from modelkeep.plugins.storage.local import LocalStore

Send = Callable[[dict[str, str], list[tuple[str, str, bytes]], Awaitable[object]], Awaitable[httpx.Response]]
PATH = "/api/v1/models/iris/versions"


@pytest.fixture(autouse=True)
async def _iris(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/models", json={"name": "iris"})).status_code == 201


def form(*parts: tuple[str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a form: name, file name, content."""
    pieces = [
        f'--BOUND\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, filename, content in parts
    ]
    return b"".join(pieces) + b"--BOUND--\r\n", {"content-type": "multipart/form-data; boundary=BOUND"}


@pytest.fixture
def sent_meanwhile(client: httpx.AsyncClient, blobs: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Upload as somebody; something happens when they have been let in, and all but the last bytes have gone."""
    reading, put = asyncio.Event(), blobs.put

    async def noticed(content: AsyncIterator[bytes], *, max_bytes: int | None = None) -> Blob:
        reading.set()
        return await put(content, max_bytes=max_bytes)

    async def send(who: dict[str, str], parts: list[tuple[str, str, bytes]], happens: Awaitable[object]) -> httpx.Response:
        monkeypatch.setattr(blobs, "put", noticed)
        body, headers = form(*parts)

        async def pieces() -> AsyncIterator[bytes]:
            yield body[:-5]
            await reading.wait()
            await happens
            yield body[-5:]

        del client.headers["X-API-Key"]
        return await client.post(PATH, content=pieces(), headers={**headers, **who})

    return send


@pytest.mark.parametrize("taken", ["role", "user", "key", "code", "nothing"])
@pytest.mark.parametrize("what", ["file", "hooks"])
async def test_whoever_may_no_more_when_an_upload_has_come_in_has_brought_nothing(
    sent_meanwhile: Send, control: ControlPlane, clock: TestClock, taken: str, what: str
):
    await control.switches.allow_code(ADMIN, allowed=True, reason="a test")
    eve = await control.users.add(ADMIN, User(new_id("usr"), "eve", clock(), email="eve@example.org"), role=Role.TRUSTED)
    themselves = Actor("ses_none", "eve", eve.id, Standing(eve.id))
    issued = await control.users.issue_key(themselves, "mine", frozenset({Scope.ADMIN}), None)
    (given,) = await control.access.grants(ADMIN, limit=9, subject=Subject("user", eve.id))

    async def happens() -> None:
        if taken == "user":
            await control.users.set_active(ADMIN, eve.id, active=False)
        elif taken == "key":
            await control.users.revoke_key(ADMIN, issued.key.id)
        elif taken == "code":
            await control.switches.allow_code(ADMIN, allowed=False, reason="a test")
        elif taken == "role":
            await control.access.give(ADMIN, Subject("user", eve.id), Role.DEVELOPER, INSTALLATION)
            await control.access.take(ADMIN, given, INSTALLATION)

    hooks = ("hooks", "hooks.py", b"def preprocess(inputs): return inputs\n")
    parts = [("file", "m.joblib", b"code")] if what == "file" else [hooks, ("file", "m.onnx", b"data")]
    answer = await sent_meanwhile({"X-API-Key": issued.secret.reveal()}, parts, happens())
    status = {"role": 403, "user": 401, "key": 401, "code": 403, "nothing": 202}[taken]
    assert answer.status_code == status, answer.text
    assert len(await control.models.versions(ADMIN, "iris", limit=9)) == (taken == "nothing")


@pytest.mark.parametrize("ends", [False, True])
async def test_a_session_outlives_the_access_token_of_a_long_upload_but_not_its_end(
    sent_meanwhile: Send, control: ControlPlane, clock: TestClock, ends: bool
):
    sessions = control.sessions
    kept = await control.passwords.hashed("correct horse battery")
    eve = User(new_id("usr"), "eve", clock(), email="eve@example.org")
    await control.users.add(ADMIN, eve, kept, Role.DEVELOPER)
    made = await sessions.login("eve@example.org", "correct horse battery", Origin())

    async def happens() -> None:
        clock.advance(hours=1)
        if ends:
            await sessions.end(Actor(made.session_id, "eve", eve.id), made.session_id)

    headers = {"authorization": f"Bearer {made.access}"}
    answer = await sent_meanwhile(headers, [("file", "m.onnx", b"data")], happens())
    assert answer.status_code == (401 if ends else 202), answer.text
