"""Logging in through identity providers: OpenID providers, which browsers are sent to, and directories.

A login under way is bound to the browser that began it by a cookie: sealed, for this provider alone, for ten minutes.
Where people are sent stands in the settings; of a request, the path of a page of this host alone is gone to.

What begins below `/auth/browser` is for a page: it ends in a session of that browser, and whatever comes of it at that page.
What begins below `/auth/terminal` is for a program that has sent somebody to a browser: it ends in a code, which that program
alone can exchange. All else ends in tokens.
"""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query, Request, Response, status

from modelkeep.api import terminal_page
from modelkeep.api.description import raises
from modelkeep.api.routes.auth import origin, tokens
from modelkeep.api.routes.browser import keep
from modelkeep.api.schemas.auth import BrowserAnswer, TokensAnswer
from modelkeep.api.schemas.sign_on import DirectoryLogin, HandedOver, ProviderAnswer, ProvidersAnswer
from modelkeep.api.services import Behind
from modelkeep.contracts.auth import IdentityRefused, OidcSettings, ProviderBusy, ProviderUnavailable
from modelkeep.contracts.errors import Kind, Limited, ModelkeepError
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.identities.errors import CodeRefused, InvalidPage, NotAdmitted, ProviderNotFound, SignOnLost
from modelkeep.control.identities.rules import CameBack, SignOn, Terminal, told
from modelkeep.control.sessions.errors import LoginRefused, SigningKeyLost
from modelkeep.control.sessions.rules import Life
from modelkeep.control.users.errors import UserExists
from modelkeep.infra import cookies, headers
from modelkeep.infra.attempts import TriedTooOften
from modelkeep.infra.cookies import CsrfRefused

router = APIRouter(tags=["people"])
_OF_DIRECTORY: Final = (
    LastAdmin,
    Limited,
    LoginRefused,
    NotAdmitted,
    ProviderBusy,
    ProviderNotFound,
    ProviderUnavailable,
    SigningKeyLost,
    TriedTooOften,
    UserExists,
)
_COOKIE: Final = "modelkeep-sign-on-"
_NOT_KEPT: Final = "no-store"
_PREFIX: Final = "/api/v1/auth"
_CHALLENGE: Final = "^[A-Za-z0-9_-]{43}$"
_STATE: Final = "^[A-Za-z0-9_-]{0,64}$"
Provider = Annotated[str, Path(max_length=32, description="The identity provider's name.")]


@router.get("/auth/providers")
async def list_providers(behind: Behind) -> ProvidersAnswer:
    """List the identity providers that people can log in through; needs no key."""
    found = []
    for name, one in behind.identities.providers().items():
        kind: Literal["oidc", "ldap"] = "oidc" if isinstance(one.settings, OidcSettings) else "ldap"
        found.append(
            ProviderAnswer(name=name, title=one.settings.title or name, kind=kind, login=f"{_PREFIX}/{kind}/{name}/login")
        )
    return ProvidersAnswer(items=found)


@router.get("/auth/oidc/{provider}/login", status_code=status.HTTP_303_SEE_OTHER, response_class=Response)
@raises(Limited, ProviderNotFound, ProviderUnavailable)
async def begin_sign_on(provider: Provider, behind: Behind) -> Response:
    """Send a browser to an OpenID provider, which sends it back to the redirect address of the settings."""
    return await _begin(provider, behind)


@router.get("/auth/browser/oidc/{provider}/login", status_code=status.HTTP_303_SEE_OTHER, response_class=Response)
@raises(CsrfRefused, InvalidPage, Limited)
async def begin_browser_sign_on(
    provider: Provider,
    behind: Behind,
    page: Annotated[str, Query(max_length=1000, description="Where to go on: the path of a page of this host.")] = "/",
) -> Response:
    """Send a page's browser to an OpenID provider; it comes back to `page`, with a session whose tokens are cookies.

    Where nobody is logged in, `sign_on_error` in the address of the page is the code that says why. What the session changes
    needs the `csrf_token` of `GET /api/v1/auth/browser`.
    """
    try:
        return await _begin(provider, behind, page)
    except (ProviderNotFound, ProviderUnavailable) as error:
        return _to(told(page, error.code))


@router.get("/auth/terminal/oidc/{provider}/login", status_code=status.HTTP_303_SEE_OTHER, response_class=Response)
@raises(Limited, ProviderNotFound, ProviderUnavailable)
async def begin_terminal_sign_on(
    provider: Provider,
    behind: Behind,
    *,
    challenge: Annotated[str, Query(pattern=_CHALLENGE, description="Of the program's own verifier (PKCE, S256).")],
    port: Annotated[int, Query(ge=0, le=65535, description="Where it listens on this machine; 0: its user pastes.")] = 0,
    state: Annotated[str, Query(pattern=_STATE, description="What it knows its own login by.")] = "",
) -> Response:
    """Send a browser to an OpenID provider, for a program on somebody's machine: it ends in a code for that.

    The program exchanges it at `POST /api/v1/auth/terminal/tokens`. The page at the end has a link to `http://127.0.0.1` at its
    port, or shows the code; a refusal is sent there as `error`.
    """
    return await _begin(provider, behind, terminal=Terminal(challenge, port, state))


@router.post("/auth/terminal/tokens")
@raises(CodeRefused, Limited, SigningKeyLost)
async def finish_terminal_sign_on(body: HandedOver, request: Request, response: Response, behind: Behind) -> TokensAnswer:
    """Exchange the code of a login that ended in a browser: the program that began it, once, within five minutes."""
    response.headers["cache-control"] = _NOT_KEPT
    return tokens(await behind.identities.take_over(body.code, body.verifier, origin(request)))


