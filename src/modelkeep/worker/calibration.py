"""Calibration rows: read and fitted like a sample, and then all different, finite, and as many as a comparison needs."""

from typing import TYPE_CHECKING

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Signature
from modelkeep.worker.heldout import FEWEST, different
from modelkeep.worker.samples import MOST_ROWS, RefusedError, Sample, fit, read_sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

MOST_BYTES = 192 << 20
"""Rows of more bytes than this would not travel to a runner at once."""


def read_calibration(data: bytes, filename: str, *, picture: bool) -> Sample:
    """Read the file; raises `RefusedError`."""
    try:
        return read_sample(data, filename, picture=picture)
    except RefusedError as error:
        raise _unusable(error.rejection.detail.replace("sample", "calibration file")) from error


def fit_calibration(sample: Sample, signature: Signature) -> "Arrays":
    """Return the different rows as arrays for these inputs, at most `MOST_ROWS`; raises `RefusedError`."""
    import numpy as np

    try:
        rows = fit(sample, signature)
    except RefusedError as error:
        raise _unusable(error.rejection.detail) from error
    rows = {name: array[:MOST_ROWS] for name, array in rows.items()}
    for name, array in rows.items():
        finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones(array.shape, dtype=bool)
        if not finite.all():
            place = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
            raise _unusable(f"Row {place + 1} has a value of {name!r} that is missing or not finite.")
    places = different(rows)
    if len(places) < 2 * FEWEST:
        raise _unusable(f"There are {len(places)} different rows, and {2 * FEWEST} are needed: half of them is held out.")
    rows = {name: np.ascontiguousarray(array[places]) for name, array in rows.items()}
    size = sum(_size(array) for array in rows.values())
    if size > MOST_BYTES:
        raise _unusable(f"The rows take {size} bytes, and at most {MOST_BYTES} are used: send fewer.")
    return rows


def _size(array: "NDArray[np.generic]") -> int:
    return array.nbytes if array.dtype != object else sum(len(one) for one in array.reshape(-1).tolist() if one is not None)


def _unusable(detail: str) -> RefusedError:
    return RefusedError(Reason.CALIBRATION_UNUSABLE, detail)
