"""What a fitted estimator tells of each column it takes: categories, texts or dates, and how a missing text was written."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from modelkeep.contracts.signature import EXACT
from modelkeep.plugins.runners.sklearn.anatomy import first_step, parts_of, steps_of

MOST_CATEGORIES = 100
"""How many categories of a column a signature shows; where there are more, it shows none."""

Category = str | int | float


class Feature(msgspec.Struct, frozen=True):
    """One column. `none`: a missing text was None in training, not NaN. `wide`: its categories are too large for floats."""

    categories: tuple[Category, ...] = ()
    is_text: bool = False
    is_date: bool = False
    none: bool = False
    wide: bool = False


def features_of(estimator: Any, names: Sequence[str], count: int) -> dict[int, Feature]:  # noqa: ANN401 - any object
    """Return what is told of the columns, by their places; those that nothing is told of are not in it."""
    return dict(_told(first_step(estimator), list(names), list(range(count))))


def sees_values(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether code of somebody's own sees the table, to which a whole number may not be what the float of its value is."""
    import numpy as np

    for part in parts_of(estimator):
        if type(part).__name__ == "FunctionTransformer":
            if part.func is not None and not isinstance(part.func, np.ufunc):
                return True
        elif not type(part).__module__.startswith("sklearn."):
            return True
    return False


def _told(step: Any, names: list[str], at: list[int]) -> Iterator[tuple[int, Feature]]:  # noqa: ANN401 - any object
    """Yield what a step tells of its columns; `at` are their places among those of the whole."""
    inner = getattr(step, "_preprocessor", None)  # histogram trees with categories
    parts = getattr(step if inner is None else inner, "transformers_", None)
    if parts is None:
        for _name, part in getattr(step, "transformer_list", ()):  # a union: each gets all columns
            yield from _told(first_step(part), names, at)
        yield from _leaf(step, at)
        return
    for _name, part, wanted in parts:
        chosen = chosen_places(wanted, names, len(at))
        below = [at[place] for place in chosen]
        first = first_step(part)
        if hasattr(first, "transformers_") or hasattr(first, "transformer_list"):
            yield from _told(first, [names[place] for place in chosen] if names else [], below)
        elif isinstance(wanted, str | int) and hasattr(first, "build_analyzer"):  # a text vectoriser
            yield below[0], Feature(is_text=True)
        else:
            yield from _leaf(part, below)


def _leaf(part: Any, at: list[int]) -> Iterator[tuple[int, Feature]]:  # noqa: ANN401 - any object
    """What the steps of one transformer tell of the columns, up to the first that may make something else of them."""
    marks_none = any(getattr(step, "missing_values", 0) is None for step in steps_of(part))
    for step in steps_of(part):
        known = getattr(step, "categories_", None)
        if isinstance(known, list) and len(known) == len(at):
            yield from ((place, _of(categories, none=marks_none)) for place, categories in zip(at, known, strict=True))
            return
        filled = getattr(step, "statistics_", None)
        if filled is not None and filled.dtype == object and len(filled) == len(at):
            yield from (
                (place, Feature(is_text=isinstance(one, str), none=marks_none))
                for place, one in zip(at, filled.tolist(), strict=True)
            )
        if type(step).__name__ != "SimpleImputer":
            return


def _of(categories: Any, *, none: bool) -> Feature:  # noqa: ANN401 - an array
    values = [one for one in categories.tolist() if one is not None and one == one]  # noqa: PLR0124 - NaN is no category
    if categories.dtype.kind == "M":
        return Feature(is_date=True)
    plain = tuple(one for one in values if isinstance(one, str | int | float) and not isinstance(one, bool))
    return Feature(
        categories=plain if len(plain) == len(values) <= MOST_CATEGORIES else (),
        is_text=categories.dtype.kind in "US" or any(isinstance(one, str) for one in values),
        none=none or any(one is None for one in categories.tolist()),
        wide=categories.dtype.kind in "iu" and any(abs(one) > EXACT for one in values),
    )


def chosen_places(wanted: Any, names: list[str], count: int) -> list[int]:  # noqa: ANN401 - as scikit-learn takes columns
    """Return the places that a ColumnTransformer's choice of columns means: a name or place, several, a slice, or a mask."""
    if isinstance(wanted, slice):
        ends = [names.index(one) if isinstance(one, str) else one for one in (wanted.start, wanted.stop)]
        if isinstance(wanted.stop, str):
            ends[1] += 1  # a slice of names includes its end
        return list(range(count))[slice(ends[0], ends[1], wanted.step)]
    several = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    several = list(several) if isinstance(several, list | tuple) else [several]
    if several and all(isinstance(one, bool) for one in several):
        return [place for place, taken in enumerate(several) if taken]
    return [names.index(one) if isinstance(one, str) else range(count)[one] for one in several]
