"""What is known of an OpenID provider: where things are, and its public keys. Learnt once, and again when a key is new.

Pinned addresses and a pinned file of keys need no discovery, and so no way to the provider but for exchanging codes.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from modelkeep.contracts.auth import OidcSettings, ProviderUnavailable
from modelkeep.contracts.errors import Invalid
from modelkeep.plugins.auth.oidc.checking import Keys
from modelkeep.plugins.auth.oidc.fetching import Fetcher, checked_address

DISCOVERY: Final = "/.well-known/openid-configuration"
_GOOD_S: Final = 3600.0
_AGAIN_S: Final = 60.0
"""How long a key that is not known has no keys fetched again: whoever sends invented ones costs the provider nothing."""
_FAILED_S: Final = 2.0


class Places(NamedTuple):
    """Where things are at a provider; "" for what it has not."""

    authorization: str
    token: str
    jwks: str
    userinfo: str
    end_session: str
    says_issuer: bool = False


class Knowledge:
    """What is known of one provider."""

    def __init__(self, settings: OidcSettings, fetcher: Fetcher, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._places: Places | None = _pinned(settings)
        self._learnt_at = float("inf") if self._places else -_GOOD_S
        self._keys: Keys | None = None
        self._keys_at = self._failed_at = float("-inf")

    async def places(self) -> Places:
        """Return where things are; raises `ProviderUnavailable`."""
        async with self._lock:
            return await self._current_places()

    async def keys(self, *, missing: bool = False) -> Keys:
        """Return the keys, fetched again where one is missing, though not all the time; raises `ProviderUnavailable`."""
        async with self._lock:
            age = self._monotonic() - self._keys_at
            if self._keys is None or age >= _GOOD_S or (missing and age >= _AGAIN_S):
                found = Keys(await self._published())
                if not found:
                    raise ProviderUnavailable("The identity provider has published no usable key.")
                self._keys, self._keys_at = found, self._monotonic()
            return self._keys

    async def _current_places(self) -> Places:
        now = self._monotonic()
        if self._places is not None and now - self._learnt_at < _GOOD_S:
            return self._places
        try:
            told = await self._fetched(self._settings.issuer.rstrip("/") + DISCOVERY)
            places = _discovered(told, self._settings)
        except ProviderUnavailable:
            if self._places is None:
                raise
            return self._places  # what was true an hour ago is better than nothing
        self._places, self._learnt_at = places, now
        return places

    async def _published(self) -> dict[str, Any]:
        if not self._settings.jwks_file:
            return await self._fetched((await self._current_places()).jwks)
        try:
            raw = await asyncio.to_thread(Path(self._settings.jwks_file).read_bytes)
            return msgspec.json.decode(raw, type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise ProviderUnavailable("The file of jwks_file cannot be read.") from error

    async def _fetched(self, address: str) -> dict[str, Any]:
        """Fetch, unless that has failed a moment ago: who waits behind must not each wait for a timeout."""
        if self._monotonic() - self._failed_at < _FAILED_S:
            raise ProviderUnavailable
        try:
            return await self._fetcher.get(address)
        except ProviderUnavailable:
            self._failed_at = self._monotonic()
            raise


def _pinned(settings: OidcSettings) -> Places | None:
    if not settings.authorization_endpoint:
        return None
    if not settings.token_endpoint or not (settings.jwks_uri or settings.jwks_file):
        raise Invalid("With an authorization_endpoint go a token_endpoint, and a jwks_uri or a jwks_file.")
    given = {
        name: checked_address(address, name) if (address := getattr(settings, name)) else ""
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint")
    }
    return _places(given)


def _discovered(told: dict[str, Any], settings: OidcSettings) -> Places:
    """Return what a discovery document says; raises `ProviderUnavailable` unless it is this issuer's."""
    if told.get("issuer") != settings.issuer:
        raise ProviderUnavailable("The identity provider's discovery document is another issuer's.")
    found = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint"):
        address = getattr(settings, name) or told.get(name, "")
        optional = name in {"userinfo_endpoint", "end_session_endpoint"}
        try:
            found[name] = "" if optional and not address else checked_address(str(address), name)
        except Invalid as error:
            raise ProviderUnavailable(f"The identity provider's {name} cannot be used.") from error
    return _places(found, says_issuer=told.get("authorization_response_iss_parameter_supported") is True)


def _places(found: Mapping[str, str], *, says_issuer: bool = False) -> Places:
    return Places(
        authorization=found["authorization_endpoint"],
        token=found["token_endpoint"],
        jwks=found["jwks_uri"],
        userinfo=found["userinfo_endpoint"],
        end_session=found["end_session_endpoint"],
        says_issuer=says_issuer,
    )
