"""Sessions of browsers: the same logins, with their tokens in cookies that no script can read."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response, status

from modelkeep.api.auth import Oneself
from modelkeep.api.description import raises
from modelkeep.api.errors import respond
from modelkeep.api.routes.auth import forget, origin
from modelkeep.api.schemas.auth import BrowserAnswer, Login
from modelkeep.api.services import Behind
from modelkeep.contracts.auth import ProviderBusy
from modelkeep.contracts.errors import Limited
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.sessions.errors import LoginRefused, NoSession, RefreshRefused, SessionNotFound, SigningKeyLost
from modelkeep.control.sessions.rules import Tokens
from modelkeep.infra import cookies, headers
from modelkeep.infra.attempts import TriedTooOften
from modelkeep.infra.cookies import CsrfRefused
from modelkeep.infra.passwords import PasswordsBusy
from modelkeep.infra.tokens import ACCESS_LIFE

router = APIRouter(prefix="/auth/browser", tags=["people"])
_MARGIN = timedelta(seconds=5)


@router.post("/login")
@raises(CsrfRefused, Limited, LoginRefused, PasswordsBusy, SigningKeyLost, TriedTooOften)
async def browser_login(body: Login, request: Request, response: Response, behind: Behind) -> BrowserAnswer:
    """Log in with e-mail and password; the tokens are cookies that no script can read, over TLS or on this machine alone.

    What changes something needs `csrf_token` as `X-CSRF-Token`. The session ends when it was not refreshed for a while, and
    after some hours in any case (`auth.browser_idle_minutes`, `auth.browser_hours`).
    """
    made = await behind.sessions.login(body.email, body.password, origin(request), life=behind.browsers)
    return keep(response, made, behind.clock())


@router.post("/refresh", response_model=BrowserAnswer)
@raises(CsrfRefused, LastAdmin, Limited, ProviderBusy, RefreshRefused, SigningKeyLost)
async def browser_refresh(request: Request, response: Response, behind: Behind) -> BrowserAnswer | Response:
    """Go on with a browser's session: its cookies are replaced, or forgotten where it has ended."""
    try:
        made = await behind.identities.refresh(_refresh_token(request), browser=True)
    except RefreshRefused as error:
        return forget(respond(error, request.state.request_id, request.url.path))
    return keep(response, made, behind.clock())


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
@raises(CsrfRefused, Limited, RefreshRefused, SessionNotFound)
async def browser_logout(request: Request, behind: Behind) -> Response:
    """End a browser's session by its refresh token, also when its access token has expired; its cookies are forgotten."""
    try:
        await behind.sessions.leave(_refresh_token(request), origin(request))
    except (RefreshRefused, SessionNotFound) as error:
        return forget(respond(error, request.state.request_id, request.url.path))
    return forget(Response(status_code=status.HTTP_204_NO_CONTENT))


@router.get("")
@raises(NoSession)
async def get_browser_session(actor: Oneself, request: Request, behind: Behind) -> BrowserAnswer:
    """Tell a page that was loaded anew what its session needs to change something, and when it ends."""
    session = await behind.sessions.of_browser(actor)
    return BrowserAnswer(
        csrf_token=cookies.csrf_token(request.state.presented.encode("latin-1")),
        session=session.id,
        expires_at=min(session.used_at + ACCESS_LIFE, session.idle_until),
        idle_until=session.idle_until,
    )


def keep(response: Response, made: Tokens, now: datetime) -> BrowserAnswer:
    """Have the browser keep the tokens of its session; return what the page is told of them."""
    for name, value, ends in (
        (cookies.ACCESS, made.access, made.expires_at),
        (cookies.REFRESH, made.refresh, made.refresh_expires_at),
    ):
        response.headers.append("set-cookie", cookies.kept(name, value, _seconds(ends, now)))
    response.headers["cache-control"] = "no-store"
    token = cookies.csrf_token(made.access.encode())
    return BrowserAnswer(
        csrf_token=token, session=made.session_id, expires_at=made.expires_at, idle_until=made.refresh_expires_at
    )


def _seconds(ends: datetime, now: datetime) -> int:
    """Return how long a cookie is kept: a little less than its token is good, so that what is sent is good."""
    return max(1, int((ends - now - _MARGIN).total_seconds()))


def _refresh_token(request: Request) -> str:
    """Return the refresh token of a browser; raises `RefreshRefused`."""
    token = cookies.cookie(headers.by_name(request.scope["headers"]).get(b"cookie", b""), cookies.REFRESH)
    if token is None:
        raise RefreshRefused
    return token.decode("latin-1")
