"""What goes into a model and what comes out: names, datatypes, shapes.

Datatypes are those of the Open Inference Protocol (V2). A shape's first axis is the batch; -1 is "any length".
"""

from enum import StrEnum
from typing import Self

import msgspec


class Dtype(StrEnum):
    """Datatypes of tensors, by their Open Inference Protocol names; BYTES are texts or byte strings."""

    BOOL = "BOOL", "bool"
    UINT8 = "UINT8", "uint8"
    UINT16 = "UINT16", "uint16"
    UINT32 = "UINT32", "uint32"
    UINT64 = "UINT64", "uint64"
    INT8 = "INT8", "int8"
    INT16 = "INT16", "int16"
    INT32 = "INT32", "int32"
    INT64 = "INT64", "int64"
    FP16 = "FP16", "float16"
    FP32 = "FP32", "float32"
    FP64 = "FP64", "float64"
    BYTES = "BYTES", "object"

    numpy: str
    """The numpy name; BYTES are arrays of objects (`str`, `bytes` or None)."""

    def __new__(cls, name: str, numpy: str = "") -> Self:
        """Make a member of its own name and numpy's."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.numpy = numpy
        return member


FLOATS = frozenset({Dtype.FP16, Dtype.FP32, Dtype.FP64})
EXACT = 2**53
"""Up to here every whole number is a float; beyond, a float stands for several."""

_FROM_NUMPY = {dtype.numpy: dtype for dtype in Dtype if dtype is not Dtype.BYTES}


def dtype_of(numpy_name: str) -> Dtype:
    """Return the datatype of a numpy dtype name (`float32`); texts and objects are BYTES. KeyError for others."""
    if numpy_name == "object" or numpy_name.startswith(("str", "bytes", "<U", "|S")):
        return Dtype.BYTES
    return _FROM_NUMPY[numpy_name]


class Layout(StrEnum):
    """How people think of a signature's inputs, and so which forms of rows it takes."""

    MATRIX = "matrix"  # one input of shape [n, k]: rows of k numbers, records if its columns have names
    TABLE = "table"  # several inputs of one value a row: columns of different types
    TENSORS = "tensors"  # anything else: named nested lists
    IMAGE = "image"  # one input of encoded pictures


DATETIME = "datetime"
"""The kind of a tensor of BYTES whose texts are dates, or dates with a time, in ISO 8601."""


BOOLEAN = "boolean"
"""The kind of a tensor of floats that holds true, false and gaps, as 1, 0 and NaN: `BOOL` has no place for a gap."""

WIDE = "wide"
"""The kind of a sample's column of whole numbers of which floats would lose digits: some are beyond 2^53."""


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One named tensor.

    `shape[0]` is the batch axis; -1 is any length. `nullable`: missing values are accepted (NaN for floats, None for BYTES).
    `columns` names the places of the second axis of a matrix. `classes` names those of a probability output. `kind` is
    "datetime" where the texts are dates, "boolean" where the floats are true, false and gaps. `categories` are those that the
    artifact tells; others are the model's affair.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    nullable: bool = False
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    kind: str = ""
    categories: tuple[str | int | float, ...] = ()


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """Typed inputs and outputs of one version."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    image: bool = False

    @property
    def layout(self) -> Layout:
        """How rows for these inputs are written."""
        if self.image:
            return Layout.IMAGE
        if len(self.inputs) == 1 and len(self.inputs[0].shape) == 2:  # noqa: PLR2004 - a matrix has two axes
            return Layout.MATRIX
        if all(len(one.shape) == 1 or one.shape[1:] == (1,) for one in self.inputs):
            return Layout.TABLE
        return Layout.TENSORS


class ImageSpec(msgspec.Struct, frozen=True):
    """How a picture becomes the model's input tensor; part of the version, so that it cannot drift from the weights.

    The shorter side is cut to a centred square of `crop` (a fraction of it), resized to `size` x `size` pixels, and each
    channel value v (0 to 255) becomes (v - mean) / std. `layout` is NCHW or NHWC. `activation` turns the model's raw output
    into scores: "softmax", "none", or "auto", which validation resolves by looking at the sample's output.
    """

    size: int = 224
    crop: float = 0.875
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    layout: str = "NCHW"
    interpolation: str = "bicubic"
    activation: str = "auto"
