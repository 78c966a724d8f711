"""Bodies of inference requests and answers: JSON, and JSON with the tensors' bytes behind it.

Source of the latter: github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md. The header
`Inference-Header-Content-Length` says how long the JSON is; without it the whole body is JSON, whatever its type says. 0 says
that there is no JSON: the body is the bytes of the model's only input.
"""

from typing import Any, Final

import msgspec
import numpy as np

from modelkeep.contracts.errors import FieldError, InvalidInput
from modelkeep.contracts.prediction import json_length, mixed_type
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import Tensors, values_of
from modelkeep.serving.coercion import Array
from modelkeep.serving.dialects.native import InvalidJson
from modelkeep.serving.dialects.open_inference import raw, tensors
from modelkeep.serving.engine import answer_headers
from modelkeep.serving.messages import Request, Response

LENGTH: Final = b"inference-header-content-length"
_BINARY: Final = b"application/octet-stream"
_MOST_DIGITS: Final = 18


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


class _Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | msgspec.Raw | None = None
    parameters: dict[str, Any] | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None


class _Outputs(msgspec.Struct):
    outputs: list[_Tensor]


_decode = msgspec.json.Decoder(_Infer).decode
_decode_outputs = msgspec.json.Decoder(_Outputs).decode
_encode = msgspec.json.Encoder().encode
_NOTHING: Final[dict[str, Any]] = {}


def read(call: Call, request: Request) -> None:
    """Read an inference request, and have the call answered in the protocol; raises `InvalidInput`."""
    length = _length_of(request.headers.get(LENGTH))
    if length is not None:
        call.content_type = mixed_type(length).encode()
    elif LENGTH in call.content_type:
        call.content_type = b"application/json"  # only a body with bytes behind its JSON is kept as one
    version = call.route.served.version
    if length == 0:
        name, array = tensors.from_bare(version.signature, call.body)
        bare = (name,) if tensors.calculates(version) else ()
        wish = _Wish(None, tensors.wanted(version, (), binary=True))
        call.ask(tensors.payload(version.signature, {name: array}, exact=bare), wish.write)
        return
    asked, rest = _asked(call.body, length)
    parameters = asked.parameters or _NOTHING
    if "timeout" in parameters:
        tensors.deadline(call, parameters["timeout"])
    binary = bool(parameters) and tensors.flag(parameters, "binary_data_output")
    outputs = [(one.name, one.parameters) for one in asked.outputs] if asked.outputs else ()
    wish = _Wish(asked.id, tensors.wanted(version, outputs, binary=binary))
    arrays, exact = _arrays(version.signature, asked, rest)
    call.ask(
        tensors.payload(version.signature, arrays, exact=exact if exact and tensors.calculates(version) else ()), wish.write
    )


def tensors_of(signature: Signature, content_type: str, body: bytes) -> Tensors:
    """Return the inputs of a request that came before, read as a new one would be; raises what reading it raises."""
    length = json_length(content_type)
    if length == 0:
        name, array = tensors.from_bare(signature, body)
        return tensors.payload(signature, {name: array}, exact=(name,))
    arrays, exact = _arrays(signature, *_asked(body, length))
    return tensors.payload(signature, arrays, exact=exact)


def answer_of(content_type: str, body: bytes) -> dict[str, list[Any]]:
    """Return the outputs of an answer given before, a row each, as JSON has them; raises `ValueError` for what is none."""
    length = json_length(content_type)
    view = memoryview(body)
    answer = _decode_outputs(view[:length])
    rest, at = view[length:] if length else view[:0], 0
    found: dict[str, list[Any]] = {}
    for one in answer.outputs:
        said = one.parameters or _NOTHING
        if one.data is not None:
            array = np.array(one.data, dtype=object).reshape(one.shape)
        else:
            size = _size_of(one.name, said.get("binary_data_size"), len(rest) - at)
            array = tensors.from_raw(one.name, one.datatype, one.shape, rest[at : at + size])
            at += size
        if one.datatype == Dtype.BYTES:
            array = tensors.decoded(one.name, array, said.get("content_type"))
        found[one.name] = values_of(array, "text")
    return found


