"""Logs: one event a line, readable in development, JSON in the names of the Elastic Common Schema in production.

Everything goes to standard error, what other libraries log included. The ids of request and prediction are bound to the task
that works on them and so stand in every line of it. Secrets that stray into a line are taken out (`infra/redaction.py`).
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from modelkeep.infra.redaction import without_secrets
from modelkeep.infra.settings import LogSettings

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_ECS: Final = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "event": "message",
    "logger": "log.logger",
    "request_id": "http.request.id",
    "prediction_id": "modelkeep.prediction.id",
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "trace_id": "trace.id",
    "client": "client.address",
    "action": "event.action",
    "outcome": "event.outcome",
    "reason": "event.reason",
    "code": "error.code",
    "error": "error.message",
    "exception": "error.stack_trace",
}
_NS_PER_MS: Final = 1_000_000
_FAILED: Final = 400
_QUIET: Final = ("alembic", "aiosqlite", "asyncio", "dbos", "sqlalchemy", "uvicorn")


def configure(settings: LogSettings, *, role: str) -> None:
    """Set up logging for this process; `role` says which of the processes writes."""
    level = _LEVELS[settings.level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[Processor] = (
        [_formatted, _RoleFirst(role), blot_out, _console()]
        if settings.format == "text"
        # in ASCII: U+0085 and U+2028 would end a line for some readers
        else [_formatted, _Ecs(role), blot_out, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, *ending], foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


@contextmanager
def request(request_id: str, prediction_id: str = "") -> Iterator[None]:
    """Put this request's id, and that of the prediction it asks for, into every line that is written inside the block."""
    bound = {"request_id": request_id} | ({"prediction_id": prediction_id} if prediction_id else {})
    with structlog.contextvars.bound_contextvars(**bound):
        yield


def blot_out(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Take the secrets out of every field, whatever it holds."""
    del logger, method
    clean: EventDict = without_secrets(event)
    return clean


def _console() -> structlog.dev.ConsoleRenderer:
    """Lines for people; in colour on a terminal."""
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        pad_event_to=0,
        exception_formatter=structlog.dev.plain_traceback,  # the rich one shows local variables: keys and inputs
    )


def _formatted(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Turn an exception into its text, before secrets are looked for, and say what kind it is."""
    error = event.get("exc_info")
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    event = structlog.processors.format_exc_info(logger, method, event)
    if isinstance(error, BaseException):
        event["error_type"] = type(error).__name__
    return event


class _RoleFirst:
    """Says which process writes, in lines for people."""

    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        event["event"] = f"{self._role}: {event.get('event', '')}"
        event.pop("logger", None)
        event.pop("error_type", None)
        return event


class _Ecs:
    """Gives the fields their names in the Elastic Common Schema."""

    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        kind = event.pop("error_type", None)
        took_ms = event.pop("ms", None)
        named = {_ECS.get(name, f"modelkeep.{name}"): value for name, value in event.items()}
        if kind is not None:
            named["error.type"] = kind
        if isinstance(took_ms, int | float):
            named["event.duration"] = round(took_ms * _NS_PER_MS)
        status = named.get("http.response.status_code")
        if isinstance(status, int):
            named.setdefault("event.outcome", "failure" if status >= _FAILED else "success")
        first = {"@timestamp": named.pop("@timestamp", ""), "log.level": named.pop("log.level", "info")}
        message = {"message": named.pop("message", ""), "ecs.version": "8.11.0", "service.name": "modelkeep"}
        about = {"event.dataset": f"modelkeep.{self._role}", "process.name": self._role, "process.pid": os.getpid()}
        return first | message | named | about
