"""The Open Inference Protocol, V2, over REST: health, metadata, infer. Its errors are always `{"error": "..."}`.

Source: the published description at github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

import math
from typing import Any

import msgspec
import numpy as np

from modelkeep.contracts.errors import FieldError, InvalidInput, ModelkeepError, NotFound
from modelkeep.contracts.signature import Dtype, Layout, Signature, TensorSpec, dtype_of
from modelkeep.infra.problems import status_and_headers
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import Tensors, check_shape, tensor_from_flat, tensors_from, values_of
from modelkeep.serving.coercion import Array
from modelkeep.serving.dialects.native import InvalidJson
from modelkeep.serving.engine import Engine, Tell, answer_headers
from modelkeep.serving.messages import Request, Response, encoded
from modelkeep.serving.pool import Served
from modelkeep.serving.router import Router

_MAX_AXES = 16
_MAX_VALUES = 2**31


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


class _Tensor(msgspec.Struct):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Infer).decode
_encode = msgspec.json.Encoder().encode


class OpenInference:
    """Answers everything below `/v2`."""

    def __init__(self, router: Router, engine: Engine, version: str) -> None:
        self._router = router
        self._engine = engine
        self._version = version

    def health(self, parts: list[str]) -> Response | None:
        """Answer the two health paths, which need no key: `/v2/health/live` and `/v2/health/ready`."""
        match parts:
            case ["v2", "health", "live"]:
                return _json({"live": True})
            case ["v2", "health", "ready"]:
                ready = self._router.warm
                return _json({"ready": ready}, 200 if ready else 503)
            case _:
                return None

    async def answer(self, parts: list[str], request: Request) -> Response:
        """Answer any other path; raises `NotFound` for those the protocol does not have."""
        match (request.method, parts):
            case ("GET", ["v2"] | ["v2", ""]):
                return _json({"name": "modelkeep", "version": self._version, "extensions": []})
            case ("GET", ["v2", "models", name]):
                return self._metadata(name, self._router.find(name).served)
            case ("GET", ["v2", "models", name, "versions", version]):
                return self._metadata(name, self._router.find(name, version).served)
            case ("GET", ["v2", "models", name, "ready"]):
                return _readiness(name, self._router.find(name).served)
            case ("GET", ["v2", "models", name, "versions", version, "ready"]):
                return _readiness(name, self._router.find(name, version).served)
            case ("POST", ["v2", "models", name, "infer"]):
                return await self._infer(name, None, request)
            case ("POST", ["v2", "models", name, "versions", version, "infer"]):
                return await self._infer(name, version, request)
            case _:
                raise NotFound("The Open Inference Protocol has no such path, or not with this method.")

    def predict_whole(self, deployment: str, request: Request, body: bytes, tell: Tell) -> None:
        """Answer a prediction whose body is there: `tell` gets the answer, or why there is none."""
        self._engine.predict_whole(deployment, request, "v2", body, read=_read, tell=tell)

    def _metadata(self, name: str, served: Served) -> Response:
        version = served.version
        return _json(
            {
                "name": name,
                "versions": [str(version.number)],
                "platform": f"{version.framework}_{version.spec.format}" if version.framework else version.spec.format,
                "inputs": [_described(spec) for spec in version.signature.inputs],
                "outputs": [_described(spec) for spec in version.signature.outputs],
            }
        )

    async def _infer(self, name: str, version: str | None, request: Request) -> Response:
        return await self._engine.predict(name, version, request, "v2", _read)


def tensors_of(signature: Signature, body: bytes) -> Tensors:
    """Return the inputs of a request that came before, read as a new one would be; raises what reading it raises."""
    return _tensors(signature, _asked(body).inputs)


def refusal(error: ModelkeepError) -> Response:
    """Return an error in the protocol's own shape."""
    status, headers = status_and_headers(error)
    return Response(status, _encode({"error": error.message}), headers=encoded(headers))


def _json(value: object, status: int = 200) -> Response:
    return Response(status, _encode(value))


def _readiness(name: str, served: Served) -> Response:
    return _json({"name": name, "ready": served.answers}, 200 if served.answers else 503)


def _described(spec: TensorSpec) -> dict[str, object]:
    """A tensor as the protocol has it; what it has no word for are parameters (dates are of MLServer's content type)."""
    described: dict[str, object] = {"name": spec.name, "datatype": spec.dtype.value, "shape": list(spec.shape)}
    parameters: dict[str, object] = {}
    if spec.kind:
        parameters["content_type"] = spec.kind
    if spec.nullable:
        parameters["nullable"] = True
    if spec.categories:
        parameters["categories"] = list(spec.categories)
    return described | {"parameters": parameters} if parameters else described


def _read(call: Call) -> None:
    asked = _asked(call.body)
    signature = call.route.served.version.signature
    wanted = _wanted(signature, asked.outputs)
    call.ask(_tensors(signature, asked.inputs), lambda call, share: _written(call, share, asked.id, wanted))


