"""What Open Inference tensors are, whichever way they come: what goes into a model, and what comes out.

A tensor says its name, datatype and shape. Its values come as lists (`from_values`), as bytes (`from_raw`) or as an array
(`from_array`); `payload` makes the engine's inputs of them, `wanted` reads which outputs are asked for, and `outputs` gives
those of an answer. REST and gRPC differ in how they write these down, and in nothing else.
"""

import base64
import binascii
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from modelkeep.contracts.errors import FieldError, InvalidInput
from modelkeep.contracts.signature import EXACT, FLOATS, Dtype, Layout, Signature, TensorSpec
from modelkeep.contracts.snapshot import ServedVersion
from modelkeep.sandbox.frames import datatype
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import Tensors, check_shape, refuse_not_finite, tensor_from_flat, tensors_from
from modelkeep.serving.coercion import Array, exact_below
from modelkeep.serving.dialects.open_inference import raw
from modelkeep.serving.engine import best, class_names

MAX_CLASSES: Final = 1000
MAX_TIMEOUT_US: Final = 2**53
_MAX_AXES = 16
_MAX_VALUES = 2**31
_CALCULATES = frozenset({"onnxruntime", "openvino", "torch", "python"})
_CLASS_AXES = 2
_NUMPY = {dtype: np.dtype(dtype.numpy) for dtype in Dtype}
_BASE64: Final = "base64"
_JSON: Final = "pd_json"
_WHOLE: Final = ("np", "str")
"""What MLServer's codecs say of a request whose one tensor is all of it, under a name of the codec's own."""

Parameters = Mapping[str, object]
_NONE: Parameters = {}

_decode_scalar = msgspec.json.Decoder(bool | int | float | str | None).decode
_JSON_KINDS: Final = ((Dtype.BYTES, {str}), (Dtype.BOOL, {bool}), (Dtype.INT64, {int}), (Dtype.FP64, {int, float}))


# ---- what goes in


def from_values(name: str, datatype: str, shape: Sequence[int], data: object) -> Array:
    """Return the tensor whose values are nested or flat lists, row-major; None stands for a missing float or text.

    Raises `InvalidInput` naming `inputs.<name>` for an unknown datatype, another shape, or values the datatype does not have.
    """
    spec = TensorSpec(name, *_kind(name, datatype, shape), nullable=True)
    return tensor_from_flat(spec, data, spec.shape, f"inputs.{name[:63]}")


