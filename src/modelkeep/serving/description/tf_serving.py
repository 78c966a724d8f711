"""TensorFlow Serving's and KServe V1's part of the OpenAPI document: what is answered below `/v1`."""

from collections.abc import Sequence
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError, NotFound
from modelkeep.infra.description import Description, Document, answer, as_json, operation, schema, schemas, sentence
from modelkeep.serving.description.predicting import ASKED_WITH_A_KEY, DEADLINE, DEPLOYMENT, PREDICTING, SAID, VERSION
from modelkeep.serving.dialects import tf_serving
from modelkeep.serving.router import DeploymentNotFound, VersionNotServed

_TAG: Final = "tensorflow serving"
_NAMED: Final = (DeploymentNotFound, VersionNotServed, NotFound)

_NAME: Final[Document] = {**DEPLOYMENT, "name": "model", "description": "The deployment's name."}
_VERSION: Final[Document] = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "The version that must answer: its number, or an alias that points to it; 404 where it does not answer.",
    "schema": {"type": "string", "minLength": 1},
    "example": "3",
}
_LABEL: Final[Document] = {
    "name": "label",
    "in": "path",
    "required": True,
    "description": "An alias that points to the version that must answer. A number is never one.",
    "schema": {"type": "string", "minLength": 1},
    "example": "canary",
}

_ROWS: Final[Document] = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
_NAMED_ROWS: Final[Document] = {"signature_name": "serving_default", "instances": [{"age": 41, "plan": "basic"}]}
_COLUMNS: Final[Document] = {"inputs": {"age": [41, 29], "plan": ["basic", None]}}
_PICTURES: Final[Document] = {"instances": [{"b64": "iVBORw0KGgo="}]}
_EXAMPLES: Final[Document] = {"context": {"plan": "basic"}, "examples": [{"age": 41}, {"age": 29}]}
_PREDICTED: Final[Document] = {
    "predictions": [{"label": 0, "probabilities": [0.97, 0.03]}, {"label": 1, "probabilities": [0.1, 0.9]}]
}
_IN_COLUMNS: Final[Document] = {"outputs": {"label": [0, 1], "probabilities": [[0.97, 0.03], [0.1, 0.9]]}}
_CLASSES: Final = [[["stays", 0.97], ["leaves", 0.03]], [["stays", 0.1], ["leaves", 0.9]]]
_STATUS: Final[Document] = {
    "name": "iris",
    "ready": True,
    "model_version_status": [
        {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
    ],
}


def describe() -> Description:
    """Return what is answered below `/v1`."""
    about = "Predictions by TensorFlow Serving's REST API, and by KServe's V1 protocol."
    return Description(_TAG, about, _list_of_models() | _models(), _schemas())


def _refused(status: int, errors: Sequence[type[ModelkeepError]]) -> Document:
    """Return the content of the API's errors, which have no codes."""
    del status
    return as_json("V1Error", **{errors[0].code: {"error": sentence(errors[0])}})


def _list_of_models() -> Document:
    told = {"200": answer("The names of all deployments.", as_json("V1Models", models={"models": ["churn", "iris"]}))}
    made = operation(
        "v1ListModels",
        "List the models that answer",
        tag=_TAG,
        scope=Scope.PREDICT,
        answers=told,
        errors=ASKED_WITH_A_KEY,
        shape=_refused,
    )
    return {"/v1/models": {"get": made}}


def _models() -> Document:
    paths: Document = {}
    for path, which, parameters in (
        ("/v1/models/{model}", "", [_NAME, VERSION]),
        ("/v1/models/{model}/versions/{version}", "Version", [_NAME, _VERSION]),
        ("/v1/models/{model}/labels/{label}", "Label", [_NAME, _LABEL]),
    ):
        named = f"v1Model{which}"
        state = {"200": answer("Its state, for the clients of both.", as_json("V1ModelStatus", available=_STATUS))}
        told = {"200": answer("The model.", as_json("V1ModelMetadata", model=_metadata()))}
        paths[path] = {"get": _get(f"{named}Status", "Say how a version is", state, parameters)}
        paths[f"{path}/metadata"] = {"get": _get(f"{named}Metadata", "Describe a version's signature", told, parameters)}
        asked = [*parameters, DEADLINE]
        paths[f"{path}:predict"] = {"post": _predict(f"{named}Predict", asked)}
        classes = {"result": _CLASSES, "results": _CLASSES}
        paths[f"{path}:classify"] = {"post": _examined(f"{named}Classify", "Tell each row's classes", asked, classes)}
        numbers = {"result": [0.31, 0.8], "results": [0.31, 0.8]}
        paths[f"{path}:regress"] = {"post": _examined(f"{named}Regress", "Tell each row's number", asked, numbers)}
        paths[f"{path}:explain"] = {"post": _explain(f"{named}Explain", parameters)}
    return paths


def _get(name: str, summary: str, answers: Document, parameters: Sequence[Document]) -> Document:
    return operation(
        name,
        summary,
        tag=_TAG,
        scope=Scope.PREDICT,
        parameters=parameters,
        answers=answers,
        errors=(*ASKED_WITH_A_KEY, *_NAMED),
        shape=_refused,
    )


def _predict(name: str, parameters: Sequence[Document]) -> Document:
    about = (
        "`instances` has one item a row and is answered by `predictions`; `inputs` has one list an input and is answered by "
        "`outputs`. Byte strings and pictures are objects with `b64` alone. KServe's V1 is the same with `instances`."
    )
    answers = as_json("V1Predictions", rows=_PREDICTED, columns=_IN_COLUMNS)
    return operation(
        name,
        "Predict with rows or columns",
        tag=_TAG,
        scope=Scope.PREDICT,
        about=about,
        parameters=parameters,
        body=as_json("V1PredictRequest", rows=_ROWS, records=_NAMED_ROWS, columns=_COLUMNS, pictures=_PICTURES),
        answers={"200": answer("The answer, in the form of the request.", answers, *SAID)},
        errors=(*PREDICTING, NotFound),
        shape=_refused,
    )


def _examined(name: str, summary: str, parameters: Sequence[Document], told: Document) -> Document:
    """Return the operation of `:classify` or `:regress`, which take examples."""
    return operation(
        name,
        summary,
        tag=_TAG,
        scope=Scope.PREDICT,
        about=f"{summary}. `context` is what all examples share. A model that answers something else refuses.",
        parameters=parameters,
        body=as_json("V1ExamplesRequest", examples=_EXAMPLES),
        answers={"200": answer("A result for each row.", as_json("V1Results", results=told), *SAID)},
        errors=(*PREDICTING, NotFound, tf_serving.NotThatKind),
        shape=_refused,
    )


def _explain(name: str, parameters: Sequence[Document]) -> Document:
    return operation(
        name,
        "Say that there is no explanation",
        tag=_TAG,
        scope=Scope.PREDICT,
        about="KServe's explainer: models here have none, so that the answer is always 404.",
        parameters=parameters,
        answers={},
        errors=(*ASKED_WITH_A_KEY, *_NAMED, tf_serving.NoExplanations),
        shape=_refused,
    )


def _metadata() -> Document:
    tensor = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "4", "name": ""}], "unknown_rank": False},
        "name": "X",
    }
    label = {
        "dtype": "DT_INT64",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "label",
    }
    signature = {"inputs": {"X": tensor}, "outputs": {"label": label}, "method_name": "tensorflow/serving/predict"}
    return {
        "model_spec": {"name": "iris", "signature_name": "", "version": "3"},
        "metadata": {"signature_def": {"signature_def": {tf_serving.SIGNATURE: signature}}},
    }


