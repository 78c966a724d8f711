"""From a credential to an `Actor`, as a type in a route's signature: a route that asks for one cannot answer without a key.

    async def promote(actor: Writer, ...)

A key comes as `X-API-Key` or as `Authorization: Bearer` and may do the same by either way.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers

from modelkeep.api.services import Behind
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.snapshot import Scope

_key_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")
_bearer = HTTPBearer(auto_error=False, description="An API key.")


def presented(headers: Headers) -> str:
    """Return the key that came with a request; raises `Unauthenticated` when there is none."""
    key = headers.get("x-api-key")
    if key:
        return key
    kind, _space, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and rest.strip():
        return rest.strip()
    raise Unauthenticated


async def _caller(
    request: Request,
    behind: Behind,
    _header: Annotated[object, Security(_key_header)] = None,
    _token: Annotated[object, Security(_bearer)] = None,
) -> Actor:
    """Say who calls. The two unused arguments are how OpenAPI learns of the headers; `presented` reads them."""
    return await behind.users.authenticate(presented(request.headers), request.state.request_id)


def _may(scope: Scope) -> Callable[[Actor], Awaitable[Actor]]:
    async def check(actor: Annotated[Actor, Security(_caller)]) -> Actor:
        actor.need(scope)
        return actor

    return check


AnyKey = Annotated[Actor, Security(_caller)]
Reader = Annotated[Actor, Security(_may(Scope.MODELS_READ))]
Writer = Annotated[Actor, Security(_may(Scope.MODELS_WRITE))]
Admin = Annotated[Actor, Security(_may(Scope.ADMIN))]
