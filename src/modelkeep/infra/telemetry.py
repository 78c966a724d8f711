"""Logs: one event a line, readable in development, JSON in the names of the Elastic Common Schema in production.

Everything goes to standard error, what other libraries log included. The request's id is bound to the task that works on it
and so stands in every line of it. A key or token that strays into a line is blotted out.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from modelkeep.infra.secrets import PATTERN
from modelkeep.infra.settings import LogSettings

_SECRET = re.compile(PATTERN)
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_ECS: Final = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "event": "message",
    "logger": "log.logger",
    "request_id": "http.request.id",
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "exception": "error.stack_trace",
}
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
    text = settings.format == "text"
    ending: list[Processor] = (
        [
            _RoleFirst(role),
            blot_out,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # the rich one shows local variables: keys and inputs
            ),
        ]
        if text
        else [structlog.processors.format_exc_info, _Ecs(role), blot_out, structlog.processors.JSONRenderer()]
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
def request(request_id: str) -> Iterator[None]:
    """Put this request's id into every line that is written inside the block."""
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        yield


def blot_out(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Hide whatever has the form of a key or token."""
    del logger, method
    return {name: _blotted(value) for name, value in event.items()}


def _blotted(value: Any) -> Any:  # noqa: ANN401 - a line may carry anything
    if isinstance(value, str):
        return _SECRET.sub("[secret]", value)
    if isinstance(value, dict):
        return {name: _blotted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_blotted(inner) for inner in value]
    return value


class _RoleFirst:
    """Says which process writes, in lines for people."""

    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        event["event"] = f"{self._role}: {event.get('event', '')}"
        event.pop("logger", None)
        return event


class _Ecs:
    """Gives the fields their names in the Elastic Common Schema."""

    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        named = {_ECS.get(name, f"modelkeep.{name}"): value for name, value in event.items()}
        return (
            {"@timestamp": named.pop("@timestamp", ""), "ecs.version": "8.11.0", "service.name": "modelkeep"}
            | named
            | {"process.name": self._role}
        )