@router.get(
    "/auth/oidc/{provider}/callback",
    response_model=TokensAnswer,
    responses={
        status.HTTP_200_OK: {"content": {"text/html": {"schema": {"type": "string"}}}},
        status.HTTP_303_SEE_OTHER: {"description": "What was begun for a page goes on there, whatever came of it."},
    },
)
@raises(
    IdentityRefused,
    LastAdmin,
    Limited,
    NotAdmitted,
    ProviderNotFound,
    ProviderUnavailable,
    SigningKeyLost,
    SignOnLost,
    TriedTooOften,
    UserExists,
)
async def finish_sign_on(
    provider: Provider,
    request: Request,
    response: Response,
    behind: Behind,
    *,
    state: Annotated[str, Query(max_length=200, description="As the login began.")] = "",
    code: Annotated[str | None, Query(max_length=4096, description="What the provider gave; none where it refused.")] = None,
    iss: Annotated[str | None, Query(max_length=2000, description="Who the provider says it is.")] = None,
) -> TokensAnswer | Response:
    """Log in with what an OpenID provider sent back, in the browser that the login began in."""
    response.headers["cache-control"] = _NOT_KEPT
    began, back = behind.identities.begun(provider, _kept(request, behind, provider)), CameBack(state, code, iss)
    try:
        if began.terminal is not None:
            handed, user = await behind.identities.hand_over(provider, began, began.terminal, back, origin(request))
            answer = terminal_page.handed_over(began.terminal, handed.reveal(), user)
        else:
            life = behind.browsers if began.page else Life()
            made = await behind.identities.finish(provider, began, back, origin(request), life=life)
            answer = _to(began.page) if began.page else response
    except ModelkeepError as error:
        request.state.refused = error.kind is Kind.UNAUTHENTICATED
        return _where_it_began(began, error)
    _keep(answer, behind, provider, "", 0)
    if answer is response:
        return tokens(made)
    if began.page:
        keep(answer, made, behind.clock())
    return answer


@router.get("/auth/oidc/{provider}/logout", status_code=status.HTTP_303_SEE_OTHER, response_class=Response)
@raises(Limited, ProviderNotFound, ProviderUnavailable)
async def leave_provider(provider: Provider, behind: Behind) -> Response:
    """Send a browser to where people log out of an OpenID provider; the session here ends with `/auth/logout`."""
    return _to(await behind.identities.logout_address(provider))


@router.post("/auth/ldap/{provider}/login")
@raises(*_OF_DIRECTORY)
async def login_with_directory(
    provider: Provider, body: DirectoryLogin, request: Request, response: Response, behind: Behind
) -> TokensAnswer:
    """Log in as a directory knows one. Who fails often has to wait, as with a password of ours."""
    response.headers["cache-control"] = _NOT_KEPT
    return tokens(await behind.identities.login(provider, body.login, body.password, origin(request)))


@router.post("/auth/browser/ldap/{provider}/login")
@raises(CsrfRefused, *_OF_DIRECTORY)
async def login_browser_with_directory(
    provider: Provider, body: DirectoryLogin, request: Request, response: Response, behind: Behind
) -> BrowserAnswer:
    """Log in as a directory knows one; the tokens are cookies that no script can read, as after one with a password."""
    made = await behind.identities.login(provider, body.login, body.password, origin(request), life=behind.browsers)
    return keep(response, made, behind.clock())


def _where_it_began(began: SignOn, error: ModelkeepError) -> Response:
    """Say why nobody was logged in where somebody waits for that; raises the error for a program."""
    if began.page:
        return _to(told(began.page, error.code))
    if began.terminal is None:
        raise error
    return _to(began.terminal.address(error=error.code)) if began.terminal.port else terminal_page.refused(error)


async def _begin(provider: str, behind: Behind, page: str = "", terminal: Terminal | None = None) -> Response:
    begun = await behind.identities.begin(provider, page=page, terminal=terminal)
    answer = _to(begun.address)
    _keep(answer, behind, provider, begun.sealed, begun.life_s)
    return answer


def _to(address: str) -> Response:
    headers = {"location": address, "cache-control": _NOT_KEPT, "referrer-policy": "no-referrer"}
    return Response(status_code=status.HTTP_303_SEE_OTHER, headers=headers)


def _keep(answer: Response, behind: Behind, provider: str, sealed: str, life_s: int) -> None:
    """Have the browser keep a login under way; nothing removes it."""
    name, secure = _cookie(behind, provider)
    # lax: it comes back from another site, by a link that is followed
    answer.set_cookie(name, sealed, max_age=life_s, path="/", secure=secure, httponly=True, samesite="lax")


def _kept(request: Request, behind: Behind, provider: str) -> str:
    """Return the login under way that a browser keeps, "" where there is none, or more than one."""
    name, _secure = _cookie(behind, provider)
    given = headers.by_name(request.scope["headers"]).get(b"cookie", b"")
    return (cookies.cookie(given, name) or b"").decode("latin-1")


def _cookie(behind: Behind, provider: str) -> tuple[str, bool]:
    """Return the name of the cookie of a provider's logins, and whether it goes over TLS alone.

    There no neighbour within the same domain can set it, and so have somebody come in as they themselves.
    """
    one = behind.identities.providers().get(provider)
    settings = None if one is None else one.settings
    secure = isinstance(settings, OidcSettings) and urlsplit(settings.redirect_uri).scheme == "https"
    return f"{'__Host-' if secure else ''}{_COOKIE}{provider}", secure
