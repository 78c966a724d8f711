"""Runs a model that takes a fixed number of rows, or a few at most, over as many rows as there are."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


def in_pieces(
    inputs: "Arrays", least: int, most: int, once: "Callable[[Arrays], dict[str, NDArray[np.generic]]]"
) -> "dict[str, NDArray[np.generic]]":
    """Return the answers of `once` to all rows, which it is given in pieces of `least` to `most` rows (0: any number).

    A piece that is too short is filled up with its last row. What is no row by row but one value is that of the first piece.
    Raises `RuntimeError` for any other answer that is not row by row, which would be cut and joined to something wrong.
    """
    import numpy as np

    rows = len(next(iter(inputs.values())))
    if least <= rows and (not most or rows <= most):
        return once(inputs)
    pieces = []
    for start in range(0, rows, most or rows):
        size = min(most or rows, rows - start)
        asked = max(size, least)
        answer = once({name: _filled(array[start : start + size], asked) for name, array in inputs.items()})
        pieces.append({name: _rows_of(name, array, asked)[:size] if array.ndim else array for name, array in answer.items()})
    first = pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) if first[name].ndim else first[name] for name in first}


def _filled(rows: "NDArray[np.generic]", count: int) -> "NDArray[np.generic]":
    """The rows, with the last one repeated until there are `count`."""
    import numpy as np

    missing = count - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _rows_of(name: str, array: "NDArray[np.generic]", count: int) -> "NDArray[np.generic]":
    if len(array) != count:
        message = f"the output {name!r} has the shape {list(array.shape)} for {count} rows: the rows come first"
        raise RuntimeError(message)
    return array
