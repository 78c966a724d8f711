"""The door around routes that do what routes should not: fail after they have written, or answer in pieces."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fixtures.control import ADMIN, TestClock
from modelkeep.api.idempotency import Writes
from modelkeep.contracts.errors import ModelkeepError
from modelkeep.infra.db import Database
from modelkeep.infra.idempotency import Idempotency, notes

things = sa.Table("door_things", sa.MetaData(), sa.Column("body", sa.LargeBinary, primary_key=True))


@pytest.fixture(autouse=True)
async def _things(db: Database) -> None:
    async with db.begin() as tx:
        await tx.connection.run_sync(things.create)


async def count(db: Database, table: sa.Table) -> int:
    async with db.read() as tx:
        return len(await tx.all(sa.select(table)))


def route(db: Database, status: int, then: Callable[[], None] = lambda: None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        async with db.begin() as tx:
            await tx.execute(sa.insert(things).values(body=(await receive())["body"]))
        then()
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-own", b"yes")]})
        await send({"type": "http.response.body", "body": b"two ", "more_body": True})
        await send({"type": "http.response.body", "body": b"pieces"})

    return app


class Ask:
    """One request with a key, whose answer notes what the database holds when its first byte goes out."""

    def __init__(self, db: Database, clock: TestClock, app: ASGIApp) -> None:
        self._db = db
        self._door = Writes(app, Idempotency(db, clock))
        self.sent: list[Message] = []
        self.held = -1

    async def __call__(self, *pieces: bytes) -> None:
        waiting: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        waiting.append({"type": "http.request", "body": b"", "more_body": False})
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/things",
            "query_string": b"",
            "headers": [(b"idempotency-key", b"k"), (b"x-api-key", b"mk_secret")],
            "state": {"actor": ADMIN, "request_id": "req_1"},
        }

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if not self.sent:
                self.held = await count(self._db, things)
            self.sent.append(message)

        self.sent = []
        await self._door(scope, receive, send)

    @property
    def answer(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        start, *pieces = self.sent
        return start["status"], start["headers"], b"".join(one["body"] for one in pieces)


async def test_an_answer_goes_out_when_what_it_tells_of_is_committed(db: Database, clock: TestClock):
    ask = Ask(db, clock, route(db, 200))
    await ask(b"a", b"b")
    assert ask.held == 1
    assert ask.answer == (200, [(b"x-own", b"yes")], b"two pieces")
    await ask(b"ab")
    assert ask.answer == (200, [(b"x-own", b"yes"), (b"idempotency-replayed", b"true")], b"two pieces")
    assert await count(db, things) == 1


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_what_answers_no_after_it_has_written_has_not_written(status: int, db: Database, clock: TestClock):
    ask = Ask(db, clock, route(db, status))
    await ask(b"ab")
    assert ask.answer[0] == status
    assert (await count(db, things), await count(db, notes)) == (0, 0)


async def test_what_breaks_after_it_has_written_has_not_written(db: Database, clock: TestClock):
    def broken() -> None:
        raise RuntimeError("a bug")

    ask = Ask(db, clock, route(db, 200, broken))
    with pytest.raises(RuntimeError):
        await ask(b"ab")
    assert (ask.sent, await count(db, things), await count(db, notes)) == ([], 0, 0)
    await Ask(db, clock, route(db, 200))(b"ab")
    assert await count(db, things) == 1


async def test_a_request_that_ends_before_its_body_does_nothing(db: Database, clock: TestClock):
    ended = False

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope, receive, send)

    async def receive() -> Message:
        nonlocal ended
        message = {"type": "http.disconnect"} if ended else {"type": "http.request", "body": b"a", "more_body": True}
        ended = True
        return message

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/things",
        "query_string": b"",
        "headers": [(b"idempotency-key", b"k")],
        "state": {"request_id": "req_1"},
    }
    await Writes(never, Idempotency(db, clock))(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_what_is_raised_as_an_error_of_the_house_is_a_refusal(db: Database, clock: TestClock):
    def refuse() -> None:
        raise ModelkeepError

    ask = Ask(db, clock, route(db, 200, refuse))
    await ask(b"ab")
    assert ask.answer[0] == 500
    assert await count(db, things) == 0
