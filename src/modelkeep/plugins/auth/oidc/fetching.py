"""HTTP to an identity provider: TLS with its authority, no redirects, no proxies, and bounds on time and size."""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import httpx
import msgspec

from modelkeep.contracts.auth import ProviderUnavailable
from modelkeep.contracts.errors import Invalid

_LARGEST: Final = 512 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def checked_address(text: str, what: str) -> str:
    """Return an address that may be asked; raises `Invalid` for one that leaves this machine without TLS."""
    try:
        parts = urlsplit(text)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        if not safe or not parts.hostname or parts.username is not None or parts.fragment:
            raise Invalid(f"{what} must be an https address, without a user or a fragment.")
    except ValueError as error:
        raise Invalid(f"{what} must be an https address, without a user or a fragment.") from error
    return text


class Fetcher:
    """Asks one provider."""

    def __init__(self, ca_file: str, timeout_s: float) -> None:
        try:
            tls = ssl.create_default_context(cafile=ca_file or None)
        except OSError as error:  # ssl.SSLError is one
            raise Invalid("The file of ca_file cannot be read as certificates (PEM).") from error
        limits = httpx.Limits(max_connections=10, max_keepalive_connections=2)
        self._http = httpx.AsyncClient(verify=tls, trust_env=False, follow_redirects=False, timeout=timeout_s, limits=limits)
        self._timeout_s = timeout_s

    async def get(self, address: str, *, bearer: str | None = None) -> dict[str, Any]:
        """Return the JSON object at an address; raises `ProviderUnavailable`."""
        headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        status, told = await self._asked(self._http.build_request("GET", address, headers=headers))
        if status != httpx.codes.OK:
            raise ProviderUnavailable
        return told

    async def post(
        self, address: str, form: Mapping[str, str], basic: tuple[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return status and JSON object of the answer to a form; raises `ProviderUnavailable`, also for a status of 5xx."""
        headers = {}
        if basic is not None:
            pair = ":".join(quote_plus(part) for part in basic)  # form-encoded before Base64: RFC 6749, 2.3.1
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return await self._asked(self._http.build_request("POST", address, data=dict(form), headers=headers))

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def _asked(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        request.headers["accept"] = "application/json"
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.send(request, stream=True)
                try:
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if len(body) > _LARGEST:
                            raise ProviderUnavailable("The identity provider's answer is too large.")
                finally:
                    await answer.aclose()
        except (httpx.HTTPError, TimeoutError, httpx.InvalidURL) as error:
            raise ProviderUnavailable from error
        if answer.is_server_error or answer.is_redirect:
            raise ProviderUnavailable
        try:
            return answer.status_code, msgspec.json.decode(bytes(body), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ProviderUnavailable("The identity provider's answer is no JSON object.") from error
