"""Whether two answers to the same rows are the same, as far as the same model must give the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Numbers may differ by ABSOLUTE + RELATIVE * |wanted|: sums in another order, on another processor."""

_LABEL = "label"


class Differs(Exception):
    """The answers are not the same; the sentence says where."""


def differing(wanted: "Arrays", given: "Arrays") -> float:
    """Return the largest difference between two answers to the same rows; raises `Differs` where they are not the same.

    Numbers may differ by the tolerances, labels and texts not at all, missing numbers must be missing in both.
    """
    if list(wanted) != list(given):
        raise Differs(f"Its outputs are {', '.join(given)}, not {', '.join(wanted)}.")
    return max((_difference(name, wanted[name], given[name]) for name in wanted), default=0.0)


def _difference(name: str, wanted: "NDArray[Any]", given: "NDArray[Any]") -> float:
    import numpy as np

    if wanted.dtype != given.dtype or wanted.shape != given.shape:
        seen = f"{given.dtype} {list(given.shape)}, not {wanted.dtype} {list(wanted.shape)}"
        raise Differs(f"The output {name!r} is {seen}.")
    if wanted.dtype.kind != "f" or name == _LABEL:
        if not np.array_equal(wanted, given, equal_nan=wanted.dtype.kind == "f"):
            rows = (wanted != given).reshape(len(wanted), -1).any(axis=1)
            raise Differs(f"The output {name!r} differs in {int(rows.sum())} of {len(rows)} rows.")
        return 0.0
    gaps = _gaps(wanted, given)
    if not np.isclose(given, wanted, RELATIVE, ABSOLUTE, equal_nan=True).all():
        raise Differs(f"The output {name!r} differs by {np.max(gaps, initial=0.0, where=~np.isnan(gaps)):.3g}.")
    return float(gaps.max(initial=0.0))


def largest_gap(wanted: "Arrays", given: "Arrays") -> float:
    """Return the largest finite difference between numbers of two answers, same or not; 0 where none can be compared."""
    import numpy as np

    largest = 0.0
    for name, array in wanted.items():
        other = given.get(name)
        if other is None or array.dtype.kind != "f" or other.dtype.kind != "f" or array.shape != other.shape:
            continue
        gaps = _gaps(array, other)
        largest = max(largest, float(np.max(gaps, initial=0.0, where=np.isfinite(gaps))))
    return largest


def _gaps(wanted: "NDArray[Any]", given: "NDArray[Any]") -> "NDArray[Any]":
    """The differences, 0 where both are missing, not a number where one is."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        gaps = np.where(wanted == given, 0.0, np.abs(wanted - given))
    gaps[np.isnan(wanted) & np.isnan(given)] = 0.0
    return gaps
