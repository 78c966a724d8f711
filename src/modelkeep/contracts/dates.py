"""Dates in what Python code answers, as the texts that they are on their way to a caller."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def without_dates(array: "NDArray[Any]") -> "NDArray[np.generic]":
    """Return dates, and objects of which some may be, as texts in ISO 8601; a missing one as None."""
    import numpy as np

    if array.dtype == object and not any(hasattr(one, "isoformat") for one in array.reshape(-1).tolist()):
        return array
    texts = np.empty(array.size, dtype=object)
    if array.dtype == object:
        texts[:] = [_iso(one) if hasattr(one, "isoformat") else one for one in array.reshape(-1).tolist()]
    else:
        said = np.datetime_as_string(array).reshape(-1).tolist()
        texts[:] = [None if one == "NaT" else one for one in said]
    return texts.reshape(array.shape)


def _iso(date: Any) -> str | None:  # noqa: ANN401 - dates of Python and of pandas
    return str(date.isoformat()) if date == date else None  # noqa: PLR0124 - NaT differs from itself
