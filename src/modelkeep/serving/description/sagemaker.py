"""SageMaker's part of the OpenAPI document: its runtime's `InvokeEndpoint`, as AWS's clients send it.

They sign their requests: `Authorization` is AWS's own then, and its access key id is the API key.
"""

from collections.abc import Sequence
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError
from modelkeep.infra.description import Description, Document, answer, as_json, operation, sentence
from modelkeep.serving.description import scoring
from modelkeep.serving.description.predicting import DEADLINE, DEPLOYMENT, SAID, VERSION
from modelkeep.serving.dialects import sagemaker
from modelkeep.serving.dialects.native import UnsupportedMediaType

_TAG: Final = "sagemaker"
_CSV: Final = "41,basic\n29,\n"
_NAME: Final[Document] = {**DEPLOYMENT, "name": "name", "description": "The endpoint: a deployment's name."}
_ATTRIBUTES: Final = "X-Amzn-SageMaker-Custom-Attributes"
_REQUEST: Final[Document] = {
    "x-amzn-RequestId": {"description": "The request's id.", "required": True, "schema": {"type": "string"}}
}
_REFUSED: Final[Document] = {
    "x-amzn-errortype": {
        "description": "The error that AWS's clients raise.",
        "required": True,
        "schema": {"enum": sorted(set(sagemaker._ERRORS.values()))},  # noqa: SLF001 - what the dialect writes
    },
    **_REQUEST,
}
_ANSWERED: Final[Document] = {
    "x-Amzn-Invoked-Production-Variant": {
        "description": "The number of the version that answered.",
        "required": True,
        "schema": {"type": "string"},
        "example": "3",
    },
    _ATTRIBUTES: {"description": "What the request's header of this name said.", "schema": {"type": "string"}},
    **_REQUEST,
}


def describe() -> Description:
    """Return what is answered below `/endpoints`."""
    return Description(_TAG, "Predictions by SageMaker's runtime.", _paths(), _schemas())


def _refused(status: int, errors: Sequence[type[ModelkeepError]]) -> Document:
    """Return the content of errors as AWS's clients parse them."""
    text = sentence(errors[0])
    original = {"OriginalStatusCode": status, "OriginalMessage": text}
    is_models = sagemaker._ERRORS[errors[0].kind] == "ModelError"  # noqa: SLF001 - what the dialect writes
    return as_json("SageMakerError", **{errors[0].code: {"Message": text} | (original if is_models else {})})


def _paths() -> Document:
    made = operation(
        "invokeEndpoint",
        "Predict as SageMaker's runtime does",
        tag=_TAG,
        scope=Scope.PREDICT,
        about=(
            "The operation InvokeEndpoint. Requests may be signed as AWS's clients sign them: the access key id is the API key "
            "then. CSV has no header unless it says so (`text/csv; header=present`)."
        ),
        parameters=[_NAME, *_parameters(), VERSION, DEADLINE],
        body=scoring.bodies("ScoringRequest", _CSV),
        answers={"200": answer("The answer.", scoring.predictions(), *SAID)},
        errors=(*scoring.SCORING, UnsupportedMediaType, sagemaker.NotOffered),
        shape=_refused,
    )
    for status, told in made["responses"].items():
        told["headers"] = told["headers"] | (_ANSWERED if status == "200" else _REFUSED)
    return {"/endpoints/{name}/invocations": {"post": made}}


def _parameters() -> list[Document]:
    texts = {
        "X-Amzn-SageMaker-Target-Variant": (
            "The version that must answer: its number or an alias, or `AllTraffic` for the one that does.",
            "AllTraffic",
        ),
        "X-Amzn-SageMaker-Target-Model": ("The deployment that is meant in place of the endpoint, also as `NAME.tar.gz`.", ""),
        "X-Amzn-SageMaker-Inference-Id": ("Your own id of the request.", "order-4711"),
        _ATTRIBUTES: ("Said again in the answer.", "trace=7"),
    }
    return [
        {"name": name, "in": "header", "description": about, "schema": {"type": "string"}} | ({"example": one} if one else {})
        for name, (about, one) in texts.items()
    ]


def _schemas() -> Document:
    text: Document = {"type": "string"}
    fields = {
        "Message": {**text, "description": "What went wrong."},
        "OriginalStatusCode": {"type": "integer", "description": "The answer's status, where it is a `ModelError`."},
        "OriginalMessage": {**text, "description": "The message again, where it is a `ModelError`."},
    }
    return {
        "SageMakerError": {
            "type": "object",
            "description": "An error, as AWS's clients parse it.",
            "properties": fields,
            "required": ["Message"],
            "additionalProperties": False,
        }
    }
