"""Calls of Python that its uploader wrote: what it is given, and what becomes of its answer.

Classes of an uploader's own and hooks beside an ordinary model are called the same way.
"""

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.dates import without_dates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def objection(function: object) -> str:
    """Return why a function cannot be called for an answer, "" where it can."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async: it must be a plain function"
    if inspect.isgeneratorfunction(function):
        return "is a generator: it must return its answer"
    return ""


def texts(array: "Array") -> "Array":
    """Return texts as `str`, where they are UTF-8; bytes stay what they are."""
    import numpy as np

    found = np.empty(array.shape, dtype=object)
    found.reshape(-1)[:] = [_text(one) for one in array.reshape(-1).tolist()]
    return found


def arrays(function: str, answer: Any, name: str) -> "dict[str, Array]":  # noqa: ANN401 - whatever it returns
    """Return what `function` answered as arrays by name; what has no name gets this one. Raises `TypeError`."""
    if inspect.isgenerator(answer) or inspect.isawaitable(answer):
        raise TypeError(f"{function} returned {type(answer).__name__}, where an array, a list or a dict of them must be")
    if isinstance(answer, Mapping):
        return {str(key): _array(key, one) for key, one in answer.items()}
    columns = _columns(answer)
    if columns:
        return {key: _array(key, answer[key]) for key in columns}
    return {name: _array(name, answer)}


def _columns(answer: Any) -> list[str]:  # noqa: ANN401 - as above
    """The names of the columns of a data frame that has names; each is an output. None otherwise."""
    if not hasattr(answer, "columns") or not hasattr(answer, "__getitem__"):
        return []
    columns = list(answer.columns)
    distinct = all(isinstance(one, str) for one in columns) and len(set(columns)) == len(columns)
    return columns if distinct else []


def _array(name: object, answer: Any) -> "Array":  # noqa: ANN401 - as above
    """One output as an array; texts, and dates as texts, as objects, as the frames carry them."""
    import numpy as np

    try:
        array = np.asarray(answer)
    except ValueError as error:  # said of the code, not of what was asked of it
        raise TypeError(f"output {str(name)!r} is no array: {error}") from error
    if array.dtype.kind == "S" and array is not answer:
        return np.asarray(answer, dtype=object)  # numpy's own byte strings end before their last zeros
    if array.dtype.kind in "MO":
        return _without_gaps(without_dates(array))
    return array.astype(object) if array.dtype.kind in "US" else array


def _without_gaps(array: "Array") -> "Array":
    """Texts of which some are missing as pandas has it, NaN or NA, with None for those."""
    import numpy as np

    values = array.reshape(-1).tolist()
    if not any(isinstance(one, str) for one in values):
        return array
    found = np.empty(len(values), dtype=object)
    found[:] = [None if _is_gap(one) else one for one in values]
    return found.reshape(array.shape)


def _is_gap(value: object) -> bool:
    return type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))


def _text(value: object) -> object:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value
