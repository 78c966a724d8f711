"""The Open Inference Protocol's part of the OpenAPI document, with the names that the published descriptions have.

Loading and unloading are the control plane's routes, which describe themselves.
"""

from collections.abc import Sequence
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError, NotFound, TooLarge
from modelkeep.infra.description import Description, Document, answer, as_inference_errors, as_json, operation
from modelkeep.serving.codings import DamagedBody, UnknownCoding
from modelkeep.serving.description import open_inference_schemas
from modelkeep.serving.description.predicting import ASKED_WITH_A_KEY, DEADLINE, DEPLOYMENT, PREDICTING, SAID, VERSION
from modelkeep.serving.dialects.native import InvalidJson
from modelkeep.serving.dialects.open_inference.describe import EXTENSIONS
from modelkeep.serving.messages import LengthRequired
from modelkeep.serving.router import DeploymentNotFound, VersionNotServed

_TAG: Final = "open inference"
_LENGTH: Final = "Inference-Header-Content-Length"
_NAME: Final[Document] = {**DEPLOYMENT, "name": "model", "description": "The deployment's name."}
_VERSION: Final[Document] = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "The version that must answer: its number, or an alias that points to it; 404 where it does not answer.",
    "schema": {"type": "string", "minLength": 1},
    "example": "3",
}
_JSON_BYTES: Final[Document] = {
    "name": _LENGTH,
    "in": "header",
    "description": "How long the JSON is that tensors' bytes follow; 0 where the body is the bytes of the model's only input.",
    "schema": {"type": "integer", "minimum": 0},
}
_BINARY: Final[Document] = {
    "application/octet-stream": {
        "schema": {
            "type": "string",
            "format": "binary",
            "description": f"JSON as long as {_LENGTH} says, and behind it the bytes of those tensors that have no `data`.",
        }
    }
}
_ASKED: Final[Document] = {
    "id": "42",
    "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}],
    "outputs": [{"name": "label"}],
}
_CLASSES: Final[Document] = {
    "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [[5.1, 3.5, 1.4, 0.2]]}],
    "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    "parameters": {"timeout": 500_000},
}
_TOLD: Final[Document] = {
    "model_name": "iris",
    "model_version": "3",
    "id": "42",
    "parameters": {"prediction_id": "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"},
    "outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [0]}],
}
_METADATA: Final[Document] = {
    "name": "iris",
    "versions": ["3"],
    "platform": "sklearn_joblib",
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
}
_CONFIG: Final[Document] = {
    "name": "iris",
    "platform": "sklearn_joblib",
    "backend": "sklearn",
    "version_policy": {"specific": {"versions": [3]}},
    "max_batch_size": 256,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "label", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}],
}
_NEVER: Final[Document] = {"count": 0, "ns": 0}
_STATISTICS: Final[Document] = {
    "name": "iris",
    "version": "3",
    "last_inference": 1_773_480_413_589,
    "inference_count": 300,
    "execution_count": 75,
    "inference_stats": {
        "success": {"count": 100, "ns": 90_000_000},
        "fail": _NEVER,
        "queue": {"count": 100, "ns": 20_000_000},
        "compute_input": {"count": 75, "ns": 10_000_000},
        "compute_infer": {"count": 75, "ns": 50_000_000},
        "compute_output": {"count": 75, "ns": 9_000_000},
        "cache_hit": {"count": 25, "ns": 1_000_000},
        "cache_miss": {"count": 75, "ns": 4_000_000},
    },
    "batch_stats": [],
}
_INDEX: Final = [
    {"name": "iris", "version": "3", "state": "READY", "reason": ""},
    {"name": "churn", "version": "7", "state": "LOADING", "reason": ""},
]


def describe() -> Description:
    """Return what the servers answer below `/v2`."""
    paths = _server() | _repository() | _models()
    return Description(_TAG, "Predictions by the Open Inference Protocol, V2.", paths, open_inference_schemas.made())


def _server() -> Document:
    health = as_json("ServerHealth", ready={"live": True, "ready": True}, loading={"live": True, "ready": False})
    live = {"200": answer("It lives.", health)}
    ready = {
        "200": answer("All models answer, or have been given up for now.", health),
        "503": answer("Models are being loaded.", health),
    }
    server = {"name": "modelkeep", "version": "0.1.0", "extensions": list(EXTENSIONS)}
    told = answer("The server.", as_json("ServerMetadata", server=server))
    return {
        "/v2": {"get": _get("serverMetadata", "Describe the server", Scope.PREDICT, {"200": told})},
        "/v2/health/live": {"get": _get("serverLive", "Say whether the server lives", None, live)},
        "/v2/health/ready": {"get": _get("serverReady", "Say whether the server is ready", None, ready)},
    }


