"""What a server has seen of a shadow: a version that is asked the same beside the promoted one, and answers nobody.

All of it are counts, so that those of several servers add up, but for the few rows that are shown.
"""

from typing import Any, Final, Literal

import msgspec

DISTANCES: Final = (0.0, *(10 ** (third / 3) for third in range(-27, 19)))
"""Upper bounds of distances between numbers: none at all, then three a decade; beyond the last, or one number is missing."""

SECONDS: Final = tuple(10 ** (quarter / 4) for quarter in range(-16, 9))
"""Upper bounds of the seconds of runs, four a decade."""

MOST_WORST: Final = 20
"""Most rows that are shown of a comparison."""

MOST_FEATURES: Final = 32
"""Most columns by which agreement is told apart."""

MOST_PAIRS: Final = 64
"""Most pairs of classes that are counted one by one."""

Kind = Literal["numbers", "classes", "labels"]
"""What must be the same for two answers to agree: numbers within the tolerance, the best class, or the values themselves."""


class ClassPair(msgspec.Struct, frozen=True, array_like=True):
    """In so many rows the promoted version says `primary` and the shadow says `shadow`."""

    primary: str
    shadow: str
    rows: int


class OutputSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one output compares. Distances are counted by `DISTANCES`; where there are no numbers, there are none.

    `pairs` are those of the classes or labels that were seen first; rows of all others are `unpaired`.
    """

    name: str
    kind: Kind
    rows: int = 0
    differ: int = 0
    absolute: tuple[int, ...] = ()
    relative: tuple[int, ...] = ()
    largest: float = 0.0
    pairs: tuple[ClassPair, ...] = ()
    unpaired: int = 0


class SliceSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows whose `column` is within [low, high), is this `category`, or is `missing`; None and "" where nothing bounds it."""

    column: str
    low: float | None = None
    high: float | None = None
    category: str = ""
    missing: bool = False
    others: bool = False
    rows: int = 0
    differ: int = 0


class WorstRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row whose answers are far apart, with as much of it as may be written down.

    `distance` is the largest relative one of its numbers, None where there is none to be had: one is missing, or none are
    numbers. `at` is Unix seconds.
    """

    prediction: str
    row: int
    at: float
    differs: bool
    distance: float | None
    primary: dict[str, Any] = {}
    shadow: dict[str, Any] = {}
    inputs: dict[str, Any] = {}


class Compared(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the answers of two versions to the same rows compare: `requests` and `rows`, and how many of each `differ`."""

    requests: int = 0
    requests_differ: int = 0
    rows: int = 0
    differ: int = 0
    outputs: tuple[OutputSeen, ...] = ()
    slices: tuple[SliceSeen, ...] = ()
    worst: tuple[WorstRow, ...] = ()


class ShadowSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one server process has seen of a shadow since it began to ask it. Times are Unix seconds.

    `asked` are the requests that the share chose; those that were not asked after all are `dropped`, those that came to
    nothing `failed`, each by reason. Seconds of runs are counted by `SECONDS`.
    """

    id: str
    server: str
    deployment: str
    primary_id: str
    version_id: str
    share: float
    since: float
    at: float
    asked: int = 0
    dropped: dict[str, int] = {}
    failed: dict[str, int] = {}
    primary_s: tuple[int, ...] = ()
    shadow_s: tuple[int, ...] = ()
    compared: Compared = Compared()
