"""What a model's outputs turn out to be, once rows have been answered."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelkeep.contracts.columns import listed
from modelkeep.contracts.signature import TensorSpec, dtype_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

_MATRIX_AXES = 2


def refined(declared: tuple[TensorSpec, ...], many: "Arrays", one: "Arrays") -> tuple[TensorSpec, ...]:
    """Return the outputs as they were seen, in the declared order; an axis is open where it differs for many rows and one."""
    by_name = {spec.name: spec for spec in declared}
    names = [name for name in by_name if name in many] + [name for name in many if name not in by_name]
    return tuple(_refined(by_name.get(name), name, many[name], one.get(name, many[name])) for name in names)


def _refined(declared: TensorSpec | None, name: str, many: "NDArray[np.generic]", one: "NDArray[np.generic]") -> TensorSpec:
    axes = zip(many.shape[1:], one.shape[1:], strict=False)
    shape = (-1, *(length if length == other else -1 for length, other in axes))
    classes = declared.classes if declared else ()
    fits = len(shape) == _MATRIX_AXES and shape[1] == len(classes)
    return TensorSpec(name, dtype_of(many.dtype.name), shape, classes=classes if fits else ())


def told_left(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a warning of the outputs that were left out of the answers; none where none was."""
    return (f"{listed(names)}: one value for all rows, no answer to each, so it is left out.",) if names else ()
