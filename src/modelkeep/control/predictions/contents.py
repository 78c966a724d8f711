"""What went in and came out of a prediction, as a reader can use it: JSON where it is JSON, else its bytes and their type."""

from typing import Any

import msgspec

from modelkeep.contracts.prediction import PredictionRecord

_JSON = "application/json"


class Contents(msgspec.Struct, frozen=True):
    """One side of a prediction: `value` is decoded JSON, or `data` are the bytes; `note` says what is not kept."""

    content_type: str
    value: Any = None
    data: bytes | None = None
    note: str = ""


def inputs_of(record: PredictionRecord) -> Contents | None:
    """Return what was sent; None when nothing was kept and nobody said why."""
    return _contents(record.inputs, _JSON if record.input_note else record.content_type, record.input_note)


def outputs_of(record: PredictionRecord) -> Contents | None:
    """Return what was answered."""
    return _contents(record.outputs, _JSON, record.output_note)


def _contents(kept: bytes | None, content_type: str, note: str) -> Contents | None:
    if kept is None:
        return Contents(content_type, note=note) if note else None
    if "json" in content_type.partition(";")[0].lower():
        try:
            return Contents(content_type, value=msgspec.json.decode(kept), note=note)
        except (msgspec.DecodeError, RecursionError):
            pass
    return Contents(content_type, data=kept, note=note)
