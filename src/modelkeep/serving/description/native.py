"""The native dialect's part of the OpenAPI document: predict, predict by the seeds' short path, and what answers here."""

from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.signature import ImageSpec, Signature, TensorSpec
from modelkeep.infra.description import Description, Document, answer, as_json, operation, schema, schemas
from modelkeep.infra.multipart import InvalidMultipart
from modelkeep.serving.choice import ModelNeeded
from modelkeep.serving.description.predicting import ASKED_WITH_A_KEY, DEADLINE, DEPLOYMENT, MODEL, PREDICTING, SAID, VERSION
from modelkeep.serving.dialects import native
from modelkeep.serving.router import DeploymentNotFound, VersionNotServed

_TAG: Final = "predict"
_ERRORS: Final = (*PREDICTING, InvalidMultipart, native.UnsupportedMediaType)

_ROWS: Final[Document] = {"inputs": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
_RECORDS: Final[Document] = {"inputs": [{"age": 41, "plan": "basic"}, {"age": 29, "plan": None}], "outputs": ["label"]}
_COLUMNS: Final[Document] = {"inputs": {"age": [41, 29], "plan": ["basic", None]}, "version": 3}
_TOP: Final[Document] = {"inputs": [[5.1, 3.5, 1.4, 0.2]], "top_k": 2}
_MORE: Final[Document] = {"inputs": [[5.1, 3.5, 1.4, 0.2]], "version": "canary", "include": ["timings", "version"]}
_NAMED: Final[Document] = {"id": "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C3", "deployment": "iris", "model": "iris", "version": 3}
_OUTPUTS: Final[Document] = {**_NAMED, "outputs": {"label": [0, 2], "probabilities": [[0.97, 0.02, 0.01], [0.0, 0.1, 0.9]]}}
_TIMED: Final[Document] = {
    **_NAMED,
    "outputs": {"label": [0]},
    "metadata": {
        "timings": {"queue_ms": 0.1, "preprocess_ms": 0.0, "run_ms": 0.3, "total_ms": 0.9},
        "version": {
            "id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
            "format": "onnx",
            "framework": "",
            "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "created_at": "2026-03-14T09:26:53.589793+00:00",
        },
    },
}
_CLASSES: Final[Document] = {
    **_NAMED,
    "predictions": [
        [{"label": "setosa", "index": 0, "score": 0.97}, {"label": "versicolor", "index": 1, "score": 0.02}],
    ],
}
_DESCRIBED: Final[Document] = {
    "product": "modelkeep",
    "product_version": "0.1.0",
    "deployment": "iris",
    "model": "iris",
    "version": 3,
    "version_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "aliases": {"canary": 4, "champion": 3},
    "format": "onnx",
    "framework": "",
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "ready": True,
    "asleep": False,
    "signature": {
        "inputs": [{"name": "X", "dtype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "label", "dtype": "INT64", "shape": [-1]}],
    },
    "preprocessing": None,
    "classes": ["setosa", "versicolor", "virginica"],
    "created_at": "2026-03-14T09:26:53.589793+00:00",
}

_VERSION: Final[Document] = {
    "name": "version",
    "in": "query",
    "description": "The version that must answer: its number, or an alias that points to it; 404 where it does not answer.",
    "schema": {"type": "string", "minLength": 1},
    "example": "3",
}
_INCLUDE: Final[Document] = {
    "name": "include",
    "in": "query",
    "description": "For pictures as they are: what to say of the answer, `timings`, `version` or both, with a comma between.",
    "schema": {"type": "string", "pattern": "^(timings|version)(,(timings|version))*$"},
    "example": "timings,version",
}
_WANTED: Final[Document] = {
    "name": "outputs",
    "in": "query",
    "description": "For pictures as they are: the outputs to answer with, with a comma between.",
    "schema": {"type": "string", "minLength": 1},
    "example": "scores",
}
_TOP_K: Final[Document] = {
    "name": "top_k",
    "in": "query",
    "description": "For pictures: how many of the best classes to name.",
    "schema": {"type": "integer", "minimum": 1, "maximum": native.MAX_TOP_K, "default": native.DEFAULT_TOP_K},
    "example": 3,
}
_PICTURE: Final[Document] = {"schema": {"type": "string", "format": "binary", "description": "A picture as it is."}}


def describe() -> Description:
    """Return what the native dialect answers."""
    return Description(_TAG, "Predictions, in JSON or with pictures as they are.", _paths(), _schemas())


def _paths() -> Document:
    both = [_VERSION, VERSION, _TOP_K, _WANTED, _INCLUDE, DEADLINE]
    answers = {"200": answer("The answer.", as_json("Prediction", outputs=_OUTPUTS, classes=_CLASSES, more=_TIMED), *SAID)}
    about = (
        "`inputs` is a list of rows, of records, or an object of columns; for a model with several inputs an object of nested "
        "lists by input name; for pictures a list of base64 texts. A picture model takes pictures as they are, too."
    )
    return {
        "/api/v1/predict/{deployment}": {
            "post": operation(
                "predict",
                "Predict",
                tag=_TAG,
                scope=Scope.PREDICT,
                about=about,
                parameters=[DEPLOYMENT, *both],
                body=_body(),
                answers=answers,
                errors=_ERRORS,
            )
        },
        "/predict": {
            "post": operation(
                "predictByDefault",
                "Predict, where the path names no deployment",
                tag=_TAG,
                scope=Scope.PREDICT,
                about=f"{about} The classes of a single picture are not wrapped in a list.",
                parameters=[*MODEL, *both],
                body=_body(),
                answers=answers,
                errors=(*_ERRORS, ModelNeeded, NotFound),
            )
        },
        "/info": {
            "get": operation(
                "getInfo",
                "Describe what answers here",
                tag=_TAG,
                scope=Scope.PREDICT,
                about="Describes the deployment that is named, with its signature; without a name, all of them.",
                parameters=[*MODEL, _VERSION, VERSION],
                answers={"200": answer("What answers.", {"application/json": {"schema": _info(), "example": _DESCRIBED}})},
                errors=(*ASKED_WITH_A_KEY, DeploymentNotFound, VersionNotServed),
            )
        },
    }


def _body() -> Document:
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "A picture; the part may come several times."},
            "top_k": _TOP_K["schema"],
            "outputs": _WANTED["schema"],
            "include": _INCLUDE["schema"],
        },
    }
    pictures = dict.fromkeys(("image/jpeg", "image/png", "application/octet-stream"), _PICTURE)
    forms = as_json("PredictionRequest", rows=_ROWS, records=_RECORDS, columns=_COLUMNS, top_k=_TOP, more=_MORE)
    return {**forms, "multipart/form-data": {"schema": form}, **pictures}