class _Wish:
    """What a request wants of its answer, and the function that writes it."""

    __slots__ = ("id", "wanted")

    def __init__(self, request_id: str | None, wanted: list[tensors.Wanted]) -> None:
        self.id = request_id
        self.wanted = wanted

    def write(self, call: Call, share: Share) -> Response:
        """Write the answer to one call: JSON, or JSON and bytes where an output is wanted so."""
        written: list[_Tensor] = []
        bodies: list[bytes] = []
        for one in tensors.outputs(call, share, self.wanted):
            if one.binary:
                bodies.append(raw.bytes_of(one.array))
                said = {"binary_data_size": len(bodies[-1])} | _said_of(one)
                written.append(_Tensor(one.name, one.shape, one.dtype, None, said))
            else:
                values = values_of(one.array.reshape(-1), call.route.settings.not_finite)
                written.append(_Tensor(one.name, one.shape, one.dtype, share.json(values), _said_of(one) or None))
        answer = _Answer(call.route.name, str(call.route.served.version.number), written, self.id, {"prediction_id": call.id})
        head = _encode(answer)
        if not bodies:
            return Response(200, head, headers=answer_headers(call))
        call.answer_type = mixed_type(len(head))
        headers = ((LENGTH, str(len(head)).encode()), *answer_headers(call))
        return Response(200, b"".join((head, *bodies)), _BINARY, headers)


def _said_of(one: tensors.Output) -> dict[str, Any]:
    return {"content_type": one.content_type} if one.content_type else {}


def _length_of(header: bytes | None) -> int | None:
    if header is None:
        return None
    if not header.isdigit() or len(header) > _MOST_DIGITS:
        raise _misfit("The header Inference-Header-Content-Length is a number of bytes.")
    return int(header)


def _asked(body: bytes, length: int | None) -> tuple[_Infer, memoryview | None]:
    """Return the request, and the bytes behind its JSON where it may have some."""
    if length is not None and length > len(body):
        raise _misfit("The JSON is said to be longer than the whole body.")
    try:
        if length is None:
            return _decode(body), None
        view = memoryview(body)
        return _decode(view[:length]), view[length:]
    except msgspec.ValidationError as error:
        raise InvalidJson(f"The request does not fit the protocol: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error


def _arrays(signature: Signature, asked: _Infer, rest: memoryview | None) -> tuple[dict[str, Array], list[str]]:
    """Return the tensors of a request, and the names of those that came as bytes."""
    arrays: dict[str, Array] = {}
    exact: list[str] = []
    at = 0
    everywhere = (asked.parameters or _NOTHING).get("content_type")
    for one in asked.inputs:
        if one.name in arrays:
            raise tensors.refuse(one.name, "duplicate_input", "This input is given twice.")
        said = one.parameters or _NOTHING
        if "binary_data_size" in said and one.data is msgspec.UNSET:
            if rest is None:
                raise tensors.refuse(one.name, "no_data", "Without Inference-Header-Content-Length no bytes follow the JSON.")
            size = _size_of(one.name, said["binary_data_size"], len(rest) - at)
            array = tensors.from_raw(one.name, one.datatype, one.shape, rest[at : at + size])
            at += size
            exact.append(one.name)
        elif one.data is msgspec.UNSET or "binary_data_size" in said:
            raise tensors.refuse(one.name, "no_data", "An input has either `data` or the parameter `binary_data_size`.")
        else:
            array = tensors.from_values(one.name, one.datatype, one.shape, one.data)
        kind = said.get("content_type", everywhere)
        arrays[one.name] = array if kind is None else tensors.decoded(one.name, array, kind)
    if everywhere is not None and len(arrays) == 1:
        ((name, array),) = arrays.items()
        meant = tensors.meant(signature, name, everywhere)
        arrays, exact = {meant: array}, [meant for _ in exact]
    if rest is not None and at != len(rest):
        raise _misfit(f"{len(rest) - at} bytes follow the last tensor.")
    return arrays, exact


def _size_of(name: str, size: object, left: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise tensors.refuse(name, "size_mismatch", "The parameter `binary_data_size` is a number of bytes.")
    if size > left:
        raise tensors.refuse(name, "size_mismatch", f"The body ends {size - left} bytes before this input does.")
    return size


def _misfit(text: str) -> InvalidInput:
    return InvalidInput(text, fields=(FieldError("body", "size_mismatch", text),))
