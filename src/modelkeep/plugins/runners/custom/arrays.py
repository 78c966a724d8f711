"""The numpy that an artifact brings: everything that goes in and out of its class is an array of it, so we must know it."""

import re

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

_OLDEST, _BEYOND = (1, 26), (3, 0)
_KNOWN = "1.26 to 2.x"
_VERSION = re.compile(r"(\d+)\.(\d+)")


def check(packages: str) -> None:
    """Import numpy; raises `CannotLoad` where it is among the artifact's packages, and older or newer than those we know."""
    import numpy as np

    if str(np.__file__).startswith(f"{packages}/"):
        _check_version(str(getattr(np, "__version__", "")))
    import numpy.random  # noqa: F401 - it comes late, and with it modules whose names an author's files may have: secrets, random


def _check_version(told: str) -> None:
    version = _VERSION.match(told)
    if version is None or not _OLDEST <= (int(version[1]), int(version[2])) < _BEYOND:
        which = f"numpy {told}" if told else "a numpy without a version"
        raise CannotLoad(
            Reason.MISSING_DEPENDENCY,
            f"The archive brings {which}; classes are given arrays of numpy {_KNOWN}. Bring one of these, or none.",
        )