def from_raw(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Array:
    """Return the tensor whose values are these bytes, exactly (see `raw`); elements of BYTES are `bytes`."""
    dtype, lengths = _kind(name, datatype, shape)
    return raw.array_of(dtype, lengths, data, f"inputs.{name[:63]}")


def from_array(name: str, datatype: str, shape: Sequence[int], array: Array) -> Array:
    """Return the tensor whose values are this array's, of any shape of that size: integers of another width are checked."""
    dtype, lengths = _kind(name, datatype, shape)
    if array.size != math.prod(lengths):
        raise refuse(name, "shape_mismatch", f"Has {array.size} values; the shape {list(lengths)} has {math.prod(lengths)}.")
    return _as_kind(TensorSpec(name, dtype, lengths, nullable=True), array.reshape(lengths), f"inputs.{name[:63]}", exact=True)


def from_bare(signature: Signature, data: bytes) -> tuple[str, Array]:
    """Return the name and the tensor of a body that is nothing but the bytes of the model's only input.

    Its free length follows from their number; one element of BYTES comes without its length. Raises `InvalidInput` where the
    model has several inputs, or more than one free length beside a batch of one.
    """
    if len(signature.inputs) != 1:
        raise InvalidInput(f"The model has {len(signature.inputs)} inputs, so a request cannot be the bytes of one.")
    spec = signature.inputs[0]
    if spec.dtype is Dtype.BYTES:
        array = np.empty(1, dtype=object)
        array[0] = data
        return spec.name, array.reshape([1] * len(spec.shape))
    shape = list(spec.shape)
    if shape.count(-1) > 1:
        shape[0] = 1
    if shape.count(-1) > 1:
        raise refuse(spec.name, "shape_mismatch", "Several lengths of the model's input are free: say the shape.")
    known = math.prod(length for length in shape if length != -1) * np.dtype(spec.dtype.numpy).itemsize
    filled = [len(data) // known if length == -1 and known else length for length in shape]
    return spec.name, from_raw(spec.name, spec.dtype.value, filled, data)


def decoded(name: str, array: Array, content_type: object) -> Array:
    """Return a tensor of BYTES as its `content_type` parameter says (MLServer's codecs): of "base64", what the texts stand for.

    Of "pd_json", with which a frame's columns of objects come, the numbers, texts or booleans that each text is as JSON. All
    others ("str", "datetime", "np", "pd", ...) say how a client would like to see values that are what they are.
    """
    if array.dtype != object or content_type not in (_BASE64, _JSON):
        return array
    if content_type == _JSON:
        return _from_json(name, array)
    return _each(array, lambda value: None if value is None else _from_base64(name, value))


def _from_base64(name: str, value: str | bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse(name, "invalid_base64", "Not valid base64.") from error


def _from_json(name: str, array: Array) -> Array:
    try:
        values = [_decode_scalar(value) for value in array.reshape(-1).tolist()]
    except (msgspec.DecodeError, UnicodeError, TypeError) as error:
        raise refuse(name, "invalid_json", f"The content type {_JSON} is for numbers, texts or booleans as JSON.") from error
    kinds = set(map(type, values)) - {type(None)}
    dtype = next((dtype for dtype, some in _JSON_KINDS if kinds <= some), None)
    if dtype is None:
        raise refuse(name, "mixed_types", "The values of this column are of several types.")
    return from_values(name, dtype.value, array.shape, values)


def _each(array: Array, change: Callable[[Any], object]) -> Array:
    """Return an array of objects with each of its values changed."""
    found = np.empty(array.size, dtype=object)
    found[:] = [change(value) for value in array.reshape(-1).tolist()]
    return found.reshape(array.shape)


def meant(signature: Signature, name: str, content_type: object) -> str:
    """Return the input that the only tensor of a request is for: where its codec names none, the only one that there is."""
    only = signature.inputs[0]
    free = len(signature.inputs) == 1 and content_type in _WHOLE and name not in only.columns
    return only.name if free else name


def calculates(version: ServedVersion) -> bool:
    """Whether NaN and infinity are numbers to the model, as to any graph, and not gaps that it was or was not fitted with."""
    return version.framework in _CALCULATES


def payload(signature: Signature, arrays: dict[str, Array], *, exact: Collection[str] = ()) -> Tensors:
    """Return the engine's inputs of the tensors that a request gives, by name.

    `exact` are those whose NaN and infinities are values and no gaps. Raises `InvalidInput` where an input is missing, unknown,
    of another shape, or of a datatype in which its values would not be the same.
    """
    if signature.layout is Layout.IMAGE:
        name = signature.inputs[0].name
        _check_names({name}, arrays)
        if arrays[name].dtype != object:
            raise refuse(name, "datatype_mismatch", f"The model takes {Dtype.BYTES}.")
        return tensors_from(signature, {name: arrays[name].reshape(-1).tolist()})
    if signature.layout is Layout.MATRIX and signature.inputs[0].name not in arrays and signature.inputs[0].columns:
        return {signature.inputs[0].name: _stacked(signature.inputs[0], arrays, exact)}
    _check_names({spec.name for spec in signature.inputs}, arrays)
    loose = signature.layout is Layout.TABLE
    return {spec.name: _fitted(spec, arrays[spec.name], loose=loose, exact=spec.name in exact) for spec in signature.inputs}


def deadline(call: Call, timeout: object) -> None:
    """Bring a call's deadline forward to a request's `timeout` parameter: microseconds, 0 for none."""
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 <= timeout <= MAX_TIMEOUT_US:
        text = "The parameter `timeout` is a whole number of microseconds."
        raise InvalidInput(text, fields=(FieldError("parameters.timeout", "invalid_timeout", text),))
    if timeout:
        call.deadline = min(call.deadline, call.started + timeout / 1e6)


def _kind(name: str, datatype: str, shape: Sequence[int]) -> tuple[Dtype, tuple[int, ...]]:
    """Read what a tensor says it is."""
    try:
        dtype = Dtype(datatype)
    except ValueError as error:
        raise refuse(name, "unknown_datatype", "This datatype is not one that is served here.") from error
    if len(shape) > _MAX_AXES or not shape or min(shape) < 0:
        raise refuse(name, "shape_mismatch", "The shape is a list of one to sixteen lengths, none below 0.")
    if math.prod(max(1, length) for length in shape) > _MAX_VALUES:
        raise refuse(name, "shape_mismatch", "The shape holds more values than a request can.")
    return dtype, tuple(shape)


def _stacked(spec: TensorSpec, arrays: dict[str, Array], exact: Collection[str]) -> Array:
    """Put one tensor a column together as the matrix that the model takes."""
    _check_names(set(spec.columns), arrays)
    columns = [
        _fitted(
            TensorSpec(name, spec.dtype, (-1,), nullable=spec.nullable, kind=spec.kind),
            arrays[name],
            loose=True,
            exact=name in exact,
        )
        for name in spec.columns
    ]
    if len({len(values) for values in columns}) != 1:
        raise InvalidInput("The inputs have different numbers of rows.")
    return np.stack(columns, axis=1)


def _check_names(known: set[str], arrays: dict[str, Array]) -> None:
    if known == arrays.keys():
        return
    fields = [FieldError(f"inputs.{name}", "missing_input", "This input is missing.") for name in sorted(known - arrays.keys())]
    fields += [
        FieldError(f"inputs.{name[:63]}", "unknown_input", "The model has no such input.")
        for name in sorted(arrays.keys() - known)
    ]
    raise InvalidInput(
        f"{fields[0].path}: {fields[0].message} The model takes {', '.join(sorted(known))}.", fields=tuple(fields)
    )


def _fitted(spec: TensorSpec, array: Array, *, loose: bool, exact: bool) -> Array:
    """Return the array as the model's datatype. `loose`: a column may come as [n] or as [n, 1]."""
    path = f"inputs.{spec.name[:63]}"
    if loose and array.size == array.shape[0]:
        array = array.reshape(array.shape[0], *(1 for _ in spec.shape[1:]))
    check_shape(spec, array.shape, path)
    given = datatype(array)
    if given is not spec.dtype and (given is Dtype.BYTES or spec.dtype is Dtype.BYTES):
        raise refuse(spec.name, "datatype_mismatch", f"The model takes {spec.dtype}.")
    return _as_kind(spec, array, path, exact=exact)


def _as_kind(spec: TensorSpec, array: Array, path: str, *, exact: bool) -> Array:
    """Return the array in the datatype of `spec` with all its values unchanged; what does not fit is told value by value."""
    if array.dtype == object:
        array = _as_texts(array)
        fine = not spec.kind and (spec.nullable or all(value is not None for value in array.reshape(-1).tolist()))
    else:
        fine = not spec.kind and (exact or array.dtype.kind != "f" or _takes(spec, array))
    if fine:
        found = array if array.dtype == _NUMPY[spec.dtype] else _cast(spec, array)
        if found is not None:
            return found
    values = [None if value != value else value for value in array.reshape(-1).tolist()]  # noqa: PLR0124 - only NaN differs from itself
    return tensor_from_flat(spec, values, array.shape, path, exact=exact_below(array))


def _takes(spec: TensorSpec, array: Array) -> bool:
    """Whether floats are all numbers, or gaps where the model takes some."""
    return bool((~np.isinf(array) if spec.nullable else np.isfinite(array)).all())


def _cast(spec: TensorSpec, array: Array) -> Array | None:
    """Return numbers in another datatype where that is plain to see, None where each of them is to be looked at."""
    if spec.dtype in FLOATS and array.dtype.kind in "iu" and array.size and max(-int(array.min()), int(array.max())) > EXACT:
        return None
    if spec.dtype in FLOATS and array.dtype.kind in "fiu":
        with np.errstate(over="ignore"):
            found: Array = array.astype(np.float64).astype(spec.dtype.numpy)
        return found if np.array_equal(np.isinf(found), np.isinf(array)) else None
    if array.dtype.kind in "iu" and spec.dtype.numpy.lstrip("u").startswith("int"):
        limits = np.iinfo(spec.dtype.numpy)
        if not array.size or (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
            return array.astype(spec.dtype.numpy)
    return None


def _as_texts(array: Array) -> Array:
    """Return byte strings as the texts they are; those that are no UTF-8 stay as they are."""
    values = array.reshape(-1).tolist()
    if not any(isinstance(value, bytes) for value in values):
        return array
    found = np.empty(len(values), dtype=object)
    found[:] = [_text(value) if isinstance(value, bytes) else value for value in values]
    return found.reshape(array.shape)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def refuse(name: str, code: str, message: str) -> InvalidInput:
    """Return the refusal of the input of this name."""
    return InvalidInput.at(f"inputs.{name[:63]}", code, message)


# ---- what comes out


class Wanted(NamedTuple):
    """An output that is asked for: as bytes, or not; and how many of its best classes to name instead, 0 for the values.

    `base64`: values of BYTES are to be written so.
    """

    name: str
    classes: int = 0
    binary: bool = False
    base64: bool = False


class Output(NamedTuple):
    """An output as it goes out. `dtype` is the datatype's name; the elements of BYTES are texts, byte strings or None.

    `content_type` is the one that was asked for, where the values are written by it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    array: Array
    binary: bool
    content_type: str | None = None


def wanted(version: ServedVersion, asked: Sequence[tuple[str, Parameters | None]], *, binary: bool = False) -> list[Wanted]:
    """Return the outputs to answer with, in the order asked for by name and parameters; none asked for means all.

    `binary` is what holds for those that say nothing of it. Raises `InvalidInput` for outputs and classes the model has not.
    """
    if not asked:
        return [Wanted(spec.name, 0, binary) for spec in version.signature.outputs]
    specs = {spec.name: spec for spec in version.signature.outputs}
    found = []
    for name, parameters in asked:
        if name not in specs:
            path = f"outputs.{name[:63]}"
            text = f"The model has no such output; it has {', '.join(specs)}."
            raise InvalidInput.at(path, "unknown_output", text)
        said = parameters or _NONE
        classes = _classes(specs[name], said.get("classification", 0))
        encoded = said.get("content_type") == _BASE64 and specs[name].dtype is Dtype.BYTES
        found.append(Wanted(name, classes, _flag(said, "binary_data", binary), encoded))
    return found


def outputs(call: Call, share: Share, wanted: Iterable[Wanted]) -> Iterator[Output]:
    """Yield what a call is answered with."""
    for one in wanted:
        array = share.tensor(one.name)
        if call.route.settings.not_finite == "refuse":
            refuse_not_finite(array)
        if one.classes:
            array = _best(array, one.classes, _labels(call, one.name))
        if one.base64:
            array = _each(array, _to_base64)
        yield Output(one.name, datatype(array).value, array.shape, array, one.binary, _BASE64 if one.base64 else None)


def _to_base64(value: object) -> str | None:
    if value is None:
        return None
    return base64.b64encode(value if isinstance(value, bytes) else str(value).encode()).decode()


def flag(parameters: Parameters | None, name: str) -> bool:
    """Return a parameter that is true or false, and false where it is not given; raises `InvalidInput` for anything else."""
    return _flag(parameters or _NONE, name, False)


def _flag(parameters: Parameters, name: str, default: bool) -> bool:  # noqa: FBT001 - what holds when nothing is said
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        text = f"The parameter `{name}` is true or false."
        raise InvalidInput(text, fields=(FieldError(f"parameters.{name}", "invalid_parameter", text),))
    return value


def _classes(spec: TensorSpec, count: object) -> int:
    path = f"outputs.{spec.name[:63]}"
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_CLASSES:
        text = f"The parameter `classification` is a whole number from 0 to {MAX_CLASSES}."
        raise InvalidInput.at(path, "invalid_parameter", text)
    if count and (spec.dtype in {Dtype.BYTES, Dtype.BOOL} or len(spec.shape) != _CLASS_AXES):
        text = "This output has no number for each class, so it has no best ones."
        raise InvalidInput.at(path, "no_scores", text)
    return count


def _labels(call: Call, output: str) -> tuple[str, ...]:
    """Return the names of an output's classes, as far as they have any."""
    served = call.route.served
    if output == served.version.scores:
        return class_names(served)
    return next((spec.classes for spec in served.version.signature.outputs if spec.name == output), ())


def _best(array: Array, count: int, labels: tuple[str, ...]) -> Array:
    """Return each row's best classes, best first, as texts `value:index` or `value:index:label`."""
    places, values = best(array, count)
    found = np.empty(places.shape, dtype=object)
    label: Callable[[int], str] = lambda index: f":{labels[index]}" if index < len(labels) else ""  # noqa: E731
    for row, indexes in enumerate(places.tolist()):
        found[row] = [f"{values[row, at]!s}:{index}{label(index)}" for at, index in enumerate(indexes)]
    return found
