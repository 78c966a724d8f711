"""Around every request: its id, one line in the log, an answer even to our own faults, a key, and a limit to its body."""

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelkeep.api import browsing
from modelkeep.api.errors import OPEN_INFERENCE, respond
from modelkeep.api.pace import Pace
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Internal, Limited, ModelkeepError, TooLarge, Unauthenticated
from modelkeep.control.access.service import Access
from modelkeep.control.identities.service import Identities
from modelkeep.control.sessions.service import Origin, Sessions
from modelkeep.infra import client_certificates, cookies, headers, telemetry, tokens
from modelkeep.infra.addresses import FORWARDED_TO_API
from modelkeep.infra.rates import Headers

_log = structlog.get_logger(__name__)
_PROGRAMS: Final = ("/api/", OPEN_INFERENCE)
_ENDING: Final = ("/api/v1/auth/logout", "/api/v1/me/sessions/")
_BROWSERS: Final = "/api/v1/auth/browser/"
_REFRESH: Final = frozenset({"/api/v1/auth/refresh", "/api/v1/auth/browser/refresh", "/api/v1/auth/browser/logout"})
"""What is asked with a refresh token, which cannot be guessed."""
_OPEN: Final = _REFRESH | {
    "/api/v1/setup",
    *(f"/api/v1/auth/{what}" for what in ("login", "register", "reset-password", "browser/login", "terminal/tokens")),
}
_SIGN_ON: Final = re.compile(
    r"/api/v1/auth/(oidc/[^/]+/(login|callback|logout)|(browser|terminal)/oidc/[^/]+/login|(browser/)?ldap/[^/]+/login)"
)
_PUBLIC: Final = frozenset({"/api/v1/health", "/api/v1/auth/jwks", "/api/v1/auth/providers"})
"""Where nothing is presented, so that nothing can be guessed."""
UPLOAD: Final = re.compile(r"/api/v1/models/[^/]+/versions")
_LARGEST_BODY: Final = 1024 * 1024
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
        request_id = headers.request_id(dict(scope["headers"]))
        scope.setdefault("state", {})["request_id"] = request_id
        status, held = 0, cast("Message | None", None)

        async def send_with_id(message: Message) -> None:
            nonlocal status, held
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id
                browsing.harden(answer, scope["path"])
                if scope["path"] in browsing.PAGES:
                    held = message  # its policy depends on what it says
                    return
            elif held is not None:
                MutableHeaders(scope=held)["content-security-policy"] = browsing.policy(message.get("body", b""))
                start, held = held, None
                await send(start)
            await send(message)

        began = time.perf_counter()
        with telemetry.request(request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:
                    raise  # half an answer is out: closing the connection is all that can still be said
                await respond(Internal(), request_id, scope["path"])(scope, receive, send_with_id)
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            _log.info("request", method=scope["method"], path=scope["path"], status=status, ms=took_ms)


class Guard:
    """Asks who it is before anything of a body is read, and limits how large that may be.

    By a header: an API key, a session's access token, or a provider's that stands for a service. By a browser's cookie: its
    session's access token, for pages of this host, with `X-CSRF-Token` for what changes something. Who opens an address cannot
    send `X-API-Key`, so for the documentation, where nothing can be changed, a key or token is also taken as the password of
    HTTP Basic. Where a request shows nothing itself, its connection's certificate may stand for a key. What somebody may do is
    for routes to say.

    None of these is asked for health, public keys and the list of providers (`_PUBLIC`), nor for what has its own secret in
    its body, its address or a cookie for it alone: the first set-up, invitations, passwords, refresh tokens and the ways to
    log in (`_OPEN`, `_SIGN_ON`). Of the latter, those that end in a browser's session are for pages of this host (`_BROWSERS`).
    """

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions, identities: Identities, pace: Pace) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions
        self._identities = identities
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given, path = headers.by_name(scope["headers"]), scope["path"]
        scope["state"]["address"] = address(given)
        try:
            if path not in _PUBLIC:
                send = await self._enter(scope, receive, given, send)
        except ModelkeepError as error:
            await self._refuse(error, scope, receive, send)
            return
        if UPLOAD.fullmatch(path):  # a stream with limits of its own
            await self._app(scope, receive, send)
            return
        announced = given.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > _LARGEST_BODY:
            await self._refuse(_too_large(), scope, receive, send)
            return
        await self._app(scope, _Limited(receive), send)

    async def _enter(self, scope: Scope, receive: Receive, given: headers.Headers, send: Send) -> Send:
        """Let a request in; returns how it is answered, which says what there is to say of rates."""
        state, path = scope["state"], scope["path"]
        whence = state["address"] or None
        if path.startswith(_BROWSERS):
            self._check_page(given, whence)
        if path in _OPEN or _SIGN_ON.fullmatch(path):
            if path in _REFRESH:  # its token cannot be guessed, and whoever has a session goes on
                return self._noticing(scope, receive, send, lambda: self._pace.failed(whence))
            self._pace.look(whence)
            return self._noticing(scope, receive, send, lambda: self._pace.failed_login(whence))
        try:
            actor = await self._admit(given, path, scope["method"], state)
        except (Unauthenticated, cookies.CsrfRefused):
            self._pace.failed(whence)
            raise
        told = self._pace.take(actor, all_servers=path.startswith(_ENDING))
        return _telling(send, told) if told else send

    def _check_page(self, given: headers.Headers, whence: str | None) -> None:
        """Look whose page begins a session, goes on with one or ends it; raises `CsrfRefused`."""
        try:
            cookies.check_page(given)
        except cookies.CsrfRefused:
            self._pace.failed(whence)
            raise

    async def _admit(self, given: headers.Headers, path: str, method: str, state: dict[str, Any]) -> Actor:
        """Note who sent this credential, or shows their certificate, and what their repeated writes are sealed with.

        Raises `Unauthenticated`.
        """
        shown = client_certificates.told(given)
        if shown is not None and cookies.shows_nothing(given):
            actor = await self._access.by_certificate(shown, state["request_id"], state["address"] or None)
            state["sealed_with"] = (shown.digest,)
            state["actor"] = actor = msgspec.structs.replace(actor, address=state["address"])
            return actor
        secret = presented(given, path, method)
        if tokens.looks_like_one(secret):
            actor = await self._identities.authenticate(secret, Origin(state["address"], request_id=state["request_id"]))
            state["sealed_with"] = self._sessions.secrets_of(actor)
        else:
            actor = await self._access.authenticate(secret, state["request_id"], state["address"] or None, shown)
            state["sealed_with"] = (secret.encode(),)
        state["presented"] = secret
        state["actor"] = actor = msgspec.structs.replace(actor, address=state["address"])
        return actor

    def _noticing(self, scope: Scope, receive: Receive, send: Send, failed: Callable[[], None]) -> Send:
        """Return `send`, which calls `failed` where what was presented is not good; what that raises is the answer.

        `refused` in the state says so of an answer that sends a page's browser back there.
        """
        replaced = False

        async def notice(message: Message) -> None:
            nonlocal replaced
            bad = message.get("status") == HTTPStatus.UNAUTHORIZED or scope["state"].get("refused", False)
            if message["type"] == "http.response.start" and bad:
                try:
                    failed()
                except Limited as error:
                    replaced = True
                    await self._refuse(error, scope, receive, send)
            if not replaced:
                await send(message)

        return notice

    async def _refuse(self, error: ModelkeepError, scope: Scope, receive: Receive, send: Send) -> None:
        answer = respond(error, scope["state"]["request_id"], scope["path"])
        if isinstance(error, Unauthenticated) and not scope["path"].startswith(_PROGRAMS):
            answer.headers["www-authenticate"] = _BASIC
        await answer(scope, receive, send)


class _Limited:
    """Receives a body that did not announce its length, up to the limit; raises `TooLarge` past it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = _LARGEST_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large()
        return message


def _telling(send: Send, told: Headers) -> Send:
    """Return `send`, with header fields for the answer."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *told]
        await send(message)

    return tell


def _too_large() -> TooLarge:
    return TooLarge(f"The request body is larger than {_LARGEST_BODY // 1024} KiB.")


def address(given: headers.Headers) -> str:
    """Return the caller's address, which a server alone can have put there; "" where it is not known."""
    return given.get(FORWARDED_TO_API, b"").decode("latin-1")


def presented(given: headers.Headers, path: str, method: str) -> str:
    """Return the secret that came with a request; raises `Unauthenticated` when there is none, and `CsrfRefused`."""
    page = not path.startswith(_PROGRAMS)
    key = headers.presented_key(given) or cookies.presented(given, method, page=page)
    if key is None and page:
        key = headers.presented_password(given)
    if key is None:
        raise Unauthenticated
    return key.decode("latin-1")
