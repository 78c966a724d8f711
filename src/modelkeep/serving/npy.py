"""A numpy array as it lies in an `.npy` file, as the inputs of a model: numbers and booleans, never a pickle.

Source of the format: numpy's `numpy.lib.format`. Only its header is parsed, of at most 1024 characters; what follows must be
exactly the array's bytes.
"""

import io
import math
import tokenize
import warnings
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy

from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput
from modelkeep.contracts.signature import FLOATS, Signature
from modelkeep.serving.codec import Tensors, check_rows, check_shape, tensors_from
from modelkeep.serving.coercion import Array, exact_below

_LONGEST_HEADER: Final = 1024
_MOST_AXES: Final = 16
_WIDEST: Final = 8


class InvalidNpy(Invalid):
    """The body is no array of numbers or booleans as `numpy.save` writes it."""

    code = "invalid_npy"


def tensors_from_npy(signature: Signature, body: bytes) -> Tensors:
    """Return arrays by input name; raises `InvalidNpy`, or `InvalidInput` where the array does not fit the model.

    Models with one input take the array as it is, rows first. A table takes [n, k], its columns in their order.
    """
    array = array_of(body)
    if signature.image:
        raise InvalidInput(
            "A picture model takes pictures, no arrays.", fields=(FieldError("inputs", "not_a_picture", "No array."),)
        )
    spec = signature.inputs[0]
    plain = array.dtype.kind == "f" or (array.dtype.kind in "iu" and array.dtype.itemsize < _WIDEST)
    if len(signature.inputs) == 1 and spec.dtype in FLOATS and plain and np.isfinite(array).all():
        check_shape(spec, array.shape, "inputs")
        with np.errstate(over="ignore"):
            fitted = array.astype(np.float64).astype(spec.dtype.numpy)
        if np.isfinite(fitted).all():
            check_rows({spec.name: fitted})
            return {spec.name: fitted}
    _check_exact(signature, array)
    return tensors_from(signature, _listed(array.tolist()))


def _check_exact(signature: Signature, array: Array) -> None:
    """Refuse floats of fewer digits than JSON's where whole numbers are needed, and they may have been others."""
    whole = [at for at, spec in enumerate(signature.inputs) if spec.dtype.numpy.lstrip("u").startswith("int")]
    if array.dtype.kind != "f" or not whole:
        return
    given = array[:, whole] if len(signature.inputs) > 1 and array.shape[1:] == (len(signature.inputs),) else array
    if (np.abs(given) >= exact_below(array)).any():
        text = f"So large a number loses digits as {array.dtype.name}: send whole numbers as integers."
        raise InvalidInput.at("inputs", "not_exact", text)


def array_of(body: bytes) -> Array:
    """Return the array of an `.npy` file; raises `InvalidNpy`."""
    stream = io.BytesIO(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            major, _minor = npy.read_magic(stream)
            read: Any = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}[major]
            shape, fortran, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise InvalidNpy from error
    if dtype.kind not in "biuf" or dtype.itemsize > _WIDEST:
        raise InvalidNpy
    if not 1 <= len(shape) <= _MOST_AXES or any(length < 1 for length in shape):
        raise InvalidNpy("The array holds nothing: its first axis is the batch.")
    if math.prod(shape) * dtype.itemsize != len(body) - stream.tell():
        raise InvalidNpy("The body is shorter or longer than the array that its header announces.")
    flat: Array = np.frombuffer(body, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _listed(value: Any) -> Any:  # noqa: ANN401 - nested lists of any depth
    """Return nested lists with None for NaN, which is what a missing value is in JSON."""
    if isinstance(value, list):
        return [_listed(one) for one in value]
    return None if value != value else value  # noqa: PLR0124 - only NaN differs from itself
