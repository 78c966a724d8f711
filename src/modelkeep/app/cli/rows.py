"""Rows as people have them at a terminal: a CSV or JSON file, JSON on the command line, anything from a pipe."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from modelkeep.app.cli.problems import WrongUse

STDIN = "stdin"
NOTHING = "Give --rows, --file or --image, or pipe rows in."
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
_MISSING = frozenset({"", "nan", "na", "null", "none"})
_TRUTH = {"true": True, "false": False}


def from_text(text: str, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """Read JSON: rows, records or columns, alone or as `{"inputs": ...}`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        advice = 'Rows look like [[1, 2.5], [3, 4]], records like [{"age": 41}].'
        raise WrongUse(f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.", advice) from error
    return value["inputs"] if isinstance(value, dict) and "inputs" in value else value


def from_file(path: Path) -> Any:  # noqa: ANN401 - any JSON value, or bytes of a picture
    """Read a file by its suffix: .json, .jsonl (one row a line), .csv or .tsv; without one, by its content."""
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise WrongUse(f"{path} is a directory; the command takes a file.") from error
    except FileNotFoundError as error:
        raise WrongUse(f"There is no file {path}.", "Check the path; it is taken from where you are.") from error
    readers: dict[str, Callable[[str, str], Any]] = {
        ".json": from_text,
        ".jsonl": _from_lines,
        ".ndjson": _from_lines,
        ".csv": _from_csv,
        ".tsv": _from_csv,
    }
    reader = readers.get(path.suffix.lower())
    return reader(_decoded(data, str(path)), str(path)) if reader else from_bytes(data, str(path))


def from_bytes(data: bytes, what: str) -> Any:  # noqa: ANN401 - any JSON value, or bytes of a picture
    """Read what somebody hands over without saying what it is: a picture, JSON, or CSV."""
    if data.startswith(_PICTURES):
        return data
    text = _decoded(data, what)
    if not text.strip():
        raise WrongUse(f"{what} is empty; no rows to predict on.", NOTHING if what == STDIN else "")
    return from_text(text, what) if text.lstrip()[0] in "[{" else _from_csv(text, what)


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongUse(f"{what} is neither text nor a picture.", "Send CSV or JSON in UTF-8, or a JPEG or PNG.") from error


def _from_lines(text: str, what: str) -> list[Any]:
    return [from_text(line, f"{what}, line {number},") for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _from_csv(text: str, what: str) -> Any:  # noqa: ANN401 - columns, or rows where there are no names
    """Read CSV: columns by name where the first line has names, else rows."""
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4096], ",;\t")
    except csv.Error:
        dialect = csv.excel
    lines = [line for line in csv.reader(StringIO(text), dialect) if line]
    if not lines:
        raise WrongUse(f"{what} is empty; no rows to predict on.")
    width = len(lines[0])
    for number, line in enumerate(lines, 1):
        if len(line) != width:
            values = "value" if len(line) == 1 else "values"
            raise WrongUse(f"{what}, line {number}, has {len(line)} {values}; the first line has {width}.")
    if all(_number(cell) is not None for cell in lines[0]):
        return [list(row) for row in zip(*(_column(cells) for cells in zip(*lines, strict=True)), strict=True)]
    names, rows = lines[0], lines[1:]
    if not rows:
        raise WrongUse(f"{what} has a line of names and no rows.")
    return dict(zip(names, (_column(cells) for cells in zip(*rows, strict=True)), strict=True))


def _column(cells: Sequence[str]) -> list[Any]:
    """Return a column as numbers or truth values where all its cells are; empty cells are missing values."""
    texts = [None if cell.strip().lower() in _MISSING else cell for cell in cells]
    for convert in (_truth, _number):
        values = [None if text is None else convert(text) for text in texts]
        if all(value is not None for value, text in zip(values, texts, strict=True) if text is not None):
            return values
    return list(texts)


def _truth(text: str) -> bool | None:
    return _TRUTH.get(text.strip().lower())


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        try:
            value = float(text)
        except ValueError:
            return None
    return value if math.isfinite(value) else None
