"""Sessions of browsers: the same logins, with their tokens in cookies that no script can read."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response

from modelkeep.api.auth import Oneself
from modelkeep.api.description import raises
from modelkeep.api.routes.auth import origin
from modelkeep.api.schemas.auth import BrowserAnswer, Login
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import Limited
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.sessions.errors import LoginRefused, NoSession, RefreshRefused, SigningKeyLost
from modelkeep.control.sessions.rules import Tokens
from modelkeep.infra import cookies
from modelkeep.infra.attempts import TriedTooOften
from modelkeep.infra.clock import utc_now
from modelkeep.infra.cookies import CsrfRefused
from modelkeep.infra.passwords import PasswordsBusy

router = APIRouter(prefix="/auth/browser", tags=["people"])
_SKEW = timedelta(seconds=5)


@router.post("/login")
@raises(CsrfRefused, Limited, LoginRefused, PasswordsBusy, SigningKeyLost, TriedTooOften)
async def browser_login(body: Login, request: Request, response: Response, behind: Behind) -> BrowserAnswer:
    """Log in with e-mail and password; the tokens are cookies that no script can read, over TLS or on this machine alone.

    What changes something needs `csrf_token` as `X-CSRF-Token`. The session ends when it was not refreshed for a while, and
    after some hours in any case (`auth.browser_idle_minutes`, `auth.browser_hours`).
    """
    cookies.check_page(_headers(request))
    return _answer(response, await behind.sessions.login(body.email, body.password, origin(request), life=behind.browsers))


@router.post("/refresh")
@raises(CsrfRefused, LastAdmin, Limited, RefreshRefused, SigningKeyLost)
async def browser_refresh(request: Request, response: Response, behind: Behind) -> BrowserAnswer:
    """Go on with a browser's session: its cookies are replaced."""
    given = _headers(request)
    cookies.check_page(given)
    token = cookies.cookie(given.get(b"cookie", b""), cookies.REFRESH)
    if token is None:
        raise RefreshRefused
    return _answer(response, await behind.identities.refresh(token.decode("latin-1")))


@router.get("")
@raises(NoSession)
async def get_browser_session(actor: Oneself, request: Request) -> BrowserAnswer:
    """Tell a page that was loaded anew what it needs to change something in its session."""
    access = cookies.presented(_headers(request), request.method)
    if access is None:
        raise NoSession
    return BrowserAnswer(csrf_token=cookies.csrf_token(access), session=actor.id)


def _answer(response: Response, made: Tokens) -> BrowserAnswer:
    now = utc_now()
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
    return max(1, int((ends - now - _SKEW).total_seconds()))


def _headers(request: Request) -> dict[bytes, bytes]:
    return dict(request.scope["headers"])
