"""The categories that boosted trees inside an estimator were trained with, and which of its columns reach them unchanged.

LightGBM and XGBoost know a category by its place in the list that pandas had at training. They want such columns as pandas'
categories again: texts alone they refuse.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.sklearn.anatomy import chosen_places

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

Category = str | int | float | bool


class Levels(msgspec.Struct, frozen=True):
    """The categories of one column, in the order of their codes. `strict`: the library refuses one that is not among them."""

    values: tuple[Category, ...]
    strict: bool

    @property
    def are_texts(self) -> bool:
        """Whether the column's values are texts."""
        return any(isinstance(one, str) for one in self.values)

    def reader(self, name: str) -> "Callable[[NDArray[np.generic]], Any]":
        """Return what makes pandas' categories of values. What is missing has none; what is unknown has none or is refused."""
        import pandas as pd

        known: dict[object, int] = {value: code for code, value in enumerate(self.values)}
        dtype = pd.CategoricalDtype(pd.Index(self.values))

        def code(one: object) -> int:
            value = one.decode() if isinstance(one, bytes) else one
            found = known.get(value, -1)
            if found < 0 and self.strict and value is not None and value == value:  # noqa: PLR0124 - NaN is missing
                raise ValueError(f"the category {value!r} of {name!r} is not one of those that the model was trained with")
            return found

        return lambda array: pd.Categorical.from_codes([code(one) for one in array.reshape(-1).tolist()], dtype=dtype)


def levels_of(estimator: Any, count: int, texts: Sequence[bool] | None) -> Iterator[tuple[int, Levels]]:  # noqa: ANN401 - any object
    """Yield the columns that reach boosted trees as categories, by their places; raises `CannotLoad` where they cannot be told.

    `texts` says which of the columns are texts, where that is known.
    """
    for booster, places in _boosters(estimator, list(range(count)), 0):
        seen = None if texts is None else [one is not None and texts[one] for one in places]
        for at, levels in _levels(booster, seen, len(places)):
            place = places[at] if at < len(places) else None
            if place is not None:
                yield place, levels


# ---- which columns reach boosted trees

Places = list[int | None]
"""Where each column of a table inside an estimator comes from; None where a step made it."""

_DEEPEST = 8


def _boosters(thing: Any, places: Places, depth: int) -> Iterator[tuple[Any, Places]]:  # noqa: ANN401 - any object
    """Yield the boosted trees inside, with the columns that they see."""
    booster = thing.booster_ if hasattr(thing, "booster_") else thing
    if getattr(booster, "pandas_categorical", None) is not None or callable(getattr(booster, "get_booster", None)):
        yield booster, places
    elif depth < _DEEPEST:
        for inner, seen in _inside(thing, places):
            yield from _boosters(inner, seen, depth + 1)


def _inside(thing: Any, places: Places) -> Iterator[tuple[Any, Places]]:  # noqa: ANN401 - any object
    """Yield what an estimator is made of, with the columns that each part sees."""
    steps, parts = getattr(thing, "steps", None), getattr(thing, "transformers_", None)
    if isinstance(steps, list):
        for _name, step in steps:
            yield step, places
            places = _after(step, places)
    elif isinstance(parts, list):
        for _name, part, wanted in parts:
            yield part, _chosen(thing, wanted, places)
    elif type(thing).__module__.startswith("sklearn.") and getattr(thing, "n_features_in_", len(places)) == len(places):
        for name, value in vars(thing).items():
            if name.endswith("_") or not hasattr(thing, "get_params"):  # what an estimator was made of is not fitted
                yield from ((inner, places) for inner in _listed(value))


def _listed(value: object) -> Iterator[object]:
    several = value.ravel().tolist() if getattr(getattr(value, "dtype", None), "hasobject", False) else value  # type: ignore[attr-defined]
    for one in several if isinstance(several, list | tuple) else several.values() if isinstance(several, dict) else [several]:
        if hasattr(one, "__dict__") and not isinstance(one, type):
            yield one


