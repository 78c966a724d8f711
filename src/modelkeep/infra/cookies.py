"""Sessions of browsers: cookies that no script can read, and what keeps other people's pages from using them.

A login of a browser puts the access token into one cookie and the refresh token into another. Both are `HttpOnly`, `Secure` and
`SameSite=Strict`, and bound to this host by the prefix of their names (RFC 6265bis): no neighbour within the same domain can
set them. A neighbour's page can have them sent, so browsers have to say that a page of this host asks. What changes something
asks for a header as well: a digest of the access token, which the page is told in an answer that no other page can read. So
there is nothing to keep, and every server can check it.
"""

import base64
import hashlib
import hmac
from typing import Final

from modelkeep.contracts.errors import Forbidden
from modelkeep.infra.headers import Headers

ACCESS: Final = "__Host-modelkeep"
REFRESH: Final = "__Host-modelkeep-refresh"
CSRF_HEADER: Final = "x-csrf-token"
UNSHOWN: Final = frozenset({b"x-api-key", b"authorization", b"origin", b"sec-fetch-site"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FROM_HERE: Final = frozenset({b"same-origin", b"none"})


class CsrfRefused(Forbidden):
    """A browser's session is for pages of this host; to change something, add the X-CSRF-Token of GET /api/v1/auth/browser."""

    code = "csrf_refused"


def csrf_token(access: bytes) -> str:
    """Return what a page shows beside this access token to change something."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"modelkeep csrf 1 " + access).digest()).rstrip(b"=").decode()


def presented(headers: Headers, method: str, *, page: bool = False) -> bytes | None:
    """Return the access token of a browser's session, None where there is none; raises `CsrfRefused`.

    A `page` may also be gone to from elsewhere, which reads nothing and changes nothing.
    """
    given = headers.get(b"cookie")
    token = cookie(given, ACCESS) if given else None
    if token is None or (page and method in _SAFE and headers.get(b"sec-fetch-mode") == b"navigate"):
        return token
    check_page(headers)
    if method not in _SAFE and not hmac.compare_digest(headers.get(CSRF_HEADER.encode(), b""), csrf_token(token).encode()):
        raise CsrfRefused
    return token


def check_page(headers: Headers) -> None:
    """Raise `CsrfRefused` where a browser says that another host's page asks: by Fetch Metadata, older ones by `Origin`."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        here = site in _FROM_HERE
    else:
        here = origin is None or origin.partition(b"://")[2] == headers.get(b"host", b"").lower()
    if not here:
        raise CsrfRefused


def cookie(given: bytes, name: str) -> bytes | None:
    """Return the value of a cookie; None where it is missing or empty, and where somebody has put another beside it."""
    wanted, found = name.encode(), []
    for part in given.split(b";"):
        said, _equals, value = part.strip().partition(b"=")
        if said == wanted:
            found.append(value)
    return found[0] or None if len(found) == 1 else None


def shows_nothing(headers: Headers) -> bool:
    """Whether a request shows no credential of any kind, not even an empty one, and comes from no web page.

    For who comes so, something else may stand; a browser sends a certificate along with whatever any page asks.
    """
    if any(name in headers for name in UNSHOWN):
        return False
    return ACCESS.encode() not in headers.get(b"cookie", b"")


def kept(name: str, value: str, seconds: int) -> str:
    """Return the `Set-Cookie` that keeps a cookie for so long; 0 forgets it."""
    return f"{name}={value}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=Strict"
