"""Error kinds as HTTP: the status, and the RFC 9457 problem document that both HTTP doors answer with."""

import math

import msgspec

from modelkeep.contracts.errors import ApprovalNeeded, FieldError, Kind, Limited, MethodNotAllowed, ModelkeepError, Stale
from modelkeep.infra.rates import TINY_S

STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.NOT_ALLOWED: 405,
    Kind.CONFLICT: 409,
    Kind.STALE: 409,
    Kind.TOO_LARGE: 413,
    Kind.MISDIRECTED: 421,
    Kind.LIMITED: 429,
    Kind.INTERNAL: 500,
    Kind.UNAVAILABLE: 503,
    Kind.TIMEOUT: 504,
    Kind.STORAGE_FULL: 507,
}
TITLE: dict[Kind, str] = {
    Kind.INVALID: "Invalid request",
    Kind.UNAUTHENTICATED: "Not authenticated",
    Kind.FORBIDDEN: "Not allowed",
    Kind.NOT_FOUND: "Not found",
    Kind.NOT_ALLOWED: "Method not allowed",
    Kind.CONFLICT: "Conflict",
    Kind.STALE: "Changed meanwhile",
    Kind.TOO_LARGE: "Too large",
    Kind.MISDIRECTED: "Misdirected request",
    Kind.LIMITED: "Too many requests",
    Kind.INTERNAL: "Internal error",
    Kind.UNAVAILABLE: "Not available now",
    Kind.TIMEOUT: "Out of time",
    Kind.STORAGE_FULL: "Storage full",
}
CONTENT_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document. `errors` names the fields at fault, never their values; `approval` what another person may approve.

    `revision` is the one that a thing is at which was changed meanwhile.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str = ""
    errors: tuple[FieldError, ...] = ()
    approval: str = ""
    revision: int | None = None


def status_and_headers(error: ModelkeepError) -> tuple[int, dict[str, str]]:
    """Return what every HTTP answer to `error` says, whatever the shape of its body."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s - TINY_S)))
    if isinstance(error, Limited):
        headers |= error.headers
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers["allow"] = ", ".join(error.allow)
    if error.kind is Kind.UNAUTHENTICATED:
        headers["www-authenticate"] = 'Bearer realm="modelkeep"'
    return STATUS[error.kind], headers


def bare(error: ModelkeepError) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body for `error` in protocols whose errors are `{"error": "..."}`."""
    return *status_and_headers(error), msgspec.json.encode({"error": error.message})


def problem(error: ModelkeepError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body for `error`."""
    status, headers = status_and_headers(error)
    approval = error.approval if isinstance(error, ApprovalNeeded) else ""
    revision = error.revision if isinstance(error, Stale) else None
    kind, title = f"urn:modelkeep:error:{error.code}", TITLE[error.kind]
    body = Problem(kind, title, status, error.code, error.message, request_id, error.fields, approval, revision)
    return status, {"content-type": CONTENT_TYPE, **headers}, msgspec.json.encode(body)
