"""What MLflow's and SageMaker's parts of the OpenAPI document share: the bodies that both take, and the answer of both."""

from typing import Final

from modelkeep.contracts.errors import NotFound
from modelkeep.infra.description import Document, Refusals, as_json, schema, schemas
from modelkeep.serving.csv_rows import DoubtfulHeader, InvalidCsv
from modelkeep.serving.description.predicting import PREDICTING
from modelkeep.serving.dialects import scoring
from modelkeep.serving.dialects.frames import RECORDS, SPLIT
from modelkeep.serving.npy import InvalidNpy

SCORING: Final[Refusals] = (*PREDICTING, DoubtfulHeader, InvalidCsv, InvalidNpy, NotFound)
"""What may become of a prediction that is asked so, beside an answer; a content type that is not known comes beside."""

_SPLIT: Final[Document] = {SPLIT: {"columns": ["age", "plan"], "data": [[41, "basic"], [29, None]]}}
_RECORDS: Final[Document] = {RECORDS: [{"age": 41, "plan": "basic"}, {"age": 29, "plan": None}]}
_INSTANCES: Final[Document] = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], "params": {"outputs": ["label"]}}
_INPUTS: Final[Document] = {"inputs": [[5.1, 3.5, 1.4, 0.2]], "params": {"top_k": 2}}
_BINARY: Final[Document] = {"type": "string", "format": "binary"}


def bodies(name: str, example: str, **more: Document) -> Document:
    """Return the content of a request: JSON by the schema of this name, CSV with this example, arrays, pictures."""
    forms = as_json(name, split=_SPLIT, records=_RECORDS, instances=_INSTANCES, inputs=_INPUTS, **more)
    picture = {"schema": {**_BINARY, "description": "A picture as it is, for a model of pictures."}}
    return {
        **forms,
        "text/csv": {"schema": {"type": "string", "description": "Rows, in UTF-8."}, "example": example},
        "application/x-npy": {"schema": {**_BINARY, "description": "One array, as `numpy.save` writes it."}},
        **dict.fromkeys(("image/jpeg", "image/png", "application/x-image", "application/octet-stream"), picture),
    }


def predictions() -> Document:
    """Return the content of an answer."""
    values = {"predictions": [0, 1]}
    objects = {"predictions": [{"label": 0, "probabilities": [0.97, 0.03]}, {"label": 1, "probabilities": [0.1, 0.9]}]}
    classes = {"predictions": [[{"label": "setosa", "index": 0, "score": 0.97}]]}
    return as_json("ScoringPredictions", values=values, objects=objects, classes=classes)


def made() -> Document:
    """Return the schemas of bodies and answers."""
    found = schemas({"ScoringParams": scoring.Wish})
    wish = found["ScoringParams"]
    wish["description"] = "What is wanted of the answer."
    wish["properties"]["top_k"] |= {"description": "Best classes of each row to answer with."}
    wish["properties"]["outputs"] |= {"description": "The outputs to answer with; all without it."}
    rows = {"type": "array", "description": "One item a row: its values, an object of several outputs, or its best classes."}
    return found | {
        "DataframeSplit": _split(),
        "ScoringRequest": _request({}),
        "EndpointScoringRequest": _request(
            {scoring.CLIENT_REQUEST_ID: {"type": ["string", "null"], "description": "Your own id of the request."}}
        ),
        "ScoringPredictions": {
            "type": "object",
            "properties": {"predictions": rows},
            "required": ["predictions"],
            "additionalProperties": False,
        },
    }


def _request(also: Document) -> Document:
    record = {"type": "object", "additionalProperties": True}
    forms: Document = {
        SPLIT: schema("DataframeSplit"),
        RECORDS: {"type": "array", "items": record, "description": "One object a row, by column."},
        "instances": {"type": "array", "description": "One item a row, as for TensorFlow Serving."},
        "inputs": {
            "description": "One list an input, by name; of a model with one input, that list alone.",
            "anyOf": [{"type": "array"}, {"type": "object", "additionalProperties": True}],
        },
    }
    return {
        "type": "object",
        "description": "Exactly one of the four forms of rows. NaN is taken for a gap.",
        "properties": {**forms, "params": {"anyOf": [schema("ScoringParams"), {"type": "null"}]}, **also},
        "oneOf": [{"required": [form]} for form in scoring.FORMS],
        "additionalProperties": False,
    }


def _split() -> Document:
    names = {"type": ["array", "null"], "items": {"type": ["string", "integer"]}, "description": "The columns' names."}
    index = {"type": ["array", "null"], "description": "An entry for each row, which says nothing here."}
    data = {"type": "array", "items": {"type": "array"}, "description": "The rows."}
    return {
        "type": "object",
        "description": "A data frame as pandas writes it with `orient='split'`.",
        "properties": {"columns": names, "index": index, "data": data},
        "required": ["data"],
        "additionalProperties": False,
    }
