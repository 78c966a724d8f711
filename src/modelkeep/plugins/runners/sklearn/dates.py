"""Dates as pandas has them: without a zone, or all of one zone, in the unit that pandas reads such texts in.

A caller's own offset from UTC decides what the hour of a moment is, so rows of different offsets are answered apart.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]

_CLOCK = 16  # where the time's minutes end: 2026-05-17T08:30
_MICROSECONDS = 6


def column(texts: "NDArray[np.generic]") -> Any:  # noqa: ANN401 - pandas carries no types here
    """Return texts of one offset and precision, as checked by serving, as a column of dates; missing ones are NaT."""
    import pandas as pd

    return pd.to_datetime([None if one is None else _text(one) for one in texts.tolist()], format="ISO8601")


def alike(inputs: "Inputs", names: Sequence[str]) -> "list[NDArray[np.generic]] | None":
    """Return the places of rows whose dates are of equal offset and precision, group by group; None where all are."""
    import numpy as np

    groups: dict[tuple[tuple[str, bool] | None, ...], list[int]] = {}
    columns = [inputs[name].reshape(-1).tolist() for name in names]
    for at, values in enumerate(zip(*columns, strict=True)):
        groups.setdefault(tuple(None if one is None else _form(_text(one)) for one in values), []).append(at)
    return [np.array(places) for places in groups.values()] if len(groups) > 1 else None


def _text(value: object) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).upper()


def _form(text: str) -> tuple[str, bool]:
    """The offset of a date ("" for none), and whether it is more precise than a microsecond."""
    clock, rest = text[:_CLOCK], text[_CLOCK:]
    zone = "+00:00" if rest.endswith("Z") else rest[-6:] if rest[-6:-5] in {"+", "-"} else ""
    fraction = rest.partition(".")[2].removesuffix("Z").removesuffix(zone)
    return zone if len(clock) == _CLOCK else "", len(fraction) > _MICROSECONDS
