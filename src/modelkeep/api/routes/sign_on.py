"""Logging in through identity providers: OpenID providers, which browsers are sent to, and directories.

A login under way is bound to the browser that began it by a cookie: sealed, for this provider alone, for ten minutes.
Where people are sent stands in the settings; nothing of a request is ever made into an address.
"""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query, Request, Response, status

from modelkeep.api.description import raises
from modelkeep.api.routes.auth import origin, tokens
from modelkeep.api.schemas.auth import TokensAnswer
from modelkeep.api.schemas.sign_on import DirectoryLogin, ProviderAnswer, ProvidersAnswer
from modelkeep.api.services import Behind
from modelkeep.contracts.auth import IdentityRefused, OidcSettings, ProviderBusy, ProviderUnavailable
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.identities.errors import NotAdmitted, ProviderNotFound, SignOnLost
from modelkeep.control.sessions.errors import LoginRefused, SigningKeyLost
from modelkeep.control.users.errors import UserExists
from modelkeep.infra.attempts import TriedTooOften

router = APIRouter(tags=["people"])
_COOKIE: Final = "modelkeep_sign_on"
_NOT_KEPT: Final = "no-store"
_PREFIX: Final = "/api/v1/auth"
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
@raises(ProviderNotFound, ProviderUnavailable)
async def begin_sign_on(provider: Provider, behind: Behind) -> Response:
    """Send a browser to an OpenID provider, which sends it back to the redirect address of the settings."""
    begun = await behind.identities.begin(provider)
    answer = _to(begun.address)
    _keep(answer, behind, provider, begun.sealed, begun.life_s)
    return answer


@router.get("/auth/oidc/{provider}/callback")
@raises(
    IdentityRefused,
    LastAdmin,
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
) -> TokensAnswer:
    """Log in with what an OpenID provider sent back, in the browser that the login began in."""
    response.headers["cache-control"] = _NOT_KEPT
    sealed = request.cookies.get(_COOKIE, "")
    made = await behind.identities.finish(provider, sealed, state=state, code=code, issuer=iss, origin=origin(request))
    _keep(response, behind, provider, "", 0)
    return tokens(made)


@router.get("/auth/oidc/{provider}/logout", status_code=status.HTTP_303_SEE_OTHER, response_class=Response)
@raises(ProviderNotFound, ProviderUnavailable)
async def leave_provider(provider: Provider, behind: Behind) -> Response:
    """Send a browser to where people log out of an OpenID provider; the session here ends with `/auth/logout`."""
    return _to(await behind.identities.logout_address(provider))


@router.post("/auth/ldap/{provider}/login")
@raises(
    LastAdmin,
    LoginRefused,
    NotAdmitted,
    ProviderBusy,
    ProviderNotFound,
    ProviderUnavailable,
    SigningKeyLost,
    TriedTooOften,
    UserExists,
)
async def login_with_directory(
    provider: Provider, body: DirectoryLogin, request: Request, response: Response, behind: Behind
) -> TokensAnswer:
    """Log in as a directory knows one. Who fails often has to wait, as with a password of ours."""
    response.headers["cache-control"] = _NOT_KEPT
    return tokens(await behind.identities.login(provider, body.login, body.password, origin(request)))


def _to(address: str) -> Response:
    headers = {"location": address, "cache-control": _NOT_KEPT, "referrer-policy": "no-referrer"}
    return Response(status_code=status.HTTP_303_SEE_OTHER, headers=headers)


def _keep(answer: Response, behind: Behind, provider: str, sealed: str, life_s: int) -> None:
    """Have the browser keep a login under way, where it is sent back to; nothing removes it."""
    settings = behind.identities.providers()[provider].settings
    back = urlsplit(settings.redirect_uri if isinstance(settings, OidcSettings) else "")
    answer.set_cookie(
        _COOKIE,
        sealed,
        max_age=life_s,
        path=f"{_PREFIX}/oidc/{provider}/",
        secure=back.scheme == "https",
        httponly=True,
        samesite="lax",  # it comes back from another site, by a link that is followed
    )
