"""The schemas of the Open Inference Protocol's part of the OpenAPI document, made of what the dialect reads and writes."""

from collections.abc import Mapping
from typing import Any, Final

from modelkeep.contracts.signature import Dtype
from modelkeep.infra.description import Document, schema, schemas
from modelkeep.serving.dialects.open_inference import body, describe, rest
from modelkeep.serving.dialects.open_inference.tensors import MAX_CLASSES, MAX_TIMEOUT_US

_ASKED: Final[Mapping[str, Any]] = {
    "InferenceRequest": body._Infer,  # noqa: SLF001 - what the dialect reads
    "RequestInput": body._Input,  # noqa: SLF001 - as above
    "RequestOutput": body._Output,  # noqa: SLF001 - as above
    "RepositoryIndexRequest": rest._Index,  # noqa: SLF001 - as above
}
_TOLD: Final[Mapping[str, Any]] = {
    "InferenceResponse": body._Answer,  # noqa: SLF001 - what the dialect writes
    "ResponseOutput": body._Tensor,  # noqa: SLF001 - as above
    "ServerMetadata": describe.ServerMetadata,
    "ModelMetadata": describe.ModelMetadata,
    "MetadataTensor": describe.TensorMetadata,
    "ModelConfig": describe.ModelConfig,
    "ConfigTensor": describe.TensorConfig,
    "ConfigReshape": describe.Reshape,
    "VersionPolicy": describe.VersionPolicy,
    "ModelStatistics": describe.ModelStatistics,
    "InferenceStatistics": describe.InferenceStatistics,
    "StatisticDuration": describe.Duration,
    "RepositoryModel": describe.RepositoryModel,
}
_BYTES: Final[Document] = {
    "type": "integer",
    "minimum": 0,
    "description": "How many bytes of this tensor follow the JSON, where they do.",
}
_KIND: Final[Document] = {
    "type": "string",
    "description": "How texts are meant: `base64` for what they stand for, `pd_json` for the values that they are as JSON.",
}
_WHOLE: Final[Document] = {
    "type": "string",
    "description": (
        "`np` or `str`: the only tensor is the model's only input, whatever its name. Others hold for each input that has none."
    ),
}
_ENCODED: Final[Document] = {"type": "string", "description": "`base64` where texts are wanted, or written, so."}


def made() -> Document:
    """Return all schemas of the protocol, by name."""
    asked, told = schemas(_ASKED), {name: _whole(name, one) for name, one in schemas(_TOLD).items()}
    found = asked | told
    _describe_tensors(found)
    _describe_parameters(found)
    return found | {
        "ServerHealth": _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}),
        "ModelReady": _object({"name": {"type": "string"}, "ready": {"type": "boolean"}}),
        "StatisticsOfModels": _object({"model_stats": {"type": "array", "items": schema("ModelStatistics")}}),
        "RepositoryIndex": {"type": "array", "items": schema("RepositoryModel")},
    }


def _whole(name: str, one: Document) -> Document:
    """Return the schema of what is written: nothing but these fields, and all of them unless defaults are left out."""
    closed = one | {"additionalProperties": False}
    if "description" in one:
        closed["description"] = " ".join(one["description"].split())
    if not _TOLD[name].__struct_config__.omit_defaults:
        closed["required"] = list(one["properties"])
        closed["properties"] = {
            key: {word: part for word, part in value.items() if word != "default"} for key, value in one["properties"].items()
        }
    return closed


def _describe_tensors(found: Document) -> None:
    datatype = {"type": "string", "enum": [dtype.value for dtype in Dtype], "description": "The datatype of its values."}
    for name in ("RequestInput", "ResponseOutput", "MetadataTensor"):
        fields = found[name]["properties"]
        fields["datatype"] = datatype
        fields["shape"]["description"] = "The length of each axis; -1 where it is free."
    for name in ("RequestInput", "ResponseOutput"):
        fields = found[name]["properties"]
        fields["shape"]["description"] = "The length of each axis."
        fields["data"] = {"type": "array", "description": "The values, row by row; nested, or in one list. None for bytes."}
    found["RequestInput"]["properties"]["shape"] |= {"items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 16}
    found["RepositoryModel"]["properties"]["state"] = {"enum": ["READY", "LOADING", "UNAVAILABLE"]}
    found["RepositoryIndexRequest"]["properties"]["ready"]["description"] = "Those alone that are ready."


def _describe_parameters(found: Document) -> None:
    """Say which parameters mean something; others may be there, and mean nothing."""
    flag, words = {"type": "boolean"}, {"type": "string"}
    classes = {"type": "integer", "minimum": 0, "maximum": MAX_CLASSES, "description": "How many best classes to name."}
    timeout = {"type": "integer", "minimum": 0, "maximum": MAX_TIMEOUT_US, "description": "Microseconds; 0 for no limit."}
    all_bytes = flag | {"description": "Whether outputs are wanted as bytes that say nothing of it themselves."}
    known = {
        "InferenceRequest": {"timeout": timeout, "binary_data_output": all_bytes, "content_type": _WHOLE},
        "RequestInput": {"binary_data_size": _BYTES, "content_type": _KIND},
        "RequestOutput": {
            "binary_data": flag | {"description": "Whether as bytes."},
            "classification": classes,
            "content_type": _ENCODED,
        },
        "InferenceResponse": {"prediction_id": words | {"description": "The prediction's id in the history."}},
        "ResponseOutput": {"binary_data_size": _BYTES, "content_type": _ENCODED},
        "MetadataTensor": {
            "content_type": words | {"description": "`datetime` where texts are dates."},
            "nullable": flag | {"description": "Whether gaps are taken."},
            "categories": {"type": "array", "description": "The categories that an encoder was fitted with."},
        },
    }
    for name, properties in known.items():
        parameters: Document = {"type": "object", "properties": properties}
        null: Document = {"anyOf": [parameters, {"type": "null"}]}
        found[name]["properties"]["parameters"] = null if name in _ASKED else parameters


def _object(required: Document) -> Document:
    return {"type": "object", "properties": required, "required": list(required), "additionalProperties": False}
