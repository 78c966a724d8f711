"""TensorFlow Serving's REST API, and KServe's V1 on the same paths: status, metadata, `:predict`, `:classify`, `:regress`.

Both ask `GET /v1/models/{model}`, each for fields of its own: the answer has them all. Classes and regressions come as
`result`, as the published format says, and as `results`, as the published example and the program itself have it. Errors are
always `{"error": "..."}`.

Sources: github.com/tensorflow/serving, tensorflow_serving/g3doc/api_rest.md; kserve.github.io, data plane, V1 protocol.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import FieldError, InvalidInput, ModelkeepError, NotFound
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.choice import version_asked
from modelkeep.serving.codec import Tensors, values_of
from modelkeep.serving.dialects import rows
from modelkeep.serving.dialects.dialect import as_error, only
from modelkeep.serving.dialects.native import InvalidJson
from modelkeep.serving.engine import Engine, Read, Tell, answer_headers, class_names, scores_of
from modelkeep.serving.messages import Request, Response
from modelkeep.serving.pool import Served

NAME: Final = "v1"
SIGNATURE: Final = "serving_default"
_ABSENT: Final = msgspec.Raw(b"")
_PREDICTS: Final = "tensorflow/serving/predict"
_TYPES: Final = {
    Dtype.BOOL: "DT_BOOL",
    Dtype.FP16: "DT_HALF",
    Dtype.FP32: "DT_FLOAT",
    Dtype.FP64: "DT_DOUBLE",
    Dtype.BYTES: "DT_STRING",
}


class NoExplanations(NotFound):
    """Models here have no explainer, so nothing can be explained; `:predict` is there."""

    code = "no_explanations"


class NotThatKind(InvalidInput):
    """The model answers something else than this call returns; `:predict` returns what it answers."""

    code = "not_that_kind"


class _Predict(msgspec.Struct):
    instances: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT
    signature_name: str | None = None


class _Examples(msgspec.Struct):
    examples: list[dict[str, Any]] | None = None
    context: dict[str, Any] = {}
    signature_name: str | None = None


class _Recorded(_Predict):
    examples: list[dict[str, Any]] | None = None
    context: dict[str, Any] = {}


_decode_predict = msgspec.json.Decoder(_Predict).decode
_decode_examples = msgspec.json.Decoder(_Examples).decode
_decode_recorded = msgspec.json.Decoder(_Recorded).decode
_encode = msgspec.json.Encoder().encode


class TfServing:
    """Answers everything below `/v1`."""

    route: Final = NAME

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def needs(self, request: Request, parts: list[str]) -> Scope:  # noqa: ARG002 - all of it is closed
        """Return the scope that a path asks of a key."""
        return Scope.PREDICT

    async def answer(self, request: Request, parts: list[str]) -> Response:
        """Answer any path below `/v1`; raises `NotFound` and `MethodNotAllowed` for what the API does not have."""
        last, colon, verb = parts[-1].partition(":")
        match [*parts[1:-1], last]:
            case ["models"] if not colon:
                only("GET", request)
                return _json({"models": sorted(self._engine.view(request).routes())})
            case ["models", name]:
                return await self._model(request, name, None, verb if colon else None)
            case ["models", name, "metadata"] if not colon:
                return self._metadata(request, name, None)
            case ["models", name, "versions" | "labels" as kind, given]:
                return await self._model(request, name, _version(kind, given), verb if colon else None)
            case ["models", name, "versions" | "labels" as kind, given, "metadata"] if not colon:
                return self._metadata(request, name, _version(kind, given))
            case _:
                raise NotFound("TensorFlow Serving's API has no such path.")

    def predict_whole(self, deployment: str, request: Request, body: bytes, tell: Tell) -> None:
        """Answer a `:predict` whose body is there: `tell` gets the answer, or why there is none."""
        self._engine.predict_whole(deployment, request, NAME, body, read=_read_predict, tell=tell)

    def refusal(self, request: Request, error: ModelkeepError) -> Response:  # noqa: ARG002 - these errors name no request
        """Return an error in the API's own shape."""
        return as_error(error)

    async def _model(self, request: Request, name: str, version: str | None, verb: str | None) -> Response:
        """Answer for a model or one version of it: what it is (no verb), or what it says."""
        if verb is None:
            if request.method != "HEAD":
                only("GET", request)
            return _status(name, self._engine.view(request).find(name, version_asked(request, version)).served)
        if verb == "explain":
            only("POST", request)
            self._engine.view(request).find(name, version_asked(request, version))
            raise NoExplanations
        read = _VERBS.get(verb)
        if read is None:
            raise NotFound("There is no such call: a model takes :predict, :classify and :regress.")
        only("POST", request)
        return await self._engine.predict(name, version, request, NAME, read)

    def _metadata(self, request: Request, name: str, version: str | None) -> Response:
        only("GET", request)
        served = self._engine.view(request).find(name, version_asked(request, version)).served
        signature = served.version.signature
        described = {
            "inputs": {spec.name: _described(spec) for spec in signature.inputs},
            "outputs": {spec.name: _described(spec) for spec in signature.outputs},
            "method_name": _PREDICTS,
        }
        return _json(
            {
                "model_spec": {"name": name, "signature_name": "", "version": str(served.version.number)},
                "metadata": {"signature_def": {"signature_def": {SIGNATURE: described}}},
            }
        )


def _version(kind: str, given: str) -> str:
    """Return which version a path names. A label is never a number."""
    if kind == "labels" and given.isdigit():
        raise NotFound("No version has this label.")
    return given