def _schemas() -> Document:
    found = schemas({"PredictionRequest": native._Body, "Prediction": native._Answer})  # noqa: SLF001 - what the dialect reads
    asked, told = found["PredictionRequest"]["properties"], found["Prediction"]["properties"]
    asked["inputs"] = {
        "description": "Rows, records, columns, or nested lists by input name.",
        "anyOf": [{"type": "array"}, {"type": "object", "additionalProperties": True}],
    }
    bounds = {"minimum": 1, "maximum": native.MAX_TOP_K}
    asked["top_k"] = {"description": "Best classes of each row to answer with.", "type": ["integer", "null"], **bounds}
    asked["version"] |= {"description": "The version that must answer, by its number or an alias."}
    asked["include"] |= {"description": "What else to say of the answer: where its time went, and which file answered."}
    asked["outputs"] |= {"description": "The outputs to answer with; all without it."}
    told["id"]["description"] = "The prediction's id in the history."
    told["outputs"] |= {"description": "A value for each row, by output."}
    told["predictions"] |= {"description": "The best classes of each row, where classes were asked for, or of a picture."}
    told["labels"] |= {"description": "The name of each row's class, where labels came with the version."}
    told["metadata"] = _metadata()
    return found | _of_info()


def _metadata() -> Document:
    """Return the schema of what an answer says of itself where `include` asks for it."""
    text: Document = {"type": "string"}
    duration: Document = {"type": "number", "minimum": 0}
    times = dict.fromkeys(("queue_ms", "preprocess_ms", "run_ms", "total_ms"), duration)
    version = dict.fromkeys(("id", "format", "framework", "digest", "created_at"), text)
    parts = {
        name: {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        for name, fields in (("timings", times), ("version", version))
    }
    about = "What `include` asked for: where the time went, in milliseconds, and which file answered."
    return {"type": "object", "description": about, "properties": parts, "additionalProperties": False}


def _of_info() -> Document:
    found = schemas({"ServedTensor": TensorSpec, "ServedSignature": Signature, "Preprocessing": ImageSpec})
    fields: Document = {
        "deployment": {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "integer", "minimum": 1},
        "version_id": {"type": "string"},
        "aliases": {
            "type": "object",
            "description": "The number of the version that each alias is answered by.",
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "format": {"type": "string"},
        "framework": {"type": "string"},
        "digest": {"type": "string", "description": "The SHA-256 of the file that serves."},
        "ready": {"type": "boolean", "description": "Whether it answers at once, or when it is asked."},
        "asleep": {"type": "boolean", "description": "Whether it is loaded by its next request."},
        "signature": schema("ServedSignature"),
        "preprocessing": {"anyOf": [schema("Preprocessing"), {"type": "null"}]},
        "classes": {"type": "array", "items": {"type": "string"}},
        "created_at": {"type": "string", "description": "When the version was uploaded."},
    }
    found["Served"] = {
        "type": "object",
        "description": "What answers for a deployment.",
        "properties": fields,
        "required": list(fields),
    }
    return found


def _info() -> Document:
    product = {
        "type": "object",
        "properties": {"product": {"const": "modelkeep"}, "product_version": {"type": "string"}},
        "required": ["product", "product_version"],
    }
    models = {"type": "array", "items": schema("Served")}
    every = {"type": "object", "properties": {"models": models}, "required": ["models"]}
    return {"allOf": [product, {"anyOf": [schema("Served"), every]}]}
