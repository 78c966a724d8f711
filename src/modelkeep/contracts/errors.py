"""One tree of errors for the whole house.

    ModelkeepError
    ├── Invalid            the request is wrong: change it
    │   ├── InvalidName · InvalidInput · UnsupportedFormat
    ├── Unauthenticated    say who you are
    ├── Forbidden          you may not
    │   ├── WrongNetwork
    ├── NotFound           there is no such thing
    ├── MethodNotAllowed   it is there, for another method
    ├── Conflict           it clashes with what is there
    │   ├── Stale          it was changed since you looked
    │   └── ApprovalNeeded · IdempotencyKeyReused · IdempotencyKeyInUse · AnswerSealed
    ├── TooLarge           make it smaller
    ├── Limited            you asked too often
    ├── Unavailable        we cannot now: come back later
    │   ├── RunnerLost · VersionLoading · VersionQuarantined · Overloaded · StorageUnavailable · MasterKeyMissing
    ├── StorageFull        the disk is full
    ├── Timeout            it took too long
    └── Internal           our fault

An error has a *kind* (what the receiver should do), a stable *code* (documented in `docs/reference/errors.md`), a sentence
(its docstring, or the one given) and, where fields of the request are at fault, details that name the field and never its
value. Doors map kinds to their own dialect (HTTP status, exit code); no status codes live below the doors.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import ClassVar, Self

import msgspec


class Kind(StrEnum):
    """What the receiver of an error should do about it."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "method_not_allowed"
    MISDIRECTED = "misdirected"
    CONFLICT = "conflict"
    STALE = "stale"
    TOO_LARGE = "too_large"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    STORAGE_FULL = "storage_full"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class FieldError(msgspec.Struct, frozen=True):
    """One field at fault: where it is (`inputs[0][3]`), a stable code, and a sentence without its value."""

    path: str
    code: str
    message: str


class ModelkeepError(Exception):
    """Something went wrong."""

    kind: ClassVar[Kind] = Kind.INTERNAL
    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str | None = None,
        *,
        fields: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.message = message or " ".join((type(self).__doc__ or self.code).split())
        self.fields = fields
        self.retry_after_s = retry_after_s
        super().__init__(self.message)


class Invalid(ModelkeepError):
    """The request is not valid."""

    kind = Kind.INVALID
    code = "invalid_request"


class InvalidName(Invalid):
    """A name has 1 to 63 characters: small letters, digits, dot, underscore and hyphen; the first is a letter or a digit."""

    code = "invalid_name"


class InvalidInput(Invalid):
    """The inputs do not fit the model's signature."""

    code = "invalid_input"

    @classmethod
    def at(cls, path: str, code: str, message: str) -> Self:
        """Return the refusal of one field."""
        return cls(f"{path}: {message}", fields=(FieldError(path, code, message),))

    def renamed(self, old: str, new: str) -> "InvalidInput":
        """Return it with paths that begin with `new` where they began with `old`, and the first of them in its sentence."""
        fields = tuple(
            FieldError(new + one.path.removeprefix(old), one.code, one.message) if one.path.startswith(old) else one
            for one in self.fields
        )
        return InvalidInput(f"{fields[0].path}: {fields[0].message}" if fields else self.message, fields=fields)


class UnsupportedFormat(Invalid):
    """This file format cannot be served here."""

    code = "unsupported_format"


class Unauthenticated(ModelkeepError):
    """A valid API key is needed: send it as `X-API-Key` or as `Authorization: Bearer`."""

    kind = Kind.UNAUTHENTICATED
    code = "unauthenticated"


class Forbidden(ModelkeepError):
    """This key may not do that."""

    kind = Kind.FORBIDDEN
    code = "forbidden"


class WrongNetwork(Forbidden):
    """This key is good only from the networks that it is bound to, and your address is in none of them."""

    code = "wrong_network"


class WrongCertificate(Unauthenticated):
    """This key is good only over a connection with a client certificate that it is bound to, and this one has none of them."""

    code = "wrong_certificate"


class CertificateExpired(Unauthenticated):
    """The client certificate of this connection has expired since it began: connect again, with a newer one."""

    code = "certificate_expired"


class CertificateUnclear(Unauthenticated):
    """This client certificate stands for more than one API key: send the secret of the one that is meant."""

    code = "certificate_unclear"


class NotFound(ModelkeepError):
    """There is nothing here by that name."""

    kind = Kind.NOT_FOUND
    code = "not_found"


