"""Checks what an OpenID provider has signed: ID tokens (OpenID Connect Core, 3.1.3.7) and access tokens (RFC 9068).

A token names its key among those of the provider, and nothing more: what a header says of other keys or addresses (`jwk`,
`jku`, `x5u`) is not read, and its algorithm must be one that the settings allow and that fits the key. A key is never
symmetric, so a public key is no secret to sign with.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError

from modelkeep.contracts.auth import IdentityRefused, OidcSettings

_LONGEST: Final = 64 * 1024
_SHORTEST_RSA: Final = 2048
_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}

Key = jwk.RSAKey | jwk.ECKey | jwk.OKPKey


class UnknownKey(IdentityRefused):
    """This token was signed with a key that is not among the provider's: log in again."""


class Keys:
    """A provider's public keys for signatures; others in its set are left out."""

    def __init__(self, published: Mapping[str, Any]) -> None:
        entries = published.get("keys")
        found = entries if isinstance(entries, list) else []
        self._keys = [key for key in map(_usable, found) if key is not None]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def chosen(self, kid: object, algorithm: str) -> Key:
        """Return the one key that a header means; raises `UnknownKey`."""
        fitting = [key for said, only, key in self._keys if kid in {None, said} and only in {None, algorithm}]
        fitting = [key for key in fitting if key.key_type == _KINDS.get(algorithm[:2])]
        if len(fitting) != 1:
            raise UnknownKey
        return fitting[0]


def _usable(entry: object) -> tuple[str | None, str | None, Key] | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwk.JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError):
        return None  # of a kind that we do not know
    if isinstance(key, jwk.OctKey) or key.is_private:
        return None
    if isinstance(key, jwk.RSAKey) and key.raw_value.key_size < _SHORTEST_RSA:
        return None
    return entry.get("kid"), entry.get("alg"), key


def said(token: str, keys: Keys, settings: OidcSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token that the provider has signed; raises `IdentityRefused`."""
    if len(token) > _LONGEST or not token.isascii():
        raise IdentityRefused
    try:
        header = jws.extract_compact(token.encode()).headers()
        algorithm = header.get("alg")
        if algorithm not in settings.algorithms:
            raise IdentityRefused
        key = keys.chosen(header.get("kid"), algorithm)
        found = jwt.decode(token, key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise IdentityRefused from error
    return dict(found.header), dict(found.claims)


def check_time(claims: Mapping[str, Any], settings: OidcSettings, now: datetime) -> None:
    """Raise `IdentityRefused` unless it is the token's time, by clocks that may be `skew_s` apart."""
    at, skew = now.timestamp(), settings.skew_s
    expires, issued, begins = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in (expires, issued, begins)):
        raise IdentityRefused
    if at >= claims["exp"] + skew or at < claims["iat"] - skew or at < begins - skew:
        raise IdentityRefused


def check_id_token(claims: Mapping[str, Any], settings: OidcSettings, nonce: str, now: datetime) -> None:
    """Raise `IdentityRefused` unless an ID token is for us, of this login, and of this time."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp")
    if claims.get("iss") != settings.issuer or settings.client_id not in audiences:
        raise IdentityRefused
    if party not in {None, settings.client_id} or (len(audiences) > 1 and party is None):
        raise IdentityRefused
    if claims.get("nonce") != nonce or not _subject(claims):
        raise IdentityRefused
    check_time(claims, settings, now)


def check_access_token(header: Mapping[str, Any], claims: Mapping[str, Any], settings: OidcSettings, now: datetime) -> str:
    """Return the subject of an access token for services here; raises `IdentityRefused`."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    kind = str(header.get("typ", "")).lower().removeprefix("application/")
    if kind not in {"at+jwt", "jwt"} or "nonce" in claims:  # an ID token is no access token
        raise IdentityRefused
    if claims.get("iss") != settings.issuer or settings.service_audience not in audiences:
        raise IdentityRefused
    check_time(claims, settings, now)
    return _subject(claims)


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    return subject if isinstance(subject, str) and len(subject) <= 255 else ""  # noqa: PLR2004 - OpenID Connect Core, 2
