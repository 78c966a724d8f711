"""OpenID Connect: the authorization code flow with PKCE, and access tokens of services.

browser -> address(challenge) -> the provider -> identity(code, iss, challenge) -> who it is
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx

from modelkeep.contracts.auth import Challenge, Clock, Identity, IdentityRefused, OidcSettings, ProviderUnavailable
from modelkeep.contracts.errors import Invalid, Unauthenticated
from modelkeep.plugins.auth.oidc.checking import Keys, UnknownKey, check_access_token, check_id_token, said
from modelkeep.plugins.auth.oidc.fetching import Fetcher, checked_address
from modelkeep.plugins.auth.oidc.knowledge import Knowledge

_MOST_GROUPS: Final = 1000
_LONGEST_CODE: Final = 4096


class OpenIdProvider:
    """One OpenID provider."""

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        checked_address(settings.issuer, "issuer")
        checked_address(settings.redirect_uri, "redirect_uri")
        if settings.logout_uri:
            checked_address(settings.logout_uri, "logout_uri")
        if "openid" not in settings.scopes:
            raise Invalid("scopes must have openid among them.")
        if settings.service_audience == settings.client_id:
            raise Invalid("service_audience must not be client_id: ID tokens would be taken for access tokens.")
        if bool(settings.services) != bool(settings.service_audience):
            raise Invalid("services and service_audience go together.")
        self.settings = settings
        self._secret = _secret(settings.client_secret_file)
        self._fetcher = Fetcher(settings.ca_file, settings.timeout_s)
        self._knowledge = Knowledge(settings, self._fetcher)
        self._clock = clock

    async def address(self, challenge: Challenge) -> str:
        """Return where to send a browser."""
        place = (await self._knowledge.places()).authorization
        digest = hashlib.sha256(challenge.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": challenge.state,
            "nonce": challenge.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return _with(place, asked)

    async def identity(self, code: str, issuer: str | None, challenge: Challenge) -> Identity:
        """Exchange a code for an ID token, and return who that says it is."""
        places = await self._knowledge.places()
        if issuer is None and places.says_issuer:
            raise IdentityRefused  # RFC 9207: it always says so, so this answer is another's
        if issuer not in {None, self.settings.issuer} or len(code) > _LONGEST_CODE:
            raise IdentityRefused
        told = await self._exchanged(places.token, code, challenge)
        token, access = told.get("id_token"), told.get("access_token")
        if not isinstance(token, str):
            raise IdentityRefused
        _header, claims = await self._said(token)
        check_id_token(claims, self.settings, challenge.nonce, self._clock())
        if self.settings.userinfo and isinstance(access, str):
            if not places.userinfo:
                raise ProviderUnavailable("The identity provider has no userinfo_endpoint.")
            more = await self._fetcher.get(places.userinfo, bearer=access)
            if more.get("sub") != claims["sub"]:
                raise IdentityRefused  # OpenID Connect Core, 5.3.2
            claims = more | claims
        return _identity(claims, self.settings)

    async def service(self, token: str) -> str:
        """Return the name of the service that an access token stands for."""
        try:
            header, claims = await self._said(token)
            subject = check_access_token(header, claims, self.settings, self._clock())
        except IdentityRefused as error:
            raise Unauthenticated from error
        name = self.settings.services.get(subject)
        if name is None:
            raise Unauthenticated
        return name

    async def logout_address(self) -> str | None:
        """Return where people log out of the provider."""
        place = (await self._knowledge.places()).end_session
        if not place:
            return None
        back = {"post_logout_redirect_uri": self.settings.logout_uri} if self.settings.logout_uri else {}
        return _with(place, {"client_id": self.settings.client_id, **back})

    async def close(self) -> None:
        """Let go of connections."""
        await self._fetcher.close()

    async def _exchanged(self, place: str, code: str, challenge: Challenge) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_uri,
            "code_verifier": challenge.verifier,
        }
        basic = None
        if self._secret and self.settings.client_auth == "client_secret_basic":
            basic = (self.settings.client_id, self._secret)
        else:
            form |= {"client_id": self.settings.client_id} | ({"client_secret": self._secret} if self._secret else {})
        status, told = await self._fetcher.post(place, form, basic)
        if status != httpx.codes.OK:
            raise IdentityRefused
        return told

    async def _said(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return header and claims of a token; where its key is not known, the keys are fetched again."""
        keys: Keys = await self._knowledge.keys()
        try:
            return said(token, keys, self.settings)
        except UnknownKey:
            return said(token, await self._knowledge.keys(missing=True), self.settings)


def _identity(claims: Mapping[str, Any], settings: OidcSettings) -> Identity:
    groups = claims.get(settings.groups_claim, [])
    groups = [groups] if isinstance(groups, str) else groups
    if not isinstance(groups, list) or len(groups) > _MOST_GROUPS:
        raise IdentityRefused("The identity provider's list of groups cannot be used.")
    return Identity(
        subject=claims["sub"],
        email=_text(claims, "email"),
        email_verified=claims.get("email_verified") is True,
        name=_text(claims, settings.name_claim),
        display_name=_text(claims, "name"),
        groups=frozenset(one for one in groups if isinstance(one, str)),
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _with(place: str, asked: Mapping[str, str]) -> str:
    return f"{place}{'&' if urlsplit(place).query else '?'}{urlencode(asked)}"


def _secret(file: str) -> str:
    if not file:
        return ""
    try:
        secret = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("The file of client_secret_file cannot be read.") from error
    if not secret:
        raise Invalid("The file of client_secret_file is empty.")
    return secret
