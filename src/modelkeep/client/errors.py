"""What can go wrong for a caller of Modelkeep, one class for each thing to do about it.

    ModelkeepError
    ├── Invalid             the request is wrong: change it
    │   └── TooLarge            make it smaller
    ├── NotAuthenticated    give a valid API key, or log in
    ├── NotAllowed          the key may not do that
    ├── NotFound            there is no such thing
    ├── Conflict            it clashes with what is there
    │   └── Stale               it was changed meanwhile: read it again
    ├── Rejected            the uploaded version was refused; `.version` has it, `.advice` says what to change
    ├── Unavailable         not now: try again later
    │   ├── Limited             asked too often
    │   ├── TimedOut            it took too long
    │   └── ServerUnreachable   no server answers at that address
    └── ServerFailed        something went wrong inside the server

Codes that a program acts upon have classes of their own below these: `ModelNotFound`, `Overloaded`, `VersionNotReady` and so
on. Every error has a stable `code`, a `message` and, where a server answered, its HTTP `status`, the `request_id` that finds it
in the server's log, the `fields` at fault (path, code, message) and, where the server says so, `retry_after_s`, the seconds to
wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import httpx

    from modelkeep.client.results import Version


@dataclass(frozen=True)
class Field:
    """One part of the request at fault: where (`inputs[0][3]`), a stable code, and a sentence."""

    path: str
    code: str
    message: str


class ModelkeepError(Exception):
    """Something went wrong."""

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str = "",
        fields: Sequence[Field] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status
        self.request_id = request_id
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s
        self.hint = ""  # what this caller can do about it, added by whoever knows the caller


class Invalid(ModelkeepError):
    """The request is wrong: change it."""

    default_code = "invalid_request"


class TooLarge(Invalid):
    """The request is larger than the server allows."""

    default_code = "too_large"


class NotAuthenticated(ModelkeepError):
    """The server wants a valid API key, or somebody who has logged in."""

    default_code = "unauthenticated"


class NotAllowed(ModelkeepError):
    """The key may not do that."""

    default_code = "forbidden"


class NotFound(ModelkeepError):
    """There is nothing by that name."""

    default_code = "not_found"


class Conflict(ModelkeepError):
    """The request clashes with what is already there."""

    default_code = "conflict"


class Stale(Conflict):
    """It was changed since it was read: read it again, then repeat the change."""

    default_code = "stale"


class Unavailable(ModelkeepError):
    """It cannot be done now: try again later."""

    default_code = "unavailable"


class Limited(Unavailable):
    """Too many requests: wait, then try again."""

    default_code = "rate_limited"


class TimedOut(Unavailable):
    """It took too long."""

    default_code = "timeout"


class ServerUnreachable(Unavailable):
    """No Modelkeep server answers at that address. `passing`: it may do so soon; `sent`: the request may have arrived."""

    default_code = "server_unreachable"

    def __init__(
        self, message: str, *, code: str = "", status: int | None = None, passing: bool = False, sent: bool = False
    ) -> None:
        super().__init__(message, code=code, status=status)
        self.passing = passing
        self.sent = sent


class ServerFailed(ModelkeepError):
    """Something went wrong inside the server."""

    default_code = "internal"


class Rejected(ModelkeepError):
    """The uploaded version was refused; `advice` says what to change."""

    default_code = "rejected"

    def __init__(self, version: "Version") -> None:
        rejection = version.rejection
        self.version = version
        self.detail = rejection.detail if rejection else ""
        self.advice = rejection.advice if rejection else ""
        said = " ".join(part for part in (self.detail, self.advice) if part)
        super().__init__(
            f"{version.model} version {version.number} was rejected. {said}".rstrip(),
            code=rejection.code if rejection else "",
        )


class InvalidInput(Invalid):
    """The inputs do not fit the model's signature: `fields` says where."""

    default_code = "invalid_input"


class UnsupportedFormat(Invalid):
    """Files of this format are not served there."""

    default_code = "unsupported_format"


class ModelNotFound(NotFound):
    """There is no model with this name."""

    default_code = "model_not_found"


class VersionNotFound(NotFound):
    """The model has no version with this number."""

    default_code = "version_not_found"


class DeploymentNotFound(NotFound):
    """No deployment of this name answers."""

    default_code = "deployment_not_found"


class PredictionNotFound(NotFound):
    """The history has no such prediction, or has it no longer."""

    default_code = "prediction_not_found"


class ModelExists(Conflict):
    """There is a model with this name already."""

    default_code = "model_exists"


