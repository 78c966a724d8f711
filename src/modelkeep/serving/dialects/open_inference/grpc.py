"""The messages of an inference over gRPC: what is asked for, and the answer. Their tensors are those of REST.

Source: github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto. Values come as raw bytes,
for all inputs or for none, or typed, each in the field of its datatype. An answer is raw where the question was, and where one
of its outputs is of a datatype without a field of its own (FP16).
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.sandbox.frames import MAX_TEXTS
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import Tensors, values_of
from modelkeep.serving.coercion import Array
from modelkeep.serving.dialects.open_inference import GRPC_NAME, raw, tensors
from modelkeep.serving.engine import answer_headers
from modelkeep.serving.messages import Response
from modelkeep.serving.protos import open_inference_pb2 as pb

NAME: Final = GRPC_NAME
REQUEST_TYPE: Final = b"application/x-protobuf; messageType=inference.ModelInferRequest"
ANSWER_TYPE: Final = "application/x-protobuf; messageType=inference.ModelInferResponse"

_LARGE: Final = 256 * 1024
_MOST_FIELDS: Final = 16_384
_SHARED_MEMORY: Final = "shared_memory_region"
_WIDTHS: Final = {1: 8, 5: 4}
_NUMBER, _BYTES = 0, 2
_MOST_VARINT: Final = 10
_TENSORS: Final = frozenset({pb.ModelInferRequest.INPUTS_FIELD_NUMBER, pb.ModelInferRequest.OUTPUTS_FIELD_NUMBER})

_FIELDS: Final[Mapping[str, tuple[str, Any]]] = {
    "BOOL": ("bool_contents", np.bool_),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    "BYTES": ("bytes_contents", np.object_),
}
"""Where the typed values of each datatype are, and as what numpy reads them."""


class InvalidMessage(Invalid):
    """The message is not the one that this RPC takes."""

    code = "invalid_message"


def asked_in(message: bytes) -> pb.ModelInferRequest:
    """Return the question in a message; raises `InvalidMessage`."""
    if len(message) > _LARGE:
        _check_fields(message)
    try:
        asked: pb.ModelInferRequest = pb.ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise InvalidMessage from error
    return asked


def read(call: Call, asked: pb.ModelInferRequest) -> None:
    """Read the rows of a question, and have the call answered in kind; raises `InvalidInput`."""
    version = call.route.served.version
    if "timeout" in asked.parameters:
        tensors.deadline(call, _value(asked.parameters["timeout"]))
    wanted = tensors.wanted(version, [(one.name, _parameters(one.parameters)) for one in asked.outputs])
    arrays = _arrays(version.signature, asked)
    bare, request_id = bool(asked.raw_input_contents), asked.id
    call.answer_type = ANSWER_TYPE
    call.ask(
        tensors.payload(version.signature, arrays, exact=arrays if tensors.calculates(version) else ()),
        lambda call, share: _written(call, share, wanted, request_id, bare=bare),
    )


def tensors_of(signature: Signature, body: bytes) -> Tensors:
    """Return the inputs of a question that came before, read as a new one would be; raises what reading it raises."""
    arrays = _arrays(signature, asked_in(body))
    return tensors.payload(signature, arrays, exact=arrays)


def answer_of(body: bytes) -> dict[str, list[Any]]:
    """Return the outputs of an answer given before, a row each, as JSON has them; raises `ValueError` for what is none."""
    try:
        answer = pb.ModelInferResponse.FromString(body)
    except DecodeError as error:
        raise ValueError("no answer") from error
    arrays = _read_all(answer.outputs, answer.raw_output_contents)
    for one in answer.outputs:
        if "content_type" in one.parameters:
            arrays[one.name] = tensors.decoded(one.name, arrays[one.name], _value(one.parameters["content_type"]))
    return {name: values_of(array, "text") for name, array in arrays.items()}


# ---- what is asked


def _arrays(signature: Signature, asked: pb.ModelInferRequest) -> dict[str, Array]:
    arrays = _read_all(asked.inputs, asked.raw_input_contents)
    everywhere = _value(asked.parameters["content_type"]) if "content_type" in asked.parameters else None
    for one in asked.inputs:
        if one.parameters:
            if _SHARED_MEMORY in one.parameters:
                raise tensors.refuse(one.name, "shared_memory", "Shared memory is not served here: send the values.")
            if "content_type" in one.parameters:
                kind = _value(one.parameters["content_type"])
                arrays[one.name] = tensors.decoded(one.name, arrays[one.name], kind)
                continue
        if everywhere is not None:
            arrays[one.name] = tensors.decoded(one.name, arrays[one.name], everywhere)
    if everywhere is not None and len(arrays) == 1:
        ((name, array),) = arrays.items()
        return {tensors.meant(signature, name, everywhere): array}
    return arrays


def _read_all(described: Any, bare: Any) -> dict[str, Array]:  # noqa: ANN401 - tensors of questions and of answers
    """Return tensors by name, from raw contents, of which there is one for each, or else from their own."""
    if bare and len(bare) != len(described):
        text = f"There are {len(bare)} raw contents for {len(described)} tensors."
        raise InvalidInput(text, fields=(FieldError("raw_input_contents", "raw_count", text),))
    arrays: dict[str, Array] = {}
    for at, one in enumerate(described):
        if one.name in arrays:
            raise tensors.refuse(one.name, "duplicate_input", "This input is given twice.")
        if not bare:
            arrays[one.name] = _typed(one)
            continue
        if one.HasField("contents") and one.contents.ByteSize():
            raise tensors.refuse(one.name, "raw_and_typed", "There are raw contents, so there can be no typed ones.")
        arrays[one.name] = tensors.from_raw(one.name, one.datatype, one.shape, bare[at])
    return arrays


def _typed(one: Any) -> Array:  # noqa: ANN401 - as above
    """Return the tensor whose values are in the field of its datatype, and in no other."""
    if one.datatype == Dtype.FP16:
        raise tensors.refuse(one.name, "raw_only", "FP16 has no typed contents: send it raw.")
    if one.datatype not in _FIELDS:
        return tensors.from_array(one.name, one.datatype, one.shape, np.empty(0))  # which says that there is no such datatype
    field, kind = _FIELDS[one.datatype]
    if any(descriptor.name != field for descriptor, _values in one.contents.ListFields()):
        raise tensors.refuse(one.name, "wrong_contents", f"The values of {one.datatype} belong into {field}.")
    values = getattr(one.contents, field)
    if kind is not np.object_:
        array: Array = np.fromiter(values, kind, len(values))
    elif len(values) > MAX_TEXTS:
        raise tensors.refuse(one.name, "too_many", f"Has more than {MAX_TEXTS} elements.")
    else:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
    return tensors.from_array(one.name, one.datatype, one.shape, array)


def _parameters(given: Any) -> dict[str, object] | None:  # noqa: ANN401 - a map of the library's
    return {name: _value(value) for name, value in given.items()} if given else None


def _value(parameter: pb.InferParameter) -> object:
    """Return a parameter's value; None where it has none."""
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)


