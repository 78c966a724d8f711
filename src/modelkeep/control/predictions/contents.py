"""What went in and came out of a prediction, as a reader can use it: JSON where it is JSON, else its bytes and their type."""

from typing import Any

import msgspec

from modelkeep.contracts.prediction import PredictionRecord, json_length

_JSON = "application/json"


class Contents(msgspec.Struct, frozen=True):
    """One side of a prediction: `value` is decoded JSON, or `data` are the bytes; `note` says what is not kept.

    Of JSON with tensors as bytes behind it `value` is the JSON, and `data` the whole.
    """

    content_type: str
    value: Any = None
    data: bytes | None = None
    note: str = ""


def inputs_of(record: PredictionRecord) -> Contents | None:
    """Return what was sent; None when nothing was kept and nobody said why."""
    return _contents(record.inputs, _JSON if record.input_note else record.content_type, record.input_note)


def outputs_of(record: PredictionRecord) -> Contents | None:
    """Return what was answered."""
    return _contents(record.outputs, _JSON if record.output_note else record.answer_type, record.output_note)


def _contents(kept: bytes | None, content_type: str, note: str) -> Contents | None:
    if kept is None:
        return Contents(content_type, note=note) if note else None
    is_json = "json" in content_type.partition(";")[0].lower()
    mixed = json_length(content_type)
    if is_json or mixed is not None:
        try:
            value = msgspec.json.decode(kept if mixed is None else kept[:mixed])
            return Contents(content_type, value, None if mixed is None else kept, note)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return Contents(content_type, data=kept, note=note)
