"""What a fitted estimator still knows of the rows it was trained on: where their columns lie, and how far they reach.

A sample need not come with a model of one matrix. Rows drawn from nowhere may all fall on one side of everything that it
learned, and then any other model would answer them alike: so they are drawn from here.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.edges import some_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

_CENTRES = (("mean_", "scale_"), ("center_", "scale_"), ("theta_", "var_"))
"""Attributes of middles, and of what is one away from them: of scalers, and of naive Bayes, where the latter is squared."""

_ROWS = (
    *("support_vectors_", "_fit_X", "X_fit_", "X_train_", "cluster_centers_", "subcluster_centers_"),
    *("centroids_", "means_", "mean_", "xbar_", "statistics_", "quantiles_", "location_"),
)
"""Attributes of rows as the estimator was given them, or of one such row."""

AROUND_ZERO = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Where most of what was scaled to middle 0 and spread 1 lies."""

_PARTS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)


def remembered(estimator: Any, width: int) -> "tuple[tuple[float, ...], ...]":  # noqa: ANN401 - any object
    """Return values by column of the `width` that this estimator takes, at most 64 each; none where it knows none."""
    import numpy as np

    found = [rows for rows in _rows(estimator, width) if len(rows)]
    if not found:
        return ()
    return tuple(some_of(column[np.isfinite(column)]) for column in np.concatenate(found).T)


def _rows(estimator: Any, width: int) -> "Iterator[Values]":  # noqa: ANN401 - any object
    """What can be read as rows of `width` finite or missing numbers."""
    import numpy as np

    for middle_name, away_name in _CENTRES:
        middle, away = _matrix(estimator, middle_name, width), _matrix(estimator, away_name, width)
        if middle is not None and away is not None:
            one = np.sqrt(np.abs(away)) if away_name == "var_" else away
            yield np.concatenate([middle + step * one for step in AROUND_ZERO])
    least, greatest = _matrix(estimator, "data_min_", width), _matrix(estimator, "data_max_", width)
    if least is not None and greatest is not None:
        yield np.concatenate([least + part * (greatest - least) for part in _PARTS])
    for name in _ROWS:
        rows = _matrix(estimator, name, width)
        if rows is not None:
            yield rows
    widest = _matrix(estimator, "max_abs_", width)
    if widest is not None:
        yield np.concatenate([widest, -widest])


def _matrix(estimator: Any, name: str, width: int) -> "Values | None":  # noqa: ANN401 - any object
    """The attribute as rows, each of this width, where it is numbers of that shape."""
    import numpy as np

    value = getattr(estimator, name, None)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.shape[-1:] != (width,):
        return None
    return value.reshape(-1, width).astype(np.float64)
