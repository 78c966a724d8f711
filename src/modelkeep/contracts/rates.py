"""Rates as people write them: `100/min`, `100/min:20` with a burst, and lists of named ones."""

import re
from typing import Final

from modelkeep.contracts.snapshot import Rate

HIGHEST_RATE: Final = 100_000_000
_RATE: Final = re.compile(r"([0-9]{1,9})/min(?::([0-9]{1,9}))?", re.ASCII)
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
RESERVED: Final = frozenset({"unlimited", "user"})
"""What a key's rate may be that is no class of the settings."""


def read(text: str) -> Rate | None:
    """Return the rate that a text says, None where it says none."""
    found = _RATE.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= HIGHEST_RATE or (found[2] and not 1 <= int(found[2]) <= HIGHEST_RATE):
        return None
    return Rate(int(found[1]), int(found[2] or 0)).whole


def read_classes(text: str) -> dict[str, Rate] | None:
    """Return the rates by name of `batch=6000/min, trial=10/min:2`; None where that is not what the text says."""
    classes: dict[str, Rate] = {}
    for pair in filter(None, (one.strip() for one in text.split(","))):
        name, _equals, said = pair.partition("=")
        rate = read(said.strip())
        name = name.strip()
        if rate is None or not _NAME.fullmatch(name) or name in RESERVED or name in classes:
            return None
        classes[name] = rate
    return classes
