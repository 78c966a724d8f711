"""From a credential to an `Actor`, as a type in a route's signature: a route that asks for one cannot answer without a key.

    async def promote(actor: Writer, ...)

Most look whether the key carries a scope at all; with which model it may be used is for the services to say, which find that
out anyway. What concerns the whole installation is decided here.

A key comes as `X-API-Key` or as `Authorization: Bearer`, and so does a session's access token. It may do the same
by either way. A browser's comes in a cookie (`infra/cookies.py`), with `X-CSRF-Token` beside it for what changes something; of
that, `api/description.py` tells for all routes of both planes.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated

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
        actor.carry(scope)
        return actor

    return check


async def _admin(actor: Annotated[Actor, Security(_caller)]) -> Actor:
    actor.need(Scope.ADMIN)
    return actor


async def _auditor(actor: Annotated[Actor, Security(_caller)]) -> Actor:
    actor.need(Scope.AUDIT_READ)
    return actor


async def _oneself(actor: Annotated[Actor, Security(_caller)]) -> Actor:
    actor.carry_all()
    return actor


AnyKey = Annotated[Actor, Security(_caller)]
Oneself = Annotated[Actor, Security(_oneself, scopes=[Scope.ADMIN.value])]
"""Who acts for themselves: in a session of a person, or with a key that bounds nothing, neither what it does nor where, how
often and how long. Whoever took a narrower one has not taken all."""
Reader = Annotated[Actor, Security(_may(Scope.MODELS_READ), scopes=[Scope.MODELS_READ.value])]
Writer = Annotated[Actor, Security(_may(Scope.MODELS_WRITE), scopes=[Scope.MODELS_WRITE.value])]
Predictor = Annotated[Actor, Security(_may(Scope.PREDICT), scopes=[Scope.PREDICT.value])]
Releaser = Annotated[Actor, Security(_may(Scope.DEPLOYMENTS_WRITE), scopes=[Scope.DEPLOYMENTS_WRITE.value])]
PredictionReader = Annotated[Actor, Security(_may(Scope.PREDICTIONS_READ), scopes=[Scope.PREDICTIONS_READ.value])]
PlaceAdmin = Annotated[Actor, Security(_may(Scope.ADMIN), scopes=[Scope.ADMIN.value])]
"""Who may be an administrator of what is asked about: the service decides."""
Admin = Annotated[Actor, Security(_admin, scopes=[Scope.ADMIN.value])]
Auditor = Annotated[Actor, Security(_auditor, scopes=[Scope.AUDIT_READ.value])]
