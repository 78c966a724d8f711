"""Around every request: its id, one line in the log, an answer even to our own faults, and a key for the documentation."""

import base64
import binascii
import re
import time
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelkeep.api.auth import presented
from modelkeep.api.errors import respond
from modelkeep.contracts.errors import Internal, ModelkeepError, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.users.service import Users
from modelkeep.infra import telemetry

_log = structlog.get_logger(__name__)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ROOT: Final = "/api/"
_BASIC: Final = 'Basic realm="modelkeep: any name, an API key as password", charset="UTF-8"'


class Requests:
    """Gives each request the id that came with it or a new one, says it in answer and log, and answers when we fail."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        began = time.perf_counter()
        with telemetry.request(request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:
                    raise  # half an answer is out: closing the connection is all that can still be said
                await respond(Internal(), request_id)(scope, receive, send_with_id)
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            _log.info("request", method=scope["method"], path=scope["path"], status=status, ms=took_ms)


class DocsGuard:
    """Asks for a key outside the API's own routes: documentation, its scripts, and what does not exist.

    A browser cannot send `X-API-Key`, so here, where nothing can be changed, it is also taken as the password of HTTP Basic.
    """

    def __init__(self, app: ASGIApp, users: Users) -> None:
        self._app = app
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] == "http" and not scope["path"].startswith(_ROOT):
            request_id = scope["state"]["request_id"]
            try:
                await self._users.authenticate(_presented(Headers(scope=scope)), request_id)
            except ModelkeepError as error:
                answer = respond(error, request_id)
                if isinstance(error, Unauthenticated):
                    answer.headers["www-authenticate"] = _BASIC
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _presented(headers: Headers) -> str:
    kind, _space, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return presented(headers)
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthenticated from error
