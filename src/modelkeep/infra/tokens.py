"""Access tokens: JSON Web Tokens, signed with Ed25519 (RFC 7519, 8037, 9068), which anyone can check with the published keys.

Nothing in a token chooses how it is checked. A token's first part is the same for all that one key signs, so it is not read: it
is looked up, whole, among those of the keys that are known here. What begins otherwise is no token of ours, whatever its `alg`,
`kid`, `jku` or `jwk` would say.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.snapshot import Signer
from modelkeep.infra.site_key import SiteKey

AUDIENCE: Final = "modelkeep"
ACCESS_LIFE: Final = timedelta(minutes=30)
SKEW: Final = timedelta(seconds=60)
"""How far the clocks of an installation's machines may be apart: a token is good from so long before it was made."""
_ALGORITHM: Final = "EdDSA"
_KIND: Final = "at+jwt"
_NONCE: Final = 12
_LONGEST: Final = 4096


class Claims(msgspec.Struct, frozen=True):
    """What a token says."""

    iss: str
    aud: str
    sub: str
    sid: str
    jti: str
    iat: int
    nbf: int
    exp: int


class SigningKey(msgspec.Struct, frozen=True):
    """A pair of keys: `sealed` is the private one, which only this installation opens."""

    kid: str
    public: bytes
    sealed: bytes


class Issuer:
    """Makes the tokens of one installation, whose secret is `site_key`."""

    def __init__(self, site_key: SiteKey) -> None:
        self._names = [f"urn:modelkeep:{name.hex()}" for name in site_key.derive_all("issuer", 16)]
        self._ciphers = [AESGCM(key) for key in site_key.derive_all("session signing keys")]

    @property
    def names(self) -> tuple[str, ...]:
        """What its tokens call it: the first of them those that it makes now."""
        return tuple(self._names)

    def new_key(self) -> SigningKey:
        """Return a fresh pair of keys; its id is the thumbprint of the public one (RFC 7638)."""
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        thumb = b'{"crv":"Ed25519","kty":"OKP","x":"%s"}' % _encoded(public)
        kid = _encoded(hashlib.sha256(thumb).digest()).decode()
        return SigningKey(kid, public, self._sealed(private, kid))

    def resealed(self, key: SigningKey) -> SigningKey:
        """Return the key as the newest secret seals it, or as it is where that has; raises `InvalidTag` if it does not open."""
        with suppress(InvalidTag):
            self._ciphers[0].decrypt(key.sealed[:_NONCE], key.sealed[_NONCE:], key.kid.encode())
            return key
        return SigningKey(key.kid, key.public, self._sealed(self._private(key), key.kid))

    def opens(self, key: SigningKey) -> bool:
        """Whether the key can be used here: whether it was sealed with this installation's secret."""
        try:
            self._private(key)
        except InvalidTag:
            return False
        return True

    def sign(self, key: SigningKey, user: str, session: str, *, now: datetime, until: datetime) -> str:
        """Return a token for a user's session, which ends at `until`; raises `InvalidTag` for a key that does not open."""
        issued = int(now.timestamp())
        claims = Claims(
            iss=self._names[0],
            aud=AUDIENCE,
            sub=user,
            sid=session,
            jti=new_id("tok"),
            iat=issued,
            nbf=issued - int(SKEW.total_seconds()),
            exp=int(until.timestamp()),
        )
        signed = _head(key.kid) + b"." + _encoded(msgspec.json.encode(claims))
        return (signed + b"." + _encoded(self._private(key).sign(signed))).decode()

    def _private(self, key: SigningKey) -> Ed25519PrivateKey:
        for cipher in self._ciphers:
            with suppress(InvalidTag):
                opened = cipher.decrypt(key.sealed[:_NONCE], key.sealed[_NONCE:], key.kid.encode())
                return Ed25519PrivateKey.from_private_bytes(opened)
        raise InvalidTag

    def _sealed(self, private: Ed25519PrivateKey, kid: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, private.private_bytes_raw(), kid.encode())


class Verifier:
    """Checks tokens of these `issuers` with the public keys of these `signers`, which are made ready once."""

    def __init__(self, signers: Iterable[Signer], issuers: Collection[str]) -> None:
        self._signers = {_head(one.kid): (Ed25519PublicKey.from_public_bytes(one.public), one.good_until) for one in signers}
        self._issuers = frozenset(issuers)

    def may_sign(self, token: bytes) -> bool:
        """Whether a token begins as those of one of the signers do: its signature has to be computed to know more."""
        return token.partition(b".")[0] in self._signers

    def verified(self, token: bytes, at: float) -> Claims:
        """Return what a token says that is good at `at` (Unix seconds); raises `Unauthenticated`."""
        parts = token.split(b".")
        if len(parts) != 3 or len(token) > _LONGEST:  # noqa: PLR2004 - head, claims, signature
            raise Unauthenticated
        head, said, signature = parts
        public, good_until = self._signers.get(head, (None, None))
        if public is None or (good_until is not None and at >= good_until):
            raise Unauthenticated
        try:
            public.verify(_decoded(signature), head + b"." + said)
            claims = msgspec.json.decode(_decoded(said), type=Claims)
        except (InvalidSignature, binascii.Error, msgspec.DecodeError) as error:
            raise Unauthenticated from error
        if claims.iss not in self._issuers or claims.aud != AUDIENCE or not claims.nbf <= at < claims.exp:
            raise Unauthenticated
        return claims


def published(keys: Iterable[SigningKey]) -> dict[str, Any]:
    """Return the public keys as a JSON Web Key Set."""
    each = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": _ALGORITHM}
    return {"keys": [{**each, "kid": key.kid, "x": _encoded(key.public).decode()} for key in keys]}


def looks_like_one(secret: str) -> bool:
    """Whether a credential would be a token rather than a key."""
    return "." in secret


def _head(kid: str) -> bytes:
    return _encoded(msgspec.json.encode({"alg": _ALGORITHM, "kid": kid, "typ": _KIND}))


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    """Return what was encoded; raises `binascii.Error` for anything that `_encoded` would not write."""
    raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if _encoded(raw) != text:
        raise binascii.Error("not as it would be written")
    return raw
