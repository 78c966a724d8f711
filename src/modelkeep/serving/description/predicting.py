"""What all dialects share in describing a prediction: who may ask, what may go wrong, and answers' headers."""

from typing import Final

from modelkeep.contracts.errors import (
    DamagedFile,
    Forbidden,
    InvalidInput,
    Limited,
    MasterKeyMissing,
    ModelFailed,
    OutOfMemory,
    Overloaded,
    RunnerLost,
    StorageUnavailable,
    Timeout,
    TooLarge,
    VersionLoading,
    VersionQuarantined,
)
from modelkeep.infra.cookies import CsrfRefused
from modelkeep.infra.description import NOT_ADMITTED, Document, Refusals
from modelkeep.infra.spool import HistoryFull
from modelkeep.serving.batcher import TooLate
from modelkeep.serving.codec import AnswerNotFinite
from modelkeep.serving.codings import DamagedBody, UnknownCoding
from modelkeep.serving.dialects.native import InvalidJson
from modelkeep.serving.engine import InvalidTimeout, TooManyRequests
from modelkeep.serving.keys import StaleNews
from modelkeep.serving.large import AnswerNotWritten, TooMuchAtOnce
from modelkeep.serving.limits import TooManyAtOnce
from modelkeep.serving.messages import LengthRequired
from modelkeep.serving.router import DeploymentNotFound, VersionNotServed

ASKED_WITH_A_KEY: Final[Refusals] = (*NOT_ADMITTED, CsrfRefused, Forbidden, StaleNews)
"""What any path of the door refuses that asks for a key."""

PREDICTING: Final[Refusals] = (
    *ASKED_WITH_A_KEY,
    AnswerNotFinite,
    AnswerNotWritten,
    DamagedBody,
    DamagedFile,
    DeploymentNotFound,
    HistoryFull,
    InvalidInput,
    InvalidJson,
    InvalidTimeout,
    LengthRequired,
    Limited,
    MasterKeyMissing,
    ModelFailed,
    OutOfMemory,
    Overloaded,
    RunnerLost,
    StorageUnavailable,
    Timeout,
    TooLarge,
    TooLate,
    TooManyAtOnce,
    TooManyRequests,
    TooMuchAtOnce,
    UnknownCoding,
    VersionLoading,
    VersionNotServed,
    VersionQuarantined,
)
"""What may become of a prediction in any dialect, beside an answer."""

DEADLINE: Final[Document] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "In how many seconds the answer is wanted: after that it is 504. Never more than the deployment allows.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "example": 0.5,
}
VERSION: Final[Document] = {
    "name": "X-Modelkeep-Version",
    "in": "header",
    "description": "The version that is meant: its number, or an alias. What path, query or body say goes before it.",
    "schema": {"type": "string", "minLength": 1},
    "example": "canary",
}
DEPLOYMENT: Final[Document] = {
    "name": "deployment",
    "in": "path",
    "required": True,
    "description": "The deployment's name; that of its model, where nothing else was made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 100},
    "example": "churn",
}
MODEL: Final[tuple[Document, ...]] = (
    {
        "name": "model",
        "in": "query",
        "description": "The deployment that is meant; else the header's, the installation's default, or the only one.",
        "schema": {"type": "string"},
        "example": "iris",
    },
    {
        "name": "X-Modelkeep-Model",
        "in": "header",
        "description": "The deployment that is meant, where `model` names none.",
        "schema": {"type": "string"},
        "example": "iris",
    },
)
"""How a request names a deployment where its path does not: see `serving/choice.py`."""
SAID: Final = ("X-Prediction-ID", "X-Model-Version", "Deprecation", "Sunset", "Link")
"""Headers of each answered prediction, whatever its dialect."""
