"""How well runners are locked in, and how well they have to be before a file of some kind may be loaded."""

from enum import IntEnum

import msgspec

from modelkeep.contracts.runner import Safety


class Level(IntEnum):
    """What holds of the lock-down, seen by its effects; each level has all of those below it."""

    OPEN = 0  # nothing that could be relied on: no model is loaded at all
    FILTERED = 1  # system calls are filtered, resources limited
    WALLED = 2  # and no file can be reached but Python and its libraries
    SEPARATED = 3  # and neither can names of files, networks or other processes' memory: namespaces

    @property
    def short(self) -> str:
        """Its name in answers, metrics and settings: `L0` to `L3`."""
        return f"L{int(self)}"


def level(short: str) -> Level | None:
    """Return the level with this short name, or None for an empty one."""
    return next((one for one in Level if one.short == short), None)


NEEDED: dict[Safety, Level] = {"data": Level.FILTERED, "guarded": Level.FILTERED, "code": Level.WALLED}
"""The least level at which files of a kind are loaded. Parsers of data can be broken into; code does what it wants."""


def in_force(accepted: Level | None, acceptable: Level | None) -> Level | None:
    """Return the level that an administrator accepts, where the machine's own settings let them; None where not."""
    return None if accepted is None or acceptable is None or accepted < acceptable else accepted


class Layer(msgspec.Struct, frozen=True):
    """One layer of the lock-down: whether it is in force here, and what was seen or why it is not."""

    name: str
    holds: bool
    detail: str = ""


class Confinement(msgspec.Struct, frozen=True):
    """What a trial of the whole lock-down came to on this machine."""

    level: Level = Level.OPEN
    layers: tuple[Layer, ...] = ()

    @property
    def missing(self) -> str:
        """Which layers are not in force, in words; empty where all are."""
        return "; ".join(f"{layer.name}: {layer.detail}" for layer in self.layers if not layer.holds)

    def holds(self, name: str) -> bool:
        """Whether the layer with this name is in force."""
        return any(layer.name == name and layer.holds for layer in self.layers)
