"""What the predict door says of health and metrics in the OpenAPI document."""

from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.infra.description import Description, Document, answer, as_json, operation
from modelkeep.serving.description.predicting import ASKED_WITH_A_KEY
from modelkeep.serving.forward import ApiDown

_TAG: Final = "health"
_COUNTS: Final = ("ready", "asleep", "loading", "failing", "differing")
_SANDBOX: Final[Document] = {"level": "L2", "missing": "", "accepted": None}
_MODELS: Final[Document] = {"ready": 2, "asleep": 0, "loading": 0, "failing": 0, "differing": 0}
_READY: Final[Document] = {
    "ready": True,
    "reasons": [],
    "snapshot": 7,
    "news_age_s": 0.4,
    "models": _MODELS,
    "sandbox": _SANDBOX,
    "certificate": None,
}
_LOADING: Final[Document] = {
    **_READY,
    "ready": False,
    "reasons": ["models are being loaded"],
    "models": {**_MODELS, "ready": 1, "loading": 1},
}
_HEALTHY: Final[Document] = {
    "status": "healthy",
    "version": "0.1.0",
    "uptime_s": 3600.5,
    "models": _MODELS,
    "sandbox": _SANDBOX,
}


def describe() -> Description:
    """Return what the door says of the server itself."""
    return Description(_TAG, "Whether it works, and how much.", _paths(), _schemas(), forwarding=(ApiDown,))


def _paths() -> Document:
    alive = answer("It lives.", as_json("Liveness", alive={"status": "ok", "version": "0.1.0"}))
    ready = {
        "200": answer("Ready.", as_json("Readiness", ready=_READY)),
        "503": answer("Not ready, with the reasons.", as_json("Readiness", loading=_LOADING)),
    }
    health = answer("How it is.", as_json("Health", healthy=_HEALTHY))
    return {
        "/healthz": {"get": _open("getLiveness", "Say that the server lives", {"200": alive})},
        "/readyz": {"get": _open("getReadiness", "Say whether the server is ready, or why not", ready)},
        "/health": {"get": _open("getHealth", "Say how the server and its models are", {"200": health})},
        "/metrics": {
            "get": operation(
                "getMetrics",
                "Return the metrics",
                tag=_TAG,
                scope=Scope.METRICS_READ,
                about="Answers in Prometheus' text format, or in OpenMetrics where `Accept` asks for it.",
                answers={"200": answer("The numbers of all servers of the installation.", _metrics())},
                errors=ASKED_WITH_A_KEY,
            )
        },
    }


def _metrics() -> Document:
    text = {"schema": {"type": "string"}, "example": 'modelkeep_predictions_total{deployment="iris",version="3"} 42.0\n'}
    return {"text/plain": text, "application/openmetrics-text": text}


def _open(name: str, summary: str, answers: Document) -> Document:
    return operation(name, summary, tag=_TAG, scope=None, answers=answers)


def _schemas() -> Document:
    count = {"type": "integer", "minimum": 0}
    level = {"enum": ["L3", "L2", "L1", "L0"]}
    return {
        "Liveness": _object({"status": {"const": "ok"}, "version": {"type": "string"}}),
        "Readiness": _object(
            {
                "ready": {"type": "boolean"},
                "reasons": {"type": "array", "items": {"type": "string"}},
                "snapshot": {"type": "integer", "minimum": 0, "description": "The newest news from the control plane."},
                "news_age_s": {"type": ["number", "null"], "description": "Seconds since the control plane was heard of."},
                "models": {"$ref": "#/components/schemas/ModelCounts"},
                "sandbox": {"$ref": "#/components/schemas/Sandbox"},
                "certificate": {"$ref": "#/components/schemas/Certificate"},
            }
        ),
        "Certificate": {
            "description": "When the certificate of TLS expires, and why newer files of it are not taken; null without TLS.",
            "anyOf": [
                _object({"expires": {"type": "string", "format": "date-time"}, "trouble": {"type": ["string", "null"]}}),
                {"type": "null"},
            ],
        },
        "Health": _object(
            {
                "status": {"enum": ["healthy", "degraded"]},
                "version": {"type": "string"},
                "uptime_s": {"type": "number", "minimum": 0},
                "models": {"$ref": "#/components/schemas/ModelCounts"},
                "sandbox": {"$ref": "#/components/schemas/Sandbox"},
            }
        ),
        "ModelCounts": _object(dict.fromkeys(_COUNTS, count)) | {"description": "How many deployments are in which state."},
        "Sandbox": {
            "description": "How well models are locked in; null until that has been tried.",
            "anyOf": [
                _object({"level": level, "missing": {"type": "string"}, "accepted": {"anyOf": [level, {"type": "null"}]}}),
                {"type": "null"},
            ],
        },
    }


def _object(required: Document) -> Document:
    return {"type": "object", "properties": required, "required": list(required), "additionalProperties": False}
