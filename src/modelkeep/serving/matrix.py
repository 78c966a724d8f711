"""The common case of rows: lists of plain floats for a model that takes one matrix of them, made into an array once a run."""

import msgspec

from modelkeep.contracts.signature import EXACT, FLOATS, Layout, Signature, TensorSpec
from modelkeep.serving.codec import tensors_from

_matrix_of_floats = msgspec.json.Decoder(list[list[float]]).decode


class Matrix:
    """Rows of plain floats, of the right width, for a model with one matrix: made into an array once for a whole run."""

    __slots__ = ("rows", "signature", "spec")

    def __init__(self, signature: Signature, rows: list[list[float]]) -> None:
        self.signature = signature
        self.spec = signature.inputs[0]
        self.rows = rows

    def check(self) -> None:
        """Raise `InvalidInput` naming the values that do not fit the model's datatype."""
        tensors_from(self.signature, self.rows)


def plain_matrix(signature: Signature) -> TensorSpec | None:
    """Return the input whose rows `plain_rows` reads: the one matrix of floats, if that is what the model takes."""
    if signature.layout is Layout.MATRIX and signature.inputs[0].dtype in FLOATS:
        return signature.inputs[0]
    return None


def plain_rows(spec: TensorSpec, raw: bytes | memoryview) -> list[list[float]] | None:
    """Read the JSON of `inputs` where it is the common case: rows of floats, of the right width, for one matrix of floats.

    Returns None for everything else, which goes the careful way, `tensors_from_json`.
    """
    try:
        rows = _matrix_of_floats(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not rows:
        return None
    width = spec.shape[1]
    if width == -1:
        width = len(rows[0])
    for row in rows:
        if len(row) != width:
            return None
    if width and (max(map(max, rows)) >= EXACT or min(map(min, rows)) <= -EXACT):
        return None  # it may have been a whole number with more digits
    return rows
