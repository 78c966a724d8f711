"""Error kinds as gRPC statuses: one table, beside that of HTTP in `infra/problems.py`."""

from typing import Final

import grpc
import msgspec

from modelkeep.contracts.errors import (
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    Kind,
    Limited,
    ModelkeepError,
    NotFound,
    StorageFull,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from modelkeep.infra.problems import STATUS, status_and_headers

STATUSES: Final[dict[Kind, grpc.StatusCode]] = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    Kind.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.STALE: grpc.StatusCode.ABORTED,
    Kind.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself says of a message that is too large
    Kind.MISDIRECTED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}

Metadata = tuple[tuple[str, str], ...]

_ERRORS: Final = {
    STATUS[one.kind]: one
    for one in (
        *(Invalid, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, Limited, Unavailable, StorageFull, Timeout),
        Internal,
    )
}
_TOLD: Final = ("retry-after", "ratelimit-policy", "ratelimit")
_LONGEST: Final = 1000
_CALLERS, _OURS = 400, 500


class _Refusal(msgspec.Struct):
    """An error over HTTP, as the protocol has it or as a problem document."""

    error: str = ""
    detail: str = ""


def status_of(error: ModelkeepError) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return how a refusal is told: status, sentence, and trailing metadata."""
    _status, headers = status_and_headers(error)
    return STATUSES[error.kind], _short(error.message), tuple((name, headers[name]) for name in _TOLD if name in headers)


def raise_refused(status: int, body: bytes, retry_after: bytes) -> None:
    """Raise what an answer over HTTP refuses, if it does."""
    if status < _CALLERS:
        return
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Refusal()
    error = _ERRORS.get(status, Invalid if status < _OURS else Internal)
    raise error(said.error or said.detail or None, retry_after_s=float(retry_after) if retry_after.isdigit() else None)


def _short(sentence: str) -> str:
    """Return a sentence that fits among the metadata, of which clients take little."""
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 3]}..."
