"""The one grammar of names that people choose; a name never becomes a path."""

import re

from modelkeep.contracts.errors import InvalidName

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_NAME = re.compile(NAME_PATTERN)
_PART = re.compile(r"[a-z0-9._-]*")


def check_name(name: str) -> str:
    """Return `name` when it is one; raise `InvalidName` otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidName
    return name


def in_names(part: str) -> bool:
    """Whether any name could have this in it."""
    return _PART.fullmatch(part) is not None