def _repository() -> Document:
    index = operation(
        "repositoryIndex",
        "List the versions that answer, or are to answer",
        tag=_TAG,
        scope=Scope.PREDICT,
        body=as_json("RepositoryIndexRequest", ready={"ready": True}),
        answers={"200": answer("A row for each version.", as_json("RepositoryIndex", index=_INDEX))},
        errors=(*ASKED_WITH_A_KEY, InvalidJson, LengthRequired, TooLarge, UnknownCoding, DamagedBody),
        shape=as_inference_errors,
    )
    index["requestBody"]["required"] = False
    told = _statistics()
    return {
        "/v2/repository/index": {"post": index},
        "/v2/models/stats": {"get": _get("modelsStatistics", "Count what all models have done", Scope.PREDICT, told)},
    }


def _models() -> Document:
    paths: Document = {}
    for path, suffix, parameters in (
        ("/v2/models/{model}", "", [_NAME, VERSION]),
        ("/v2/models/{model}/versions/{version}", "Version", [_NAME, _VERSION]),
    ):
        described = {"200": answer("The model.", as_json("ModelMetadata", model=_METADATA))}
        readiness = {
            "200": answer("It answers.", as_json("ModelReady", ready={"name": "iris", "ready": True})),
            "503": answer("It does not answer now.", as_json("ModelReady", loading={"name": "iris", "ready": False})),
        }
        config = {"200": answer("The configuration.", as_json("ModelConfig", model=_CONFIG))}
        for end, name, summary, answers in (
            ("", "Metadata", "Describe a model", described),
            ("/ready", "Ready", "Say whether a model answers", readiness),
            ("/config", "Config", "Return a model's configuration", config),
            ("/stats", "Statistics", "Count what a model has done", _statistics()),
        ):
            paths[path + end] = {"get": _get(f"model{suffix}{name}", summary, Scope.PREDICT, answers, parameters)}
        paths[f"{path}/infer"] = {"post": _infer(suffix, parameters)}
    return paths


def _infer(suffix: str, parameters: Sequence[Document]) -> Document:
    """Return the operation that predicts."""
    answered = answer("The answer.", as_json("InferenceResponse", label=_TOLD) | _BINARY, *SAID)
    answered["headers"] = answered["headers"] | {
        _LENGTH: {"description": "How long the JSON is, where bytes follow it.", "schema": {"type": "integer", "minimum": 1}}
    }
    return operation(
        f"model{suffix}Infer",
        "Predict with tensors",
        tag=_TAG,
        scope=Scope.PREDICT,
        about=(
            "Tensors are lists in the JSON, or bytes behind it: then the header "
            f"`{_LENGTH}` says how long the JSON is, and each tensor's `binary_data_size` how many bytes are its own. "
            "The answer has bytes where `binary_data` or `binary_data_output` asks for them."
        ),
        parameters=[*parameters, _JSON_BYTES, DEADLINE],
        body=as_json("InferenceRequest", tensor=_ASKED, classes=_CLASSES) | _BINARY,
        answers={"200": answered},
        errors=PREDICTING,
        shape=as_inference_errors,
    )


def _statistics() -> Document:
    found = as_json("StatisticsOfModels", statistics={"model_stats": [_STATISTICS]})
    return {"200": answer("The counts of each version, of all servers of the installation.", found)}


def _get(name: str, summary: str, scope: Scope | None, answers: Document, parameters: Sequence[Document] = ()) -> Document:
    """Return an operation that tells something; of a model, it may be that there is none."""
    errors: tuple[type[ModelkeepError], ...] = (DeploymentNotFound, VersionNotServed) if parameters else ()
    if scope is not None:
        errors += (*ASKED_WITH_A_KEY, NotFound)  # HEAD is asked for health alone
    made = operation(
        name,
        summary,
        tag=_TAG,
        scope=scope,
        parameters=parameters,
        answers={},
        errors=errors,
        shape=as_inference_errors,
    )
    for status, told in answers.items():
        refused = made["responses"].get(status)
        made["responses"][status] = told if refused is None else _either(told, refused)
    return made


def _either(told: Document, refused: Document) -> Document:
    """Return a response that is an answer or a refusal of the same status."""
    one, other = told["content"]["application/json"], refused["content"]["application/json"]
    content = {"schema": {"anyOf": [one["schema"], other["schema"]]}, "examples": one["examples"] | other["examples"]}
    return {
        "description": f"{told['description']} Or:\n{refused['description']}",
        "headers": told["headers"] | refused["headers"],
        "content": {"application/json": content},
    }
