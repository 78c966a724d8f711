"""Notes refusals that matter in the audit trail: a well-formed credential that is not good, and what a good one may not do."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelkeep.api.middleware import presented
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.control.audit.service import Audit
from modelkeep.control.users.service import Users
from modelkeep.infra import secrets

_UNAUTHENTICATED: Final = 401
_FORBIDDEN: Final = 403


class Refused:
    """Looks at the status of each answer; the refused caller has it before it is noted."""

    def __init__(self, app: ASGIApp, users: Users, audit: Audit) -> None:
        self._app = app
        self._users = users
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        status = 0

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, seen)
        if status == _FORBIDDEN and "actor" in scope["state"]:
            await self._note(scope["state"]["actor"], "access.forbidden", scope)
        elif status == _UNAUTHENTICATED and "actor" not in scope["state"]:
            stranger = await self._stranger(scope)
            if stranger is not None:
                await self._note(stranger, "access.unauthenticated", scope)

    async def _stranger(self, scope: Scope) -> Actor | None:
        """Return who tried to come in; None for what nobody can have taken for a key."""
        try:
            secret = presented(dict(scope["headers"]), scope["path"])
        except Unauthenticated:
            return None
        if not secrets.well_formed(secret, secrets.KEY):
            return None
        state = scope["state"]
        return Actor("unknown", "", request_id=state["request_id"], address=state["address"])

    async def _note(self, actor: Actor, action: str, scope: Scope) -> None:
        await self._audit.refused(actor, action, method=scope["method"], path=scope["path"])