# ---- schemas


_TEXT: Final[Document] = {"type": "string"}


def _schemas() -> Document:
    found = schemas({"V1ExamplesRequest": tf_serving._Examples})  # noqa: SLF001 - what the dialect reads
    examples = found["V1ExamplesRequest"]
    fields = examples["properties"]
    record = {"type": "object", "additionalProperties": True}
    fields["examples"] = _list(record, "One object a row, by input or column.")
    fields["context"]["description"] = "What all examples share; none of them may have it again."
    fields["signature_name"] |= {"description": "A version has one signature, `serving_default`."}
    examples["required"] = ["examples"]
    rows = {
        "instances": _list({}, "One item a row: its values, an object by input, or one value."),
        "inputs": {
            "description": "One list an input, by name; of a model with one input, that list alone.",
            "anyOf": [{"type": "array"}, {"type": "object", "additionalProperties": True}],
        },
        "signature_name": fields["signature_name"],
    }
    found["V1PredictRequest"] = {
        "type": "object",
        "properties": rows,
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    }
    return found | _answers() | _described() | {"V1Error": _object({"error": _TEXT}, "An error.")}


def _answers() -> Document:
    by_row = _object({"predictions": _list({}, "One item a row: a value, or an object by output.")})
    by_column = _object({"outputs": {"description": "The list of the one output, or a list each by name."}})
    results = _list({}, "Of each row, pairs of class and score, or a number.")
    return {
        "V1Predictions": {"anyOf": [by_row, by_column]},
        "V1Results": _object({"result": results, "results": results}, "The same by both names that clients look for."),
    }


def _described() -> Document:
    states = {"enum": ["LOADING", "AVAILABLE", "END"], "description": "TensorFlow Serving's word for its state."}
    status = _object({"error_code": {"enum": ["OK", "UNAVAILABLE"]}, "error_message": _TEXT})
    version = _object({"version": _TEXT, "state": states, "status": status})
    dim = _object({"size": {**_TEXT, "description": "The axis's length; -1 for any."}, "name": _TEXT})
    shape = _object({"dim": _list(dim), "unknown_rank": {"const": False}})
    tensors = {"type": "object", "additionalProperties": schema("V1Tensor")}
    signature = _object({"inputs": tensors, "outputs": tensors, "method_name": _TEXT})
    signatures = _object({tf_serving.SIGNATURE: signature})
    return {
        "V1Models": _object({"models": _list(_TEXT)}, "The names of all deployments."),
        "V1ModelStatus": _object(
            {"name": _TEXT, "ready": {"type": "boolean"}, "model_version_status": _list(version)},
            "`ready` is for KServe's clients, the rest for TensorFlow Serving's.",
        ),
        "V1Tensor": _object({"dtype": _TEXT, "tensor_shape": shape, "name": _TEXT}),
        "V1ModelMetadata": _object(
            {
                "model_spec": _object({"name": _TEXT, "signature_name": _TEXT, "version": _TEXT}),
                "metadata": _object({"signature_def": _object({"signature_def": signatures})}),
            }
        ),
    }


def _list(items: Document, about: str = "") -> Document:
    return {"type": "array", "items": items} | ({"description": about} if about else {})


def _object(required: Document, about: str = "") -> Document:
    made = {"type": "object", "properties": required, "required": list(required), "additionalProperties": False}
    return made | ({"description": about} if about else {})
