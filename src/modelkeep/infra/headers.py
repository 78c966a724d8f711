"""What both HTTP doors read from a request's headers: who presents a key, and the id that the request goes by.

Headers are a mapping from lower-case names to values, both as bytes, as ASGI delivers them.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

from modelkeep.contracts.ids import new_id

Headers = Mapping[bytes, bytes]

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE_PARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_BEARER: Final = b"bearer "
_BASIC: Final = b"basic "
_SIGNED: Final = re.compile(rb"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/")


def by_name(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return header fields by their names: of several with one name the last, of cookies all, as one line has them."""
    headers = dict(fields)
    if b"cookie" in headers:
        headers[b"cookie"] = b"; ".join(value for name, value in fields if name == b"cookie")
    return headers


def presented_key(headers: Headers) -> bytes | None:
    """Return the key of `X-API-Key`, of `Authorization: Bearer`, or the access key id of an AWS signature; or None.

    The signature itself is not checked: see docs/decisions/0022-sigv4-carries-a-key.md.
    """
    key = headers.get(b"x-api-key")
    if key:
        return key
    given = headers.get(b"authorization")
    if given is None:
        return None
    if given[: len(_BEARER)].lower() == _BEARER:
        return given[len(_BEARER) :].strip() or None
    signed = _SIGNED.match(given)
    return signed[1] if signed else None


def presented_password(headers: Headers) -> bytes | None:
    """Return the password of HTTP Basic, or None: the only way in which a browser by itself can send a key."""
    given = headers.get(b"authorization", b"")
    if given[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        return base64.b64decode(given[len(_BASIC) :], validate=True).partition(b":")[2] or None
    except binascii.Error:
        return None


def given_request_id(headers: Headers) -> str | None:
    """Return the caller's request id when it is a decent one, else the trace id of `traceparent`, else None."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    parent = headers.get(b"traceparent")
    trace = _TRACE_PARENT.fullmatch(parent) if parent is not None else None
    return trace[1].decode() if trace else None


def decent_request_id(given: bytes) -> str | None:
    """Return what a caller names its request by, where it may stand in a header and in the log; else None."""
    return given.decode() if _REQUEST_ID.fullmatch(given) else None


def request_id(headers: Headers) -> str:
    """Return the id that the caller gave its request, or a new one."""
    return given_request_id(headers) or new_id("req")
