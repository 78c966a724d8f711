"""What an estimator is made of: its steps and parts, where it comes from, and what it is called."""

from collections.abc import Iterator
from typing import Any


def first_step(estimator: Any) -> Any:  # noqa: ANN401 - any object
    """Return what sees the rows first."""
    while True:
        inner = getattr(estimator, "best_estimator_", None)
        steps = getattr(estimator, "steps", None)
        if inner is not None:
            estimator = inner
        elif isinstance(steps, list) and steps:
            estimator = steps[0][1]
        else:
            return estimator


def steps_of(transformer: Any) -> Iterator[Any]:  # noqa: ANN401 - any object
    """Yield the steps of a pipeline, and of those in it; of anything else, itself."""
    steps = getattr(transformer, "steps", None)
    if isinstance(steps, list):
        for _name, step in steps:
            yield from steps_of(step)
    else:
        yield transformer


def parts_of(estimator: Any) -> Iterator[Any]:  # noqa: ANN401 - any object
    """The estimator and every estimator inside it."""
    yield estimator
    if hasattr(estimator, "get_params"):
        for value in estimator.get_params(deep=True).values():
            if hasattr(value, "fit"):
                yield value


def fitted_parts(estimator: Any) -> Iterator[Any]:  # noqa: ANN401 - any object
    """Yield the estimator and every fitted estimator that it holds, however deep."""
    from sklearn.base import BaseEstimator

    waiting, seen = [estimator], set()
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, BaseEstimator):
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            yield thing
            waiting.extend(value for name, value in vars(thing).items() if name.endswith("_"))
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, list | tuple) or getattr(getattr(thing, "dtype", None), "hasobject", False):
            waiting.extend(thing)


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


def origin(estimator: Any) -> tuple[str, str]:  # noqa: ANN401 - any object
    """Return the package that an estimator comes from, and its version here."""
    from importlib.metadata import PackageNotFoundError, version

    package = type(estimator).__module__.partition(".")[0]
    name = "scikit-learn" if package == "sklearn" else package
    try:
        return name, version(name)
    except PackageNotFoundError:
        return name, ""


def shape_of(estimator: Any) -> str:  # noqa: ANN401 - any object
    """The estimator's class, and for a pipeline those of its steps."""
    steps = getattr(estimator, "steps", None)
    name = type(estimator).__name__
    if isinstance(steps, list):
        return f"{name}({', '.join(shape_of(step) for _name, step in steps)})"
    inner = getattr(estimator, "best_estimator_", None)
    return f"{name}({shape_of(inner)})" if inner is not None else name


def refuses(estimator: Any, rows: Any) -> bool:  # noqa: ANN401 - any object, an array
    """Whether a fitted estimator will not have these rows."""
    import warnings

    ask = getattr(estimator, "transform", None) or estimator.predict
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ask(rows)
        except ValueError:
            return True
    return False