class ModelArchived(Conflict):
    """The model is archived: `restore` takes it back."""

    default_code = "model_archived"


class ApprovalNeeded(Conflict):
    """It needs a second person: once another has approved `approval` (`approve`), repeat the same call."""

    default_code = "approval_needed"
    approval = ""


class VersionNotReady(Conflict):
    """The version is not validated yet, or was rejected."""

    default_code = "version_not_ready"


class VersionInUse(Conflict):
    """A deployment serves this version: promote another first."""

    default_code = "version_in_use"


class CodeFormatsOff(NotAllowed):
    """The installation takes no files that can run code when they are loaded."""

    default_code = "code_formats_off"


class Overloaded(Unavailable):
    """More requests wait for this model than its queue may hold."""

    default_code = "overloaded"


class RunnerLost(Unavailable):
    """The process that runs the model died while it worked on the request."""

    default_code = "runner_lost"


class VersionLoading(Unavailable):
    """The model is still being loaded."""

    default_code = "version_loading"


class VersionQuarantined(Unavailable):
    """The process that runs the model died too often and is held back."""

    default_code = "version_quarantined"


class ModelMemoryLimit(Unavailable):
    """The inputs needed more memory than the model may have: send fewer rows."""

    default_code = "model_memory_limit"


class StorageFull(Unavailable):
    """The server's disk is full: nothing was stored."""

    default_code = "storage_full"


class DeadlineExceeded(TimedOut):
    """The server did not come to an answer within the deadline."""

    default_code = "deadline_exceeded"


class ModelFailed(ServerFailed):
    """The model raised an error on these inputs; its log has the reason."""

    default_code = "model_failed"


def _below(kind: type[ModelkeepError]) -> list[type[ModelkeepError]]:
    return [one for child in kind.__subclasses__() for one in (child, *_below(child))]


BY_CODE: dict[str, type[ModelkeepError]] = {
    one.default_code: one for one in _below(ModelkeepError) if one not in {Rejected, ServerUnreachable}
}
"""The class for each code of a server's answer that has one of its own."""

_BY_STATUS: dict[int, type[ModelkeepError]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNAUTHORIZED: NotAuthenticated,
    HTTPStatus.FORBIDDEN: NotAllowed,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.PRECONDITION_FAILED: Stale,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: Limited,
    HTTPStatus.BAD_GATEWAY: Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
    HTTPStatus.GATEWAY_TIMEOUT: TimedOut,
    HTTPStatus.INSUFFICIENT_STORAGE: Unavailable,
}


def error_from(response: "httpx.Response") -> ModelkeepError:
    """Return the error that a problem document describes; an answer of another kind is no Modelkeep server's."""
    document = _problem(response)
    if document is None:
        return not_modelkeep(response)
    code = str(document.get("code", ""))
    kind, named = _class_for(response.status_code), BY_CODE.get(code)
    if named is not None and issubclass(named, kind):
        kind = named
    fields = document.get("errors")
    error = kind(
        str(document.get("detail") or document.get("title") or f"HTTP {response.status_code}"),
        code=code,
        status=response.status_code,
        request_id=str(document.get("request_id") or response.headers.get("x-request-id", "")),
        fields=[_field(entry) for entry in fields if isinstance(entry, dict)] if isinstance(fields, list) else (),
        retry_after_s=seconds_in(response.headers.get("retry-after", "")),
    )
    if isinstance(error, ApprovalNeeded):
        error.approval = str(document.get("approval", ""))
    return error


def not_modelkeep(response: "httpx.Response") -> ServerUnreachable:
    """Return the error for an answer that Modelkeep does not give: most often the port is another program's."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    return ServerUnreachable(
        f"{response.request.url.copy_with(path='/', query=None)} answers, but not as Modelkeep does "
        f"(HTTP {response.status_code}, {kind}). Check the address and the port.",
        code="not_modelkeep",
        status=response.status_code,
    )


def _class_for(status: int) -> type[ModelkeepError]:
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    return Invalid if status < HTTPStatus.INTERNAL_SERVER_ERROR else ServerFailed


def _problem(response: "httpx.Response") -> dict[str, object] | None:
    if "json" not in response.headers.get("content-type", ""):
        return None
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) and "code" in document else None


def _field(entry: dict[str, object]) -> Field:
    return Field(str(entry.get("path", "")), str(entry.get("code", "")), str(entry.get("message", "")))


def seconds_in(header: str, now: datetime | None = None) -> float | None:
    """Return the seconds that `Retry-After` means, a number or an HTTP date (RFC 9110, 10.2.3); None where it is neither."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