class MethodNotAllowed(ModelkeepError):
    """This address does not take this method."""

    kind = Kind.NOT_ALLOWED
    code = "method_not_allowed"

    def __init__(self, message: str | None = None, *, allow: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allow = allow


class Conflict(ModelkeepError):
    """The request clashes with what is already there."""

    kind = Kind.CONFLICT
    code = "conflict"


class Stale(Conflict):
    """It was changed since you looked at it: read it again, then repeat the change."""

    kind = Kind.STALE
    code = "stale"

    def __init__(self, message: str | None = None, *, revision: int | None = None) -> None:
        super().__init__(message)
        self.revision = revision
        """The revision that it is at now."""


class ApprovalNeeded(Conflict):
    """This needs a second person: have the approval that the answer names given, then repeat the same request."""

    code = "approval_needed"

    def __init__(self, message: str | None = None, *, approval: str = "") -> None:
        super().__init__(message)
        self.approval = approval
        """The id of what another person may approve."""


class IdempotencyKeyReused(Conflict):
    """This Idempotency-Key came with another request before: use a new key for a new request."""

    code = "idempotency_key_reused"


class AnswerSealed(Conflict):
    """This request was done before, and its answer opens with the secret it first came with alone: repeat it with that one."""

    code = "answer_sealed"


class IdempotencyKeyInUse(Conflict):
    """The request that first came with this Idempotency-Key is still under way: repeat yours, with the same key, soon."""

    code = "idempotency_key_in_use"

    def __init__(self) -> None:
        super().__init__(retry_after_s=1)


class TooLarge(ModelkeepError):
    """The request is larger than this installation allows."""

    kind = Kind.TOO_LARGE
    code = "too_large"


class Limited(ModelkeepError):
    """Too many requests: wait, then try again."""

    kind = Kind.LIMITED
    code = "rate_limited"

    def __init__(
        self, message: str | None = None, *, retry_after_s: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.headers = headers or {}
        """What the answer says of the rate that was exceeded."""


class Unavailable(ModelkeepError):
    """This cannot be done right now: try again soon."""

    kind = Kind.UNAVAILABLE
    code = "unavailable"


class RunnerLost(Unavailable):
    """The process that runs this model died while it worked on the request: try again."""

    code = "runner_lost"
    run: float = 0.0

    @classmethod
    def of(cls, run: float) -> Self:
        """Return the error of one request of a run that was lost; `run` is the moment when it began, and known by it."""
        error = cls(retry_after_s=1)
        error.run = run
        return error


class VersionLoading(Unavailable):
    """The model is still being loaded: try again soon."""

    code = "version_loading"


class VersionQuarantined(Unavailable):
    """The process that runs this model died too often and is held back for a while."""

    code = "version_quarantined"


class Overloaded(Unavailable):
    """More requests are waiting for this model than its queue may hold: try again soon."""

    code = "overloaded"


class OutOfMemory(Unavailable):
    """The model needed more memory for these inputs than its limit allows: send fewer rows, or raise the limit."""

    code = "model_memory_limit"


class StorageFull(ModelkeepError):
    """The disk is full: nothing was stored."""

    kind = Kind.STORAGE_FULL
    code = "storage_full"


class BeingRemoved(Unavailable):
    """The same file, which nothing had used for long, is being removed at this moment: send it again."""

    code = "file_being_removed"


class StorageUnavailable(Unavailable):
    """The store of model files does not answer: try again soon."""

    code = "storage_unavailable"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retry_after_s=5)


class StorageRefused(StorageUnavailable):
    """The store of model files refuses what it was asked, and so has not done it; after its kin it may have, or may still."""


class MasterKeyMissing(Unavailable):
    """This file is sealed with a master key that this installation does not have, or has another under the same name."""

    code = "master_key_missing"


class Timeout(ModelkeepError):
    """It took longer than the request's deadline."""

    kind = Kind.TIMEOUT
    code = "deadline_exceeded"


class Internal(ModelkeepError):
    """Something went wrong on our side; the request id finds it in the log."""

    kind = Kind.INTERNAL
    code = "internal"


class DamagedFile(Internal):
    """The stored file is not what was uploaded: upload it again, which replaces it, or restore it from a backup."""

    code = "file_damaged"


class ModelFailed(Internal):
    """The model raised an error on these inputs; its log has the reason."""

    code = "model_failed"


def all_errors(root: type[ModelkeepError] = ModelkeepError) -> Iterator[type[ModelkeepError]]:
    """Yield every error class below `root` that has been imported, parents first."""
    for child in root.__subclasses__():
        yield child
        yield from all_errors(child)
