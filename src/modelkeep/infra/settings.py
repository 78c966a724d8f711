"""What can be set about the database and the logs."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the control plane keeps what it knows."""

    url: Annotated[
        str,
        "Database address: sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/NAME; empty means SQLite in the data directory.",
    ] = ""
    pool_size: Annotated[int, "Most connections that one process holds open at once.", Interval(ge=1, le=1000)] = 5
    busy_timeout_s: Annotated[
        float,
        "How long to wait for another writer or a free connection, in seconds, before giving up.",
        Interval(ge=0.1, le=3600),
    ] = 10.0


@dataclass(frozen=True)
class LogSettings:
    """How the processes tell what they do."""

    format: Annotated[Literal["text", "json"], "Lines for people (text), or one JSON object a line in ECS names (json)."] = (
        "text"
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], "The least important lines that are written."] = "info"
