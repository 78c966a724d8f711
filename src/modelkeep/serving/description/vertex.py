"""Vertex AI's part of the OpenAPI document: what `/predict` and `/health` are beside our own, where the settings say so.

Its routes can have any path. The document has them where they may lie beside ours; elsewhere they answer the same.
"""

from typing import Final

from modelkeep.infra.description import Description, Document, answer, schema
from modelkeep.serving.dialects.native import MAX_TOP_K
from modelkeep.serving.settings import NATIVE_HEALTH, NATIVE_PREDICT

_JSON: Final = "application/json"
_ROWS: Final[Document] = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
_TOP: Final[Document] = {"instances": [[5.1, 3.5, 1.4, 0.2]], "parameters": {"top_k": 2}}
_PREDICTED: Final[Document] = {"predictions": [0, 2]}
_CLASSES: Final[Document] = {
    "predictions": [[{"label": "setosa", "index": 0, "score": 0.97}, {"label": "versicolor", "index": 1, "score": 0.02}]]
}
_ABOUT: Final = (
    "Where the setting `serving.predict_route` is this path, an object with `instances` is Vertex AI's request and is "
    "answered in its form; with another path, that one takes Vertex AI's requests only."
)
_HEALTH: Final = (
    "Where the setting `serving.health_route` is this path, it is what Vertex AI asks: 503 until predictions are answered."
)


def beside(part: Description) -> Description:
    """Return a description with Vertex AI's forms on those of its paths that may be Vertex AI's, too."""
    found: Document = {}
    if NATIVE_PREDICT in part.paths:
        _extend_predict(part.paths[NATIVE_PREDICT]["post"])
        found = _schemas()
    if NATIVE_HEALTH in part.paths:
        _extend_health(part.paths[NATIVE_HEALTH]["get"])
    return Description(part.tag, part.about, part.paths, part.schemas | found, part.forwarding)


def _extend_predict(operation: Document) -> None:
    operation["description"] += f"\n\n{_ABOUT}"
    asked = operation["requestBody"]["content"]
    told = operation["responses"]["200"]["content"]
    asked[_JSON] = _either(asked[_JSON], "VertexRequest", vertex_rows=_ROWS, vertex_top_k=_TOP)
    told[_JSON] = _either(told[_JSON], "VertexPredictions", vertex_rows=_PREDICTED, vertex_classes=_CLASSES)


def _extend_health(operation: Document) -> None:
    operation["description"] += f"\n\n{_HEALTH}"
    told = operation["responses"]
    told["503"] = answer("Predictions are not answered yet; only where Vertex AI asks.", told["200"]["content"])


def _either(media: Document, name: str, **examples: Document) -> Document:
    given = {one: {"value": value} for one, value in examples.items()}
    return {"schema": {"anyOf": [media["schema"], schema(name)]}, "examples": media["examples"] | given}


def _schemas() -> Document:
    top_k = {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": MAX_TOP_K,
        "description": "Best classes of each row to answer with, in place of its values.",
    }
    parameters: Document = {"type": ["object", "null"], "properties": {"top_k": top_k}, "additionalProperties": True}
    parameters |= {"description": "Others than `top_k` are passed over."}
    instances = {"type": "array", "description": "One item a row, as for TensorFlow Serving."}
    items = {"type": "array", "description": "As many as `instances`, in the same order."}
    return {
        "VertexRequest": {
            "type": "object",
            "properties": {"instances": instances, "parameters": parameters},
            "required": ["instances"],
        },
        "VertexPredictions": {
            "type": "object",
            "properties": {"predictions": items},
            "required": ["predictions"],
            "additionalProperties": False,
        },
    }
