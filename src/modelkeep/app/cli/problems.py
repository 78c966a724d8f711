"""What went wrong, in one or two lines, and the exit code that tells it to a script.

0 done · 1 something else · 2 wrong use of the command · 3 not found · 4 refused: invalid or rejected
5 not authenticated or not allowed · 6 server unreachable or unavailable · 7 conflict · 130 interrupted
"""

import json
import sys
from enum import IntEnum
from typing import Any

from modelkeep.app.cli.screen import plain
from modelkeep.contracts.errors import Kind
from modelkeep.contracts.errors import ModelkeepError as OwnError


class Code(IntEnum):
    """Exit codes."""

    DONE = 0
    OTHER = 1
    USAGE = 2
    NOT_FOUND = 3
    INVALID = 4
    NOT_ALLOWED = 5
    UNAVAILABLE = 6
    CONFLICT = 7
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done, 1 other error, 2 usage, 3 not found, 4 invalid or rejected, 5 not allowed, 6 server down, "
    "7 conflict, 130 Ctrl-C."
)

_OF_KIND = {
    Kind.INVALID: Code.INVALID,
    Kind.UNAUTHENTICATED: Code.NOT_ALLOWED,
    Kind.FORBIDDEN: Code.NOT_ALLOWED,
    Kind.NOT_FOUND: Code.NOT_FOUND,
    Kind.CONFLICT: Code.CONFLICT,
    Kind.STALE: Code.CONFLICT,
    Kind.TOO_LARGE: Code.INVALID,
    Kind.MISDIRECTED: Code.INVALID,
    Kind.LIMITED: Code.UNAVAILABLE,
    Kind.UNAVAILABLE: Code.UNAVAILABLE,
    Kind.TIMEOUT: Code.UNAVAILABLE,
    Kind.STORAGE_FULL: Code.UNAVAILABLE,
}
_SHOWN_FIELDS = 3


class WrongUse(Exception):
    """The command was used in a way that cannot work; `advice` says what to do instead."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class Interrupted(Exception):
    """Somebody pressed Ctrl-C; the message says what was done until then, and what was not."""


def report(error: Exception, *, as_json: bool) -> Code:
    """Tell of `error` on stderr and return the exit code for it."""
    code, problem = _described(error)
    if as_json:
        sys.stderr.write(json.dumps(problem, indent=2, ensure_ascii=False) + "\n")
        return code
    lines = [f"modelkeep: {problem['message']}"]
    fields = list(problem.get("fields", ()))
    trail = [problem["code"]] if "version" not in problem and not isinstance(error, Interrupted) else []
    if fields and problem["message"] == f"{fields[0]['path']}: {fields[0]['message']}":
        trail.append(fields.pop(0)["code"])  # the sentence says the rest
    lines += [f"  {field['path']}: {field['message']} [{field['code']}]" for field in fields[:_SHOWN_FIELDS]]
    if len(fields) > _SHOWN_FIELDS:
        lines.append(f"  and {len(fields) - _SHOWN_FIELDS} more")
    if problem.get("advice"):
        lines.append(f"  {problem['advice']}")
    trail += [problem["request_id"]] if problem.get("request_id") else []
    lines[0] += f" [{', '.join(trail)}]" if trail else ""
    sys.stderr.write(plain("\n".join(lines)) + "\n")
    return code


def _described(error: Exception) -> tuple[Code, dict[str, Any]]:
    if isinstance(error, WrongUse):
        return Code.USAGE, {"code": "usage", "message": error.message, "advice": error.advice}
    if isinstance(error, Interrupted):
        return Code.INTERRUPTED, {"code": "interrupted", "message": str(error)}
    if isinstance(error, OwnError):
        fields = [{"path": one.path, "code": one.code, "message": one.message} for one in error.fields]
        return _OF_KIND.get(error.kind, Code.OTHER), {"code": error.code, "message": error.message, "fields": fields}
    from modelkeep.client import ModelkeepError

    if isinstance(error, ModelkeepError):
        return _of_client(error)
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return Code.OTHER, {"code": "os_error", "message": f"{what}."}
    message = f"Something went wrong in modelkeep itself ({type(error).__name__}: {error})."
    advice = "Please report it; `python -X dev -m modelkeep.app.cli ...` shows where it happened."
    return Code.OTHER, {"code": "internal", "message": message, "advice": advice}


def _of_client(error: Any) -> tuple[Code, dict[str, Any]]:  # noqa: ANN401 - a `client.ModelkeepError`, which is imported late
    from modelkeep import client

    problem: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.status is not None:
        problem["status"] = error.status
    if error.request_id:
        problem["request_id"] = error.request_id
    if error.fields:
        problem["fields"] = [{"path": one.path, "code": one.code, "message": one.message} for one in error.fields]
    if isinstance(error, client.ApprovalNeeded):
        problem["approval"] = error.approval
    advice = getattr(error, "hint", "")
    if isinstance(error, client.Rejected):
        message = f"{error.version.model} version {error.version.number} was rejected: {error.code}."
        problem |= {"message": f"{message} {error.detail}".strip(), "version": dict(error.version.raw)}
        advice = error.advice
    if advice:
        problem["advice"] = advice
    by_class = {
        client.Rejected: Code.INVALID,
        client.NotFound: Code.NOT_FOUND,
        client.Invalid: Code.INVALID,
        client.NotAuthenticated: Code.NOT_ALLOWED,
        client.NotAllowed: Code.NOT_ALLOWED,
        client.Conflict: Code.CONFLICT,
        client.Unavailable: Code.UNAVAILABLE,
    }
    code = next((code for kind, code in by_class.items() if isinstance(error, kind)), Code.OTHER)
    return code, problem
