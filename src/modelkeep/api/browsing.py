"""What browsers are told about the answers of the control plane: what pages may load, who may frame them, what is not kept."""

import base64
import hashlib
import re
from typing import Final

from starlette.datastructures import MutableHeaders

PAGES: Final = frozenset({"/docs", "/redoc"})
_ALWAYS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_PRIVATE: Final = "no-store"
_PROGRAMS: Final = ("/api/", "/v2/")
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_FROM_HERE: Final = (
    "default-src 'self'; script-src 'self'{scripts}; style-src 'self'{styles}; img-src 'self' data:; font-src 'self' data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""For the pages of the documentation, whose scripts name other people's servers: nothing of theirs."""
_EMPTY: Final = b""  # a script of the page makes a style element without text, and adds rules to it
_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


def harden(headers: MutableHeaders, path: str) -> None:
    """Add to the headers of an answer what its page may do, and that it is not to be kept; a page's policy follows."""
    for name, value in _ALWAYS.items():
        headers[name] = value
    headers.setdefault("content-security-policy", _NOTHING)
    if path.startswith(_PROGRAMS):
        headers.setdefault("cache-control", _PRIVATE)


def policy(page: bytes) -> str:
    """Return the policy of a page: what comes from here, and the very scripts and styles that stand in it."""
    return _FROM_HERE.format(scripts=_hashes(_SCRIPT.findall(page)), styles=_hashes([*_STYLE.findall(page), _EMPTY]))


def _hashes(texts: list[bytes]) -> str:
    return "".join(f" 'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in texts)
