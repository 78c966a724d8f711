"""From a credential to an `Actor`, as a type in a route's signature: a route that asks for one cannot answer without a key.

    async def promote(actor: Writer, ...)

A key comes as `X-API-Key` or as `Authorization: Bearer`, and so does a session's access token. It may do the same
by either way.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.snapshot import Scope

_key_header = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)
_bearer = HTTPBearer(scheme_name="Bearer", auto_error=False)


async def _caller(
    request: Request,
    _header: Annotated[object, Security(_key_header)] = None,
    _token: Annotated[object, Security(_bearer)] = None,
) -> Actor:
    """Say who calls: the guard has asked for the key. The two unused arguments are how OpenAPI learns of the headers."""
    actor: Actor | None = getattr(request.state, "actor", None)
    if actor is None:
        raise Unauthenticated
    return actor


def _may(scope: Scope) -> Callable[[Actor], Awaitable[Actor]]:
    async def check(actor: Annotated[Actor, Security(_caller)]) -> Actor:
        actor.need(scope)
        return actor

    return check


AnyKey = Annotated[Actor, Security(_caller)]
Reader = Annotated[Actor, Security(_may(Scope.MODELS_READ), scopes=[Scope.MODELS_READ.value])]
Writer = Annotated[Actor, Security(_may(Scope.MODELS_WRITE), scopes=[Scope.MODELS_WRITE.value])]
Admin = Annotated[Actor, Security(_may(Scope.ADMIN), scopes=[Scope.ADMIN.value])]