# ---- what is answered


def _written(call: Call, share: Share, wanted: list[tensors.Wanted], request_id: str, *, bare: bool) -> Response:
    outputs = list(tensors.outputs(call, share, wanted))
    bare = bare or any(one.dtype not in _FIELDS for one in outputs)
    answer = pb.ModelInferResponse(
        model_name=call.route.name, model_version=str(call.route.served.version.number), id=request_id
    )
    answer.parameters["prediction_id"].string_param = call.id
    for one in outputs:
        written = answer.outputs.add(name=one.name, datatype=one.dtype, shape=one.shape)
        if one.content_type:
            written.parameters["content_type"].string_param = one.content_type
        if bare:
            answer.raw_output_contents.append(raw.bytes_of(one.array))
            continue
        values = one.array.reshape(-1).tolist()
        if one.array.dtype == object:
            values = [_bytes(value) for value in values]
        getattr(written.contents, _FIELDS[one.dtype][0]).extend(values)
    return Response(200, answer.SerializeToString(), headers=answer_headers(call))


def _bytes(value: object) -> bytes:
    """Return an element of BYTES; a missing one is an empty one, since there is no other sign for it."""
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()


# ---- before a large message is read


def _check_fields(message: bytes) -> None:
    """Refuse a message of very many tiny fields, of which each would take a hundred times its size when it is read."""
    _counted(message, 0, len(message), 0, _TENSORS)


def _counted(message: bytes, at: int, end: int, count: int, tensors_in: frozenset[int]) -> int:
    """Return `count` and the fields between `at` and `end`, with those of the tensors, but not each of a tensor's values."""
    while at < end:
        count += 1
        if count > _MOST_FIELDS:
            raise InvalidMessage("The message has too many tensors or parameters.")
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(message, at)
            if tag >> 3 in tensors_in:
                count = _counted(message, at, min(at + length, end), count, frozenset())
            at += length
        elif kind == _NUMBER:
            _number, at = _varint(message, at)
        elif kind in _WIDTHS:
            at += _WIDTHS[kind]
        else:
            raise InvalidMessage
    return count


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends."""
    number = 0
    for place in range(_MOST_VARINT):
        if at + place >= len(message):
            break
        byte = message[at + place]
        number |= (byte & 127) << (7 * place)
        if byte < 128:  # noqa: PLR2004 - the highest bit says that more follows
            return number, at + place + 1
    raise InvalidMessage