def _asked(body: bytes) -> _Infer:
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise InvalidJson(f"The request does not fit the protocol: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error


def _tensors(signature: Signature, given: list[_Input]) -> Tensors:
    arrays: dict[str, Array] = {}
    for one in given:
        if one.name in arrays:
            raise _refuse(one.name, "duplicate_input", "This input is given twice.")
        arrays[one.name] = _array(one)
    if signature.layout is Layout.IMAGE:
        name = signature.inputs[0].name
        _check_names({name}, arrays)
        return tensors_from(signature, {name: arrays[name].reshape(-1).tolist()})
    if signature.layout is Layout.MATRIX and signature.inputs[0].name not in arrays and signature.inputs[0].columns:
        return {signature.inputs[0].name: _stacked(signature.inputs[0], arrays)}
    _check_names({spec.name for spec in signature.inputs}, arrays)
    return {spec.name: _fitted(spec, arrays[spec.name], loose=signature.layout is Layout.TABLE) for spec in signature.inputs}


def _array(one: _Input) -> Array:
    """Read an input as what it says it is."""
    try:
        dtype = Dtype(one.datatype)
    except ValueError as error:
        raise _refuse(one.name, "unknown_datatype", "This datatype is not one that is served here.") from error
    if len(one.shape) > _MAX_AXES or any(length < 0 for length in one.shape) or not one.shape:
        raise _refuse(one.name, "shape_mismatch", "The shape is a list of one to sixteen lengths, none below 0.")
    if math.prod(max(1, length) for length in one.shape) > _MAX_VALUES:
        raise _refuse(one.name, "shape_mismatch", "The shape holds more values than a request can.")
    spec = TensorSpec(one.name, dtype, tuple(one.shape), nullable=True)
    return tensor_from_flat(spec, one.data, tuple(one.shape), f"inputs.{one.name[:63]}")


def _stacked(spec: TensorSpec, arrays: dict[str, Array]) -> Array:
    """Put one tensor a column together as the matrix that the model takes."""
    _check_names(set(spec.columns), arrays)
    column = TensorSpec(spec.name, spec.dtype, (-1,), nullable=spec.nullable, kind=spec.kind)
    columns = [_fitted(column, arrays[name], loose=True) for name in spec.columns]
    if len({len(values) for values in columns}) != 1:
        raise InvalidInput("The inputs have different numbers of rows.")
    return np.stack(columns, axis=1)


def _check_names(wanted: set[str], arrays: dict[str, Array]) -> None:
    fields = [
        FieldError(f"inputs.{name}", "missing_input", "This input is missing.") for name in sorted(wanted - arrays.keys())
    ]
    fields += [
        FieldError(f"inputs.{name[:63]}", "unknown_input", "The model has no such input.")
        for name in sorted(arrays.keys() - wanted)
    ]
    if fields:
        raise InvalidInput(
            f"{fields[0].path}: {fields[0].message} The model takes {', '.join(sorted(wanted))}.", fields=tuple(fields)
        )


def _fitted(spec: TensorSpec, array: Array, *, loose: bool) -> Array:
    """Return the array as the model's datatype. `loose`: a column may come as [n] or as [n, 1]."""
    path = f"inputs.{spec.name}"
    if loose and array.size == array.shape[0]:
        array = array.reshape(array.shape[0], *(1 for _ in spec.shape[1:]))
    check_shape(spec, array.shape, path)
    given = dtype_of(array.dtype.name)
    if given is not spec.dtype and Dtype.BYTES in {given, spec.dtype}:
        raise _refuse(spec.name, "datatype_mismatch", f"The model takes {spec.dtype}.")
    if given is spec.dtype and not spec.kind and (spec.nullable or not _missing(array)):
        return array
    values = [None if value != value else value for value in array.reshape(-1).tolist()]  # noqa: PLR0124 - only NaN differs from itself
    return tensor_from_flat(spec, values, array.shape, path)


def _missing(array: Array) -> bool:
    """Whether any value is missing: None among texts, NaN among floats."""
    if array.dtype == object:
        return any(value is None for value in array.reshape(-1).tolist())
    return bool(np.isnan(array).any()) if np.issubdtype(array.dtype, np.floating) else False


def _refuse(name: str, code: str, message: str) -> InvalidInput:
    path = f"inputs.{name[:63]}"
    return InvalidInput(f"{path}: {message}", fields=(FieldError(path, code, message),))


def _wanted(signature: Signature, asked: list[_Output] | None) -> list[str]:
    """Return the names of the outputs to answer with, in the order asked for; none asked for means all."""
    names = [spec.name for spec in signature.outputs]
    if not asked:
        return names
    for one in asked:
        if one.name not in names:
            path = f"outputs.{one.name[:63]}"
            text = f"The model has no such output; it has {', '.join(names)}."
            raise InvalidInput(f"{path}: {text}", fields=(FieldError(path, "unknown_output", text),))
    return [one.name for one in asked]


def _written(call: Call, share: Share, request_id: str | None, wanted: list[str]) -> Response:
    outputs = []
    for output in wanted:
        array = share.tensor(output)
        values = values_of(array.reshape(-1), call.route.settings.not_finite)
        outputs.append(_Tensor(output, array.shape, dtype_of(array.dtype.name).value, values))
    answer = _Answer(
        model_name=call.route.name,
        model_version=str(call.route.served.version.number),
        outputs=outputs,
        id=request_id,
        parameters={"prediction_id": call.id},
    )
    return Response(200, _encode(answer), headers=answer_headers(call))
