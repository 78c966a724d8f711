"""What a fitted estimator tells of each column it takes: categories, texts or dates, and how a missing text was written."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from modelkeep.contracts.signature import EXACT
from modelkeep.plugins.runners.sklearn.anatomy import chosen_places, first_step, parts_of, steps_of
from modelkeep.plugins.runners.sklearn.boosters import Levels, levels_of

MOST_CATEGORIES = 100
"""How many categories of a column a signature shows; where there are more, it shows none."""

Category = str | int | float


class Feature(msgspec.Struct, frozen=True):
    """One column. `none`: a missing text was None in training, not NaN. `wide`: its categories are too large for floats.

    `is_boolean`: its categories are true and false. `is_named`: CatBoost compares its values by their names. `levels`: it was
    of pandas' categories, and is to be so again.
    """

    categories: tuple[Category, ...] = ()
    is_text: bool = False
    is_date: bool = False
    is_boolean: bool = False
    is_named: bool = False
    none: bool = False
    wide: bool = False
    levels: Levels | None = None

    @property
    def is_more_than_numbers(self) -> bool:
        """Whether it takes, or may take, what is no plain number."""
        return self.is_text or self.is_date or self.is_boolean or self.is_named


def features_of(
    estimator: Any,  # noqa: ANN401 - any object
    names: Sequence[str],
    count: int,
    texts: Sequence[bool] | None = None,
) -> dict[int, Feature]:
    """Return what is told of the columns, by their places; those that nothing is told of are not in it.

    `texts` says which of them are texts, where that is known. Raises `CannotLoad` where it had to be known.
    """
    found = dict(_told(first_step(estimator), list(names), list(range(count))))
    for place, levels in levels_of(estimator, count, texts):
        found[place] = _with_levels(found.get(place, Feature()), levels)
    return found


def _with_levels(feature: Feature, levels: Levels) -> Feature:
    values = levels.values
    return msgspec.structs.replace(
        feature,
        levels=levels,
        is_text=levels.are_texts,
        is_boolean=all(isinstance(one, bool) for one in values),
        categories=_shown(values),
        wide=_are_wide(values),
    )


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
    if callable(getattr(step, "get_cat_feature_indices", None)):
        yield from ((at[place], Feature(is_named=True)) for place in step.get_cat_feature_indices())
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
    return Feature(
        categories=_shown(values),
        is_text=categories.dtype.kind in "US" or any(isinstance(one, str) for one in values),
        is_boolean=bool(values) and all(isinstance(one, bool) for one in values),
        none=none or any(one is None for one in categories.tolist()),
        wide=_are_wide(values),
    )


def _shown(values: Sequence[object]) -> tuple[Category, ...]:
    plain = tuple(one for one in values if isinstance(one, str | int | float) and not isinstance(one, bool))
    return plain if len(plain) == len(values) <= MOST_CATEGORIES else ()


def _are_wide(values: Sequence[object]) -> bool:
    return all(isinstance(one, int) for one in values) and any(isinstance(one, int) and abs(one) > EXACT for one in values)
