"""The web console: files that were built with the package, served as they are.

All of them are read at the start, so that what was not there then cannot be asked for, whatever a path says. A page is the one
`index.html`, which draws what its address names. It is for browsers alone: whoever else asks for an address that there is not
is told so. Pages and their parts say nothing that is not in the package, so nobody has to show a key for them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import PurePath
from secrets import token_urlsafe
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from modelkeep.api.errors import NoSuchRoute, respond
from modelkeep.contracts.errors import NotFound
from modelkeep.infra import headers

PROGRAMS: Final = frozenset(
    {
        *("api", "v1", "v2", "predict", "info", "health", "healthz", "readyz", "metrics", "invocations", "ping", "version"),
        *("endpoints", "serving-endpoints", "docs", "redoc", "openapi.json", "static-offline-docs"),
    }
)
"""What the addresses begin with that are no pages of the console."""

_PAGE: Final = "index.html"
_ASSETS: Final = "assets"
_PACKED: Final = ".gz"
_TYPES: Final = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".png": "image/png",
}
_UNKNOWN: Final = "application/octet-stream"
_PLACE: Final = b"%nonce%"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; connect-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_FOR_EVER: Final = "public, max-age=31536000, immutable"  # a name says what is in it
_NOT_GZIP: Final = re.compile(rb"\s*q\s*=\s*0(\.0*)?\s*")


class ConsoleNotBuilt(NotFound):
    """This installation has no web console: the package has one, and in a checkout `make web` builds it."""

    code = "console_not_built"


@dataclass(frozen=True)
class Part:
    """A file of the console, also as gzip has it; `packed` is empty where that does not pay."""

    media_type: str
    content: bytes
    packed: bytes = b""


@dataclass(frozen=True)
class Built:
    """The console as it was built; `page` is empty where it was not."""

    page: bytes = b""
    parts: Mapping[str, Part] = field(default_factory=dict)


def read(folder: Traversable) -> Built:
    """Read what was built into `folder`."""
    if not folder.joinpath(_PAGE).is_file():
        return Built()
    files = {one.name: one.read_bytes() for one in folder.joinpath(_ASSETS).iterdir() if one.is_file()}
    parts = {
        f"/{_ASSETS}/{name}": Part(_TYPES.get(PurePath(name).suffix, _UNKNOWN), content, files.get(name + _PACKED, b""))
        for name, content in files.items()
        if not name.endswith(_PACKED)
    }
    return Built(folder.joinpath(_PAGE).read_bytes(), parts)


class Console:
    """Answers what is asked of the console, and passes on all else."""

    def __init__(self, app: ASGIApp, built: Built) -> None:
        self._app = app
        self._built = built

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        answer = self._answer(scope) if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} else None
        await (answer or self._app)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        path, given = scope["path"], headers.by_name(scope["headers"])
        first = path.split("/")[1] if path.startswith("/") else path
        if first == _ASSETS:
            part = self._built.parts.get(path)
            return _file(part, given) if part else respond(NoSuchRoute(), scope["state"]["request_id"], path)
        if path != "/" and (first in PROGRAMS or b"text/html" not in given.get(b"accept", b"")):
            return None
        if not self._built.page:
            return respond(ConsoleNotBuilt(), scope["state"]["request_id"], path)
        return _page(self._built.page)


def _page(page: bytes) -> Response:
    """Return the page with a word of its own, that its policy asks of every style element.

    It has no ETag: a kept page that is called good would keep its word, beside a policy with another.
    """
    nonce = token_urlsafe(16)
    told = {"content-security-policy": _POLICY.format(nonce=nonce), "cache-control": "no-cache", "vary": "accept"}
    return Response(page.replace(_PLACE, nonce.encode()), headers=told, media_type="text/html")


def _file(part: Part, given: headers.Headers) -> Response:
    told = {"cache-control": _FOR_EVER}
    if part.packed:
        told["vary"] = "accept-encoding"
    if part.packed and _takes_gzip(given.get(b"accept-encoding", b"")):
        told["content-encoding"] = "gzip"
        return Response(part.packed, headers=told, media_type=part.media_type)
    return Response(part.content, headers=told, media_type=part.media_type)


def _takes_gzip(accepted: bytes) -> bool:
    """Whether gzip is among the content codings that somebody takes, and not as one that they do not."""
    for one in accepted.lower().split(b","):
        name, _semicolon, weight = one.partition(b";")
        if name.strip() == b"gzip":
            return not _NOT_GZIP.fullmatch(weight)
    return False
