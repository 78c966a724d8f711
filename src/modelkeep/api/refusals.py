"""Notes refusals that matter in the audit trail: a well-formed credential that is not good, and what a good one may not do."""

from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelkeep.api.middleware import presented
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.control.audit.service import Audit
from modelkeep.control.sessions.service import Sessions
from modelkeep.control.users.service import Users
from modelkeep.infra import client_certificates, cookies, headers, secrets
from modelkeep.infra.cookies import CsrfRefused

_UNAUTHENTICATED: Final = 401
_FORBIDDEN: Final = 403


class Refused:
    """Looks at the status of each answer, and notes it before the caller has it."""

    def __init__(self, app: ASGIApp, users: Users, sessions: Sessions, audit: Audit) -> None:
        self._app = app
        self._users = users
        self._sessions = sessions
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._look(message["status"], scope)
            await send(message)

        await self._app(scope, receive, seen)

    async def _look(self, status: int, scope: Scope) -> None:
        actor = scope["state"].get("actor")
        if status == _FORBIDDEN:
            # nobody has come in with a good key from a network that it is not good from
            action, who = "access.forbidden", actor or await self._stranger(scope)
        elif status == _UNAUTHENTICATED and actor is None:
            action, who = "access.unauthenticated", await self._stranger(scope)
        else:
            return
        if who is not None:
            await self._note(who, action, scope)

    async def _stranger(self, scope: Scope) -> Actor | None:
        """Return who tried to come in; None for what nobody can have taken for a key."""
        state, given = scope["state"], headers.by_name(scope["headers"])
        who = partial(Actor, request_id=state["request_id"], address=state["address"])
        try:
            secret = presented(given, scope["path"], scope["method"])
        except CsrfRefused:
            return await self._led(cookies.cookie(given[b"cookie"], cookies.ACCESS) or b"", who)
        except Unauthenticated:
            return await self._certified(given, who)
        if not secrets.well_formed(secret, secrets.KEY):
            return None
        known = await self._users.holders.presented(secret)
        if known is None:
            return who("unknown", "")
        key, user = known
        return who(key.id, user.name, user.id)

    async def _certified(self, given: headers.Headers, who: Callable[[str, str, str], Actor]) -> Actor | None:
        """Return whose key a certificate stands for that let nobody in; None where it is not clear whose, or nobody's."""
        shown = client_certificates.told(given)
        claimed = [] if shown is None or not cookies.shows_nothing(given) else await self._users.holders.claimed(shown)
        if len(claimed) != 1:
            return None
        ((key, user),) = claimed
        return who(key.id, user.name, user.id)

    async def _led(self, token: bytes, who: Callable[[str, str, str], Actor]) -> Actor | None:
        """Return whose browser was led to ask something; None where its session is over."""
        try:
            session, user = await self._sessions.authenticate(token.decode("latin-1"))
        except Unauthenticated:
            return None
        return who(session.id, user.name, user.id)

    async def _note(self, actor: Actor, action: str, scope: Scope) -> None:
        await self._audit.refused(actor, action, method=scope["method"], path=scope["path"])
