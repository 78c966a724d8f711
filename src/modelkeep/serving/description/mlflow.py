"""MLflow's part of the OpenAPI document: scoring, also by Databricks' path, health and version."""

from collections.abc import Sequence
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError, NotFound
from modelkeep.infra.description import Description, Document, answer, as_json, operation, refusals, sentence
from modelkeep.serving.choice import ModelNeeded
from modelkeep.serving.description import scoring
from modelkeep.serving.description.predicting import DEADLINE, DEPLOYMENT, MODEL, SAID, VERSION
from modelkeep.serving.dialects.mlflow import ERROR_CODES
from modelkeep.serving.dialects.native import UnsupportedMediaType
from modelkeep.serving.router import DeploymentNotFound

_TAG: Final = "mlflow"
_CSV: Final = "age,plan\n41,basic\n29,\n"
_NAME: Final[Document] = {**DEPLOYMENT, "name": "name", "description": "The deployment's name."}
_CLIENT: Final[Document] = {"client_request_id": "order-4711", "instances": [[5.1, 3.5, 1.4, 0.2]]}


def describe() -> Description:
    """Return what is answered on MLflow's paths."""
    return Description(_TAG, "Predictions by MLflow's scoring protocol.", _scoring() | _told(), _schemas())


def _refused(status: int, errors: Sequence[type[ModelkeepError]]) -> Document:
    """Return the content of errors with MLflow's codes."""
    del status
    first = errors[0]
    return as_json("MlflowError", **{first.code: {"error_code": ERROR_CODES[first.kind], "message": sentence(first)}})


def _scoring() -> Document:
    about = (
        "A deployment is named by `model` or `X-Modelkeep-Model`; else it is the host's, the installation's default, or the "
        "only one. SageMaker asks its containers this, too. With the setting `serving.stand_in_key_file`, callers without a "
        "key are answered as the key in that file may be."
    )
    here = _invoke("invoke", about, [*MODEL, VERSION, DEADLINE], scoring.bodies("ScoringRequest", _CSV), (ModelNeeded,))
    there = _invoke(
        "invokeServingEndpoint",
        "Databricks' path, for the deployment of this name. `client_request_id` is kept as the request's id.",
        [_NAME, VERSION, DEADLINE],
        scoring.bodies("EndpointScoringRequest", _CSV, client_request_id=_CLIENT),
        (),
    )
    return {"/invocations": {"post": here}, "/serving-endpoints/{name}/invocations": {"post": there}}


def _invoke(
    name: str, about: str, parameters: Sequence[Document], body: Document, more: tuple[type[ModelkeepError], ...]
) -> Document:
    made = operation(
        name,
        "Predict with a data frame, rows, CSV, an array or a picture",
        tag=_TAG,
        scope=Scope.PREDICT,
        about=about,
        parameters=parameters,
        body=body,
        answers={"200": answer("The answer.", scoring.predictions(), *SAID)},
        errors=(*scoring.SCORING, *more),
        shape=_refused,
    )
    made["responses"]["415"] = next(iter(refusals((UnsupportedMediaType,), _refused).values()))  # 400 in other dialects
    return made


def _told() -> Document:
    empty = {"200": answer("It answers: an empty line.", {}), "503": answer("It does not answer now: an empty line.", {})}
    ping = operation(
        "ping",
        "Say whether a model answers",
        tag=_TAG,
        scope=None,
        about="Of the host's deployment, the installation's default, or the only one. SageMaker asks its containers this.",
        answers=empty,
        errors=(ModelNeeded, DeploymentNotFound, NotFound),
        shape=_refused,
    )
    text = {"text/plain": {"schema": {"type": "string"}, "example": "0.1.0"}}
    version = operation(
        "getProductVersion",
        "Return the installation's version",
        tag=_TAG,
        scope=None,
        answers={"200": answer("The version.", text)},
        shape=_refused,
    )
    return {"/ping": {"get": ping}, "/version": {"get": version}}


def _schemas() -> Document:
    codes = {"enum": sorted(set(ERROR_CODES.values())), "description": "MLflow's name of the kind of error."}
    return scoring.made() | {
        "MlflowError": {
            "type": "object",
            "description": "An error, as MLflow writes it.",
            "properties": {"error_code": codes, "message": {"type": "string"}},
            "required": ["error_code", "message"],
            "additionalProperties": False,
        }
    }
