"""Predictions as a file: JSON lines, or Parquet with typed columns; written piece by piece, so that any size fits."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.control.predictions.contents import Contents, inputs_of, outputs_of
from modelkeep.control.predictions.errors import ParquetNotInstalled

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["jsonl", "parquet"]
MEDIA_TYPES: Final[dict[Format, str]] = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}

_PLAIN: Final = (
    *("id", "request_id", "deployment", "version_id", "version", "key_id", "user", "dialect", "outcome", "code", "status"),
    *("rows", "total_ms", "queue_ms", "run_ms", "content_type", "input_note", "output_note"),
)


def writer(form: Format) -> Callable[[AsyncIterator[list[PredictionRecord]]], AsyncIterator[bytes]]:
    """Return what turns lists of records into the pieces of a file; raises `ParquetNotInstalled` before anything is written."""
    if form == "jsonl":
        return _json_lines
    try:
        import pyarrow.parquet  # noqa: F401 - only to know that it is there
    except ImportError as error:
        raise ParquetNotInstalled from error
    return _parquet


def document(record: PredictionRecord) -> dict[str, Any]:
    """Return a record as a JSON document, contents decoded."""
    return {
        **{name: getattr(record, name) for name in _PLAIN[:-2]},
        "at": datetime.fromtimestamp(record.at, UTC),
        "inputs": _side(inputs_of(record)),
        "outputs": _side(outputs_of(record)),
    }


def _side(side: Contents | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {"content_type": side.content_type, "value": side.value, "base64": side.data, "note": side.note}


async def _json_lines(lists: AsyncIterator[list[PredictionRecord]]) -> AsyncIterator[bytes]:
    encode = msgspec.json.Encoder().encode
    async for records in lists:
        yield b"".join(encode(document(record)) + b"\n" for record in records)


async def _parquet(lists: AsyncIterator[list[PredictionRecord]]) -> AsyncIterator[bytes]:
    """Write one row group a list."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    buffer = _Pieces()
    with pq.ParquetWriter(pa.PythonFile(buffer, mode="w"), schema, compression="zstd") as file:
        async for records in lists:
            file.write_table(pa.Table.from_pylist([_row(record) for record in records], schema=schema))
            yield buffer.take()
    yield buffer.take()


class _Pieces(BytesIO):
    """A file that is taken away piece by piece while it is written; it still knows how long it is in all."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    def tell(self) -> int:
        """Return the length of all that was ever written."""
        return self._taken + super().tell()

    def take(self) -> bytes:
        """Return what was written since the last time."""
        piece = self.getvalue()
        self._taken += len(piece)
        self.seek(0)
        self.truncate()
        return piece

    def close(self) -> None:
        """Stay open: the last piece is taken after the writer is done."""


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = {"version": pa.int32(), "status": pa.int32(), "rows": pa.int32()}
    kinds |= dict.fromkeys(("total_ms", "queue_ms", "run_ms"), pa.float64())
    columns = [("at", pa.timestamp("us", tz="UTC"))]
    columns += [(name, kinds.get(name, pa.string())) for name in _PLAIN]
    for side in ("inputs", "outputs"):
        columns += [(side, pa.string()), (f"{side}_data", pa.binary())]
    return pa.schema(columns)


def _row(record: PredictionRecord) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _PLAIN}
    row["at"] = int(record.at * 1_000_000)
    for name, kept, side in (
        ("inputs", record.inputs, inputs_of(record)),
        ("outputs", record.outputs, outputs_of(record)),
    ):
        is_json = side is not None and kept is not None and side.data is None
        row[name] = kept.decode() if is_json and kept is not None else None
        row[f"{name}_data"] = None if is_json else kept
    return row