def _status(name: str, served: Served) -> Response:
    """Tell TensorFlow Serving's clients the version's state, and KServe's whether the model is ready."""
    if served.answers:
        state, code, message = "AVAILABLE", "OK", ""
    elif served.failing:
        state, code, message = (
            "END",
            "UNAVAILABLE",
            "The process that runs this version ended; it is tried again after a while.",
        )
    else:
        state, code, message = "LOADING", "OK", ""
    version = {
        "version": str(served.version.number),
        "state": state,
        "status": {"error_code": code, "error_message": message},
    }
    return _json({"name": name, "ready": served.answers, "model_version_status": [version]})


def _described(spec: TensorSpec) -> dict[str, object]:
    shape = {"dim": [{"size": str(length), "name": ""} for length in spec.shape], "unknown_rank": False}
    return {"dtype": _TYPES.get(spec.dtype, f"DT_{spec.dtype.value}"), "tensor_shape": shape, "name": spec.name}


def _json(value: object) -> Response:
    return Response(200, _encode(value))


# ---- predict


def _read_predict(call: Call) -> None:
    asked = _decoded(_decode_predict, call.body)
    _check_signature(asked.signature_name, "predict")
    field = _field(asked)
    raw = asked.instances if field == "instances" else asked.inputs
    call.ask(rows.payload_of(call.route.served, raw, field), _write_rows if field == "instances" else _write_columns)


def _field(asked: _Predict) -> str:
    """Return which of the two forms a request has."""
    instances, inputs = asked.instances is not _ABSENT, asked.inputs is not _ABSENT
    if instances == inputs:
        raise InvalidJson('Send either "instances", one item a row, or "inputs", one list an input.')
    return "instances" if instances else "inputs"


def _write_rows(call: Call, share: Share) -> Response:
    return Response(200, _encode({"predictions": rows.in_rows(call, share)}), headers=answer_headers(call))


def _write_columns(call: Call, share: Share) -> Response:
    return Response(200, _encode({"outputs": rows.in_columns(call, share)}), headers=answer_headers(call))


# ---- classify and regress


def _read_classify(call: Call) -> None:
    version = call.route.served.version
    asked = _decoded(_decode_examples, call.body)
    _check_signature(asked.signature_name, "classify")
    if not version.scores:
        raise NotThatKind("This model has no class scores, so it cannot classify; :predict returns what it answers.")
    call.ask(_examples(version.signature, asked), _write_classes)


def _read_regress(call: Call) -> None:
    version = call.route.served.version
    asked = _decoded(_decode_examples, call.body)
    _check_signature(asked.signature_name, "regress")
    if regressed(version.signature) is None:
        raise NotThatKind("This model does not answer with one number a row; :predict returns what it answers.")
    call.ask(_examples(version.signature, asked), _write_numbers)


def _examples(signature: Signature, asked: _Examples | _Recorded) -> Tensors:
    if asked.examples is None:
        raise InvalidJson('Send "examples": one object a row.')
    shared = asked.context
    for at, example in enumerate(asked.examples):
        for name in shared.keys() & example.keys():
            path, text = f"examples[{at}].{name[:63]}", "This feature stands in the context, too."
            raise InvalidInput.at(path, "duplicate_input", text)
    return rows.instances_from(signature, [{**shared, **example} for example in asked.examples], "examples")


def _write_classes(call: Call, share: Share) -> Response:
    """Write each row's classes with their scores, in the model's order; a class without a name is called ""."""
    scores = scores_of(call, share)
    if scores is None:
        raise NotThatKind
    told = class_names(call.route.served)
    names = [*told[: scores.shape[1]], *[""] * (scores.shape[1] - len(told))]
    values = values_of(scores, call.route.settings.not_finite)
    result = share.json([list(zip(names, row, strict=True)) for row in values])
    return Response(200, _encode({"result": result, "results": result}), headers=answer_headers(call))


def _write_numbers(call: Call, share: Share) -> Response:
    output = regressed(call.route.served.version.signature)
    assert output is not None  # noqa: S101 - it was there when the request was read
    array = share.tensor(output.name)
    if array.size != call.rows:
        raise NotThatKind
    result = share.json(values_of(array.reshape(-1), call.route.settings.not_finite))
    return Response(200, _encode({"result": result, "results": result}), headers=answer_headers(call))


def regressed(signature: Signature) -> TensorSpec | None:
    """Return the output that is a number a row, where it is the only one of numbers; else None."""
    numeric = [spec for spec in signature.outputs if spec.dtype not in {Dtype.BOOL, Dtype.BYTES}]
    if len(numeric) != 1 or any(length not in {-1, 1} for length in numeric[0].shape[1:]):
        return None
    return numeric[0]


_VERBS: Final[Mapping[str, Read]] = {"predict": _read_predict, "classify": _read_classify, "regress": _read_regress}


# ---- bodies


def _decoded(decode: Any, body: bytes) -> Any:  # noqa: ANN401 - a decoder and what it decodes
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidJson(f"The request does not fit the API: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error


def _check_signature(name: str | None, verb: str) -> None:
    """A version has one signature; it goes by the usual names."""
    if name and name not in {SIGNATURE, verb, f"tensorflow/serving/{verb}"}:
        raise InvalidInput(
            f"A version has one signature here, {SIGNATURE!r}.",
            fields=(FieldError("signature_name", "unknown_signature", "There is no such signature."),),
        )


# ---- the history


def tensors_of(signature: Signature, body: bytes) -> Tensors:
    """Return the inputs of a request that came before, read as a new one would be; raises what reading it raises."""
    asked = _decoded(_decode_recorded, body)
    if asked.examples is not None:
        return _examples(signature, asked)
    field = _field(asked)
    if field == "instances":
        return rows.instances_of(signature, asked.instances)
    return rows.inputs_of(signature, asked.inputs)
