"""The common case of rows: lists of plain floats for a model that takes one matrix of them, made into an array once a run.

Long ones are read and converted piece by piece. Either is one step for Python, during which no other thread goes on.
"""

import re
from math import hypot
from typing import Final

import msgspec
import numpy as np

from modelkeep.contracts.signature import EXACT, FLOATS, Dtype, Layout, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, tensors_from
from modelkeep.serving.coercion import Array

_PIECE: Final = 64 * 1024  # bytes, read in half a millisecond
_PIECE_ROWS: Final = 1024
_BETWEEN_ROWS: Final = re.compile(rb"\]\s*,")
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

    def tensors(self) -> Tensors:
        """Return the rows as the model's input; raises `InvalidInput` as `check` does."""
        pieces = []
        for at in range(0, len(self.rows), _PIECE_ROWS):
            piece = fitted(self.spec, self.rows[at : at + _PIECE_ROWS])
            if piece is None:
                return tensors_from(self.signature, self.rows)
            pieces.append(piece)
        return {self.spec.name: np.concatenate(pieces)}


def fitted(spec: TensorSpec, rows: list[list[float]]) -> Array | None:
    """Return rows as an array of the model's datatype; None where a value is too large for it."""
    if spec.dtype is Dtype.FP64:
        return np.array(rows, dtype=np.float64)  # JSON's numbers are all of them
    with np.errstate(over="ignore"):
        array: Array = np.array(rows, dtype=spec.dtype.numpy)
    return array if np.isfinite(array).all() else None


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
        rows = _matrix_of_floats(raw) if len(raw) <= _PIECE else _in_pieces(bytes(raw))
    except (msgspec.DecodeError, RecursionError):
        return None
    if not rows:
        return None
    width = spec.shape[1]
    if width == -1:
        width = len(rows[0])
    for row in rows:
        if len(row) != width or hypot(*row) >= EXACT:  # long as a vector: one may have been a whole number with more digits
            return None
    return rows


def _in_pieces(raw: bytes) -> list[list[float]]:
    """Read long rows of floats, cut between two rows: what is no list of such rows has a piece that is none, and raises."""
    text = raw.strip(b" \t\r\n")
    if text[:1] != b"[" or text[-1:] != b"]":
        return _matrix_of_floats(raw)
    rows: list[list[float]] = []
    at, end = 1, len(text) - 1
    while True:
        cut = _BETWEEN_ROWS.search(text, min(at + _PIECE, end), end)
        if cut is None:
            return rows + _matrix_of_floats(b"[%s]" % text[at:end])
        rows += _matrix_of_floats(b"[%s]" % text[at : cut.start() + 1])
        at = cut.end()
