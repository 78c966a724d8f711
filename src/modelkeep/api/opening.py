"""Until the database has answered and its schema is current, this door is closed: every request is refused with 503."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from modelkeep.api.errors import respond
from modelkeep.contracts.errors import Unavailable


class NotOpenYet(Unavailable):
    """The control plane has started and waits for its database: try again soon."""

    code = "database_unavailable"


class Opening:
    """Refuses every request until `opened` is set."""

    def __init__(self, app: ASGIApp, opened: asyncio.Event) -> None:
        self._app = app
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] == "http" and not self._opened.is_set():
            refusal = respond(NotOpenYet(retry_after_s=1), scope["state"]["request_id"], scope["path"])
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
