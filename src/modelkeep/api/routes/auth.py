"""Logging in and out, one's sessions, and the keys that access tokens are checked with."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response, status

from modelkeep.api.auth import Admin, Oneself
from modelkeep.api.description import raises
from modelkeep.api.schemas.auth import (
    JwksAnswer,
    Login,
    Refresh,
    RotatedAnswer,
    SessionAnswer,
    SessionsAnswer,
    TokensAnswer,
)
from modelkeep.api.services import Behind
from modelkeep.contracts.auth import ProviderBusy
from modelkeep.contracts.errors import Limited
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.sessions.errors import (
    LoginRefused,
    NoSession,
    RefreshRefused,
    RotationUnderWay,
    SessionNotFound,
    SigningKeyLost,
)
from modelkeep.control.sessions.rules import Tokens
from modelkeep.control.sessions.service import Origin
from modelkeep.infra import cookies
from modelkeep.infra.attempts import TriedTooOften
from modelkeep.infra.passwords import PasswordsBusy

router = APIRouter(tags=["people"])
_NOT_KEPT = "no-store"
_FETCHED_ANEW = "public, max-age=300"  # well below the time for which a key is published before it signs


@router.post("/auth/login")
@raises(Limited, LoginRefused, PasswordsBusy, SigningKeyLost, TriedTooOften)
async def login(body: Login, request: Request, response: Response, behind: Behind) -> TokensAnswer:
    """Log in with e-mail and password.

    The access token goes where an API key does, as `Authorization: Bearer`, for 30 minutes. Who fails often has to wait.
    """
    response.headers["cache-control"] = _NOT_KEPT
    return tokens(await behind.sessions.login(body.email, body.password, origin(request)))


@router.post("/auth/refresh")
@raises(LastAdmin, Limited, ProviderBusy, RefreshRefused, SigningKeyLost)
async def refresh(body: Refresh, response: Response, behind: Behind) -> TokensAnswer:
    """Exchange a refresh token for new tokens; it is used up with that.

    Repeated within 10 seconds it gets the same answer. Used later than that it has been stolen, and the session ends.
    """
    response.headers["cache-control"] = _NOT_KEPT
    return tokens(await behind.identities.refresh(body.refresh_token))


@router.post("/auth/logout", status_code=status.HTTP_204_NO_CONTENT)
@raises(NoSession, SessionNotFound)
async def logout(actor: Oneself, behind: Behind) -> Response:
    """End the session that this is asked in: its tokens open nothing from now on."""
    await behind.sessions.logout(actor)
    return forget(Response(status_code=status.HTTP_204_NO_CONTENT))


@router.post("/auth/logout-all", status_code=status.HTTP_204_NO_CONTENT)
async def logout_all(actor: Oneself, behind: Behind) -> Response:
    """End all of one's sessions."""
    await behind.sessions.logout_all(actor)
    return forget(Response(status_code=status.HTTP_204_NO_CONTENT))


@router.get("/auth/jwks")
async def get_signing_keys(response: Response, behind: Behind) -> JwksAnswer:
    """Show the public keys that access tokens can be checked with; needs no key."""
    response.headers["cache-control"] = _FETCHED_ANEW
    return JwksAnswer.model_validate(await behind.sessions.published())


@router.post("/auth/signing-keys", status_code=status.HTTP_201_CREATED)
@raises(RotationUnderWay)
async def rotate_signing_key(actor: Admin, behind: Behind) -> RotatedAnswer:
    """Publish a new signing key, which signs 10 minutes later; the old one verifies until its last token has ended."""
    return RotatedAnswer(signs_from=await behind.sessions.rotate_keys(actor))


@router.get("/me/sessions")
async def list_sessions(actor: Oneself, behind: Behind) -> SessionsAnswer:
    """List one's sessions that go on, newest first."""
    found = await behind.sessions.mine(actor)
    return SessionsAnswer(
        items=[
            SessionAnswer(
                id=one.id,
                created_at=one.created_at,
                used_at=one.used_at,
                expires_at=one.expires_at,
                address=one.address,
                program=one.program,
                this=one.id == actor.id,
            )
            for one in found
        ]
    )


@router.delete("/me/sessions/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
@raises(SessionNotFound)
async def end_session(
    session_id: Annotated[str, Path(max_length=100, description="The session's id.")], actor: Oneself, behind: Behind
) -> Response:
    """End one of one's sessions."""
    await behind.sessions.end(actor, session_id)
    ended = Response(status_code=status.HTTP_204_NO_CONTENT)
    return forget(ended) if session_id == actor.id else ended


def forget(response: Response) -> Response:
    """Have the browser forget its cookies."""
    for name in (cookies.ACCESS, cookies.REFRESH):
        response.headers.append("set-cookie", cookies.kept(name, "", 0))
    return response


def origin(request: Request) -> Origin:
    """Return where a request comes from. The server in front says the address; it lets nobody else say one."""
    return Origin(request.state.address, request.headers.get("user-agent", ""), request.state.request_id)


def tokens(made: Tokens) -> TokensAnswer:
    """Return what a login gets, as it goes over the wire."""
    return TokensAnswer(
        access_token=made.access,
        expires_at=made.expires_at,
        refresh_token=made.refresh,
        refresh_expires_at=made.refresh_expires_at,
        session=made.session_id,
    )
