"""Finds plugins by entry point. Names come from metadata alone; a plugin module is imported only when asked for."""

from importlib.metadata import entry_points
from typing import Any

from modelkeep.contracts.errors import NotFound

RUNNERS = "modelkeep.runners"
STORAGE = "modelkeep.storage"
AUTH = "modelkeep.auth"


def names(group: str) -> list[str]:
    """Return the names of the plugins installed in a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def find(group: str, name: str) -> Any:  # noqa: ANN401 - each group has its own protocol; the caller says which
    """Import and return the plugin class `name` of `group`; raises `NotFound`."""
    for point in entry_points(group=group, name=name):
        return point.load()
    message = f"No plugin named {name!r} is installed in {group}."
    raise NotFound(message)