def _after(step: Any, places: Places) -> Places:  # noqa: ANN401 - any object
    """Where the columns that a step hands on come from."""
    if step is None or step == "passthrough":
        return places
    steps, parts = getattr(step, "steps", None), getattr(step, "transformers_", None)
    if isinstance(steps, list):
        for _name, one in steps:
            places = _after(one, places)
        return places
    if type(step).__name__ == "FunctionTransformer" and step.func is None:
        return places
    if isinstance(parts, list):
        made: Places = [None] * max((one.stop for one in step.output_indices_.values()), default=0)
        for name, part, wanted in parts:
            where = step.output_indices_[name]
            found = [] if isinstance(part, str) and part == "drop" else _after(part, _chosen(step, wanted, places))
            if len(found) == where.stop - where.start:
                made[where] = found
        return made
    return []


def _chosen(step: Any, wanted: Any, places: Places) -> Places:  # noqa: ANN401 - as scikit-learn takes columns
    if len(places) != getattr(step, "n_features_in_", len(places)):
        return []
    names = [str(one) for one in getattr(step, "feature_names_in_", ())]
    return [places[at] for at in chosen_places(wanted, names, len(places))]


# ---- what boosted trees say


def _levels(booster: Any, texts: Sequence[bool] | None, count: int) -> Iterator[tuple[int, Levels]]:  # noqa: ANN401 - any booster
    if callable(getattr(booster, "get_booster", None)):
        for at, values in enumerate(_of_xgboost(booster.get_booster())):
            if values:
                yield at, Levels(values, strict=True)
        return
    lists = [tuple(map(_plain, one)) for one in booster.pandas_categorical or ()]
    listed = booster.params.get("categorical_column") or ()
    if lists:
        chosen = _places_of(lists, [at for at in listed if isinstance(at, int)], texts)
        yield from ((at, Levels(values, strict=False)) for at, values in zip(chosen, lists, strict=True) if at < count)


def _places_of(lists: Sequence[tuple[Category, ...]], listed: Sequence[int], texts: Sequence[bool] | None) -> Sequence[int]:
    """Which columns LightGBM's lists of categories are of: it keeps those that it splits by category, and not the ordered."""
    by_text = [at for at, is_text in enumerate(texts or ()) if is_text]
    for places in (sorted(set(listed)), sorted({*listed, *by_text}), by_text):
        fits = len(places) == len(lists)
        if fits and (
            texts is None
            or all(
                any(isinstance(one, str) for one in values) == (at < len(texts) and texts[at])
                for at, values in zip(places, lists, strict=True)
            )
        ):
            return places
    raise CannotLoad(
        Reason.SAMPLE_NEEDED,
        f"The model has categories for {len(lists)} columns and does not say for which: the sample must have texts in them.",
    )


def _of_xgboost(booster: Any) -> list[tuple[Category, ...] | None]:  # noqa: ANN401 - XGBoost carries no types
    """The categories of each column, from lists in the layout of Apache Arrow: texts are one string and where each begins."""
    if "c" not in (booster.feature_types or ()):
        return []
    # The whole model as text: fewer rounds of it come without their categories, and Booster.get_categories needs pyarrow.
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    encoded = (model.get("gbtree") or model).get("model", {}).get("cats", {}).get("enc", ())
    return [_of_arrow(one) for one in encoded]


def _of_arrow(one: dict[str, Any]) -> tuple[Category, ...] | None:
    if "offsets" not in one:
        return tuple(one["values"])
    raw = bytes(value & 0xFF for value in one["values"])
    if not raw.isascii():  # XGBoost 3.2 cuts the bytes by the numbers of letters, so that ends are lost
        raise CannotLoad(
            Reason.SIGNATURE_UNSUPPORTED,
            "XGBoost keeps categories with letters beyond ASCII only in part, so they cannot be told from the model. "
            "Train a column of such categories on other names, or on numbers.",
        )
    return tuple(raw[start:end].decode() for start, end in pairwise(one["offsets"])) or None


def _plain(value: Any) -> Category:  # noqa: ANN401 - whatever pandas had
    plain = value.item() if hasattr(value, "item") else value
    if not isinstance(plain, str | int | float):
        kind = type(plain).__name__
        raise CannotLoad(
            Reason.SIGNATURE_UNSUPPORTED, f"The model has categories of the type {kind}: texts and numbers are served."
        )
    return plain
