"""Whether two answers to the same rows are the same, as far as the same model must give the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Numbers may differ by ABSOLUTE + RELATIVE * |wanted|: sums in another order, on another processor."""

RELATIVE_TO_ROW = 2e-4
"""By another library the same graph may differ by ABSOLUTE + RELATIVE_TO_ROW * the largest number of the row's answer.

Its products are summed in another order and form, which errs by a share of what is summed and not of the sum: twice what
was seen with a ResNet-50 of random weights, which enlarges every rounding.
"""

_LABEL = "label"


class Differs(Exception):
    """The answers are not the same; the sentence says where."""


def differing(wanted: "Arrays", given: "Arrays") -> float:
    """Return the largest difference between two answers to the same rows; raises `Differs` where they are not the same.

    Numbers may differ by the tolerances, labels and texts not at all, missing numbers must be missing in both.
    """
    if list(wanted) != list(given):
        raise Differs(f"Its outputs are {', '.join(given)}, not {', '.join(wanted)}.")
    return max((_difference(name, wanted[name], given[name], by_row=False) for name in wanted), default=0.0)


def agreeing(wanted: "Arrays", given: "Arrays") -> float:
    """Return the largest difference between the answers of two libraries; raises `Differs` where they are not the same.

    As `differing`, in any order of the outputs, and with the tolerance for a row's largest number.
    """
    if set(wanted) != set(given):
        raise Differs(f"Its outputs are {', '.join(given)}, not {', '.join(wanted)}.")
    return max((_difference(name, wanted[name], given[name], by_row=True) for name in wanted), default=0.0)


def rows_apart(wanted: "Arrays", given: "Arrays", rows: int, *, by_row: bool = False) -> "NDArray[np.bool_]":
    """Return which of so many rows differ, by the rule of `differing`, or of `agreeing` with `by_row`.

    All do where outputs, datatypes or shapes are others.
    """
    import numpy as np

    if (set(wanted) if by_row else list(wanted)) != (set(given) if by_row else list(given)):
        return np.ones(rows, dtype=bool)
    apart = np.zeros(rows, dtype=bool)
    for name, array in wanted.items():
        if len(array) == rows:
            apart |= _apart(name, array, given[name], by_row=by_row)
        else:
            apart[:] = True
    return apart


def classes_apart(wanted: "Arrays", given: "Arrays", rows: int, scores: str) -> "NDArray[np.bool_]":
    """Return in which of so many rows another class is best, by the output `scores`, or an output that is no number is another.

    A class that shares the highest score is as good as any that does. Numbers must be missing in both or in neither, and may be
    any others. All rows differ where outputs or shapes are others.
    """
    import numpy as np

    if set(wanted) != set(given) or any(len(array) != rows for array in wanted.values()):
        return np.ones(rows, dtype=bool)
    apart = np.zeros(rows, dtype=bool)
    for name, array in wanted.items():
        other = given[name]
        if array.shape != other.shape or array.dtype.kind != "f" or other.dtype.kind != "f" or name == _LABEL:
            apart |= _apart(name, array, other, by_row=False)
            continue
        apart |= (np.isfinite(array) != np.isfinite(other)).reshape(rows, -1).any(axis=1)
        if name == scores:
            best, others = _best(array), _best(other)
            shared, there = (best & others).sum(axis=1), (best | others).sum(axis=1)
            apart |= (shared == 0) & (there > 0)
    return apart


def _best(scores: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Which places of each row have its highest score; none where all are missing."""
    import numpy as np

    flat = np.where(np.isnan(scores), -np.inf, scores).reshape(len(scores), -1)
    highest = flat.max(axis=1, initial=-np.inf, keepdims=True)
    best: NDArray[np.bool_] = (flat == highest) & ~np.isnan(scores).reshape(len(scores), -1)
    return best


def _apart(name: str, wanted: "NDArray[Any]", given: "NDArray[Any]", *, by_row: bool) -> "NDArray[np.bool_]":
    """Which rows of one output differ."""
    import numpy as np

    if wanted.dtype != given.dtype or wanted.shape != given.shape:
        return np.ones(len(wanted), dtype=bool)
    if wanted.dtype.kind != "f" or name == _LABEL:
        far = wanted != given
        if wanted.dtype.kind == "f":
            far &= ~(np.isnan(wanted) & np.isnan(given))
    else:
        far = ~_close(wanted, given, _gaps(wanted, given), by_row=by_row)
    by_rows: NDArray[np.bool_] = np.asarray(far, dtype=bool).reshape(len(wanted), -1)
    apart: NDArray[np.bool_] = by_rows.sum(axis=1) > 0
    return apart


def _close(wanted: "NDArray[Any]", given: "NDArray[Any]", gaps: "NDArray[Any]", *, by_row: bool) -> "NDArray[np.bool_]":
    import numpy as np

    close: NDArray[np.bool_] = (
        gaps <= _allowed(wanted) if by_row else np.isclose(given, wanted, RELATIVE, ABSOLUTE, equal_nan=True)
    )
    return close


def _difference(name: str, wanted: "NDArray[Any]", given: "NDArray[Any]", *, by_row: bool) -> float:
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
    if not _close(wanted, given, gaps, by_row=by_row).all():
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


def _allowed(wanted: "NDArray[Any]") -> "NDArray[Any]":
    """What each number may differ by, for the row that it is in; missing and infinite numbers count nothing."""
    import numpy as np

    sizes = np.where(np.isfinite(wanted), np.abs(wanted), 0.0).reshape(len(wanted), -1).max(axis=1, initial=0.0)
    allowed: NDArray[Any] = (ABSOLUTE + RELATIVE_TO_ROW * sizes).reshape(-1, *[1] * (wanted.ndim - 1))
    return allowed
