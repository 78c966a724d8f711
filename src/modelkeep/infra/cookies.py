"""Sessions of browsers: cookies that no script can read, and what keeps other people's pages from using them.

A login of a browser puts the access token into one cookie and the refresh token into another, which goes to the addresses that
use it and nowhere else. Both are `HttpOnly`, `Secure` and `SameSite=Strict`, and bound to this host by their names' prefixes
(RFC 6265bis). What changes something asks for a header beside the cookie: a digest of the access token, which the page is told
in an answer that no other page can read. So there is nothing to keep, and every server can check it.
"""

import base64
import hashlib
import hmac
from typing import Final

from modelkeep.contracts.errors import Forbidden
from modelkeep.infra.headers import Headers

ACCESS: Final = "__Host-modelkeep"
REFRESH: Final = "__Secure-modelkeep-refresh"
REFRESH_PATH: Final = "/api/v1/auth/browser"
CSRF_HEADER: Final = "x-csrf-token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FROM_HERE: Final = frozenset({b"same-origin", b"none"})


class CsrfRefused(Forbidden):
    """What a browser's session changes needs its X-CSRF-Token, from a page of ours: GET /api/v1/auth/browser tells it."""

    code = "csrf_refused"


def csrf_token(access: bytes) -> str:
    """Return what a page shows beside this access token to change something."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"modelkeep csrf 1 " + access).digest()).rstrip(b"=").decode()


def presented(headers: Headers, method: str) -> bytes | None:
    """Return the access token of a browser's session, None where there is none; raises `CsrfRefused`."""
    given = headers.get(b"cookie")
    token = cookie(given, ACCESS) if given else None
    if token is None or method in _SAFE:
        return token
    check_page(headers)
    if not hmac.compare_digest(headers.get(CSRF_HEADER.encode(), b""), csrf_token(token).encode()):
        raise CsrfRefused
    return token


def check_page(headers: Headers) -> None:
    """Raise `CsrfRefused` where a browser says that another site's page asks (Fetch Metadata); older ones do not say."""
    if headers.get(b"sec-fetch-site", b"same-origin") not in _FROM_HERE:
        raise CsrfRefused


def cookie(given: bytes, name: str) -> bytes | None:
    """Return the value of a cookie; None where it is missing or empty, and where somebody has put another beside it."""
    wanted, found = name.encode(), []
    for part in given.split(b";"):
        said, _equals, value = part.strip().partition(b"=")
        if said == wanted:
            found.append(value)
    return found[0] or None if len(found) == 1 else None


def kept(name: str, value: str, seconds: int) -> str:
    """Return the `Set-Cookie` that keeps a cookie for so long; 0 forgets it."""
    path = REFRESH_PATH if name == REFRESH else "/"
    return f"{name}={value}; Max-Age={seconds}; Path={path}; Secure; HttpOnly; SameSite=Strict"
