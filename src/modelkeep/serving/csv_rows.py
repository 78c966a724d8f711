"""Rows of a CSV as arrays that fit a signature: commas, quotes and line ends of RFC 4180, in UTF-8, with or without a mark.

Each cell is read by the one table of `serving/coercion.py`; an empty one is a missing value. A name has no blanks around it.
Columns have the order of the header, or, without one, that of the model. Whether the first line is a header:

    header=present, header=absent    as the content type says
    a cell is a column's name        it is one
    no cell fits its column          it is one, whose names are wrong; refused
    it could be either               texts only, or 0,1,2,... where columns have no names: refused, or taken for a row where
                                     the protocol is one without headers
    anything else                    it is a row
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import Final

from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput
from modelkeep.contracts.signature import DATETIME, EXACT, FLOATS, Dtype, Layout, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, tensors_from
from modelkeep.serving.coercion import EnoughError, Faults, from_text, is_date

_AT: Final = "csv"
_PIECE: Final = 512  # lines, which are read in some milliseconds: other threads go on between
_NUMBERS: Final = re.compile(r"[0-9.eE+,-]*")  # of these `float` and the table of values read the same, or `float` reads none
_DIGITS: Final = re.compile(r"[0-9+,-]*")
_NOT_WHOLE: Final = FLOATS | {Dtype.BOOL, Dtype.BYTES}


class InvalidCsv(Invalid):
    """The body is no CSV in UTF-8: lines of cells with commas, and quotes around those that hold a comma or a quote."""

    code = "invalid_csv"


class DoubtfulHeader(Invalid):
    """The first line could be names or a row: say `text/csv; header=present` or `text/csv; header=absent`."""

    code = "doubtful_header"


def tensors_from_csv(signature: Signature, body: bytes, *, header: bool | None = None, headless: bool = False) -> Tensors:
    """Return arrays by input name; raises `InvalidCsv`, `DoubtfulHeader`, or `InvalidInput` with paths like `csv.age[3]`.

    `header` is what the content type says of it. `headless`: a first line that could be either is a row.
    """
    columns = _columns(signature)
    lines = _lines(body)
    first = next(lines, None)
    if not first:
        raise InvalidCsv("The CSV is empty, or its first line is.")
    if not columns:
        (spec,) = signature.inputs
        columns = [spec] * len(first)
    names = [spec.name for spec in columns] if _is_named(signature) else []
    heads = [cell.strip() for cell in first]
    begins = _is_header(heads, columns, names, headless=headless) if header is None else header
    if begins and names:
        columns = _ordered(heads, columns, names)
        names = heads
    rows = lines if begins else _again(first, lines)
    values = _values(rows, columns)
    return tensors_from(signature, dict(zip(names, values, strict=True)) if names else list(zip(*values, strict=True)))


def _columns(signature: Signature) -> list[TensorSpec]:
    """Return a specification for each column; none where the model takes any number of them."""
    if signature.layout is Layout.TABLE:
        return list(signature.inputs)
    if signature.layout is not Layout.MATRIX:
        text = "The model's inputs are no table, so it takes no CSV."
        raise InvalidInput(text, fields=(FieldError(_AT, "no_table", text),))
    (spec,) = signature.inputs
    if spec.columns:
        return [TensorSpec(name, spec.dtype, (-1,), kind=spec.kind) for name in spec.columns]
    return [spec] * max(0, spec.shape[1])


def _is_named(signature: Signature) -> bool:
    return signature.layout is Layout.TABLE or bool(signature.inputs[0].columns)


def _lines(body: bytes) -> Iterator[list[str]]:
    """Yield each line's cells; raises `InvalidCsv`."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidCsv("The CSV is not text in UTF-8.") from error
    try:
        yield from csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), strict=True)
    except csv.Error as error:
        raise InvalidCsv from error


def _again(first: list[str], lines: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from lines


# ---- the header


def _is_header(first: list[str], columns: Sequence[TensorSpec], names: Sequence[str], *, headless: bool) -> bool:
    if not set(names).isdisjoint(first):
        return True
    typed = [(cell, spec) for cell, spec in zip(first, columns, strict=False) if spec.dtype is not Dtype.BYTES or spec.kind]
    if typed and not any(_fits(cell, spec) for cell, spec in typed):
        if not names:
            raise DoubtfulHeader
        return True
    if not headless and (not typed or (not names and first == [str(at) for at in range(len(first))])):
        raise DoubtfulHeader
    return False


def _fits(cell: str, spec: TensorSpec) -> bool:
    value = from_text(cell, spec.dtype, spec.kind)
    return is_date(value) if isinstance(value, str) and spec.kind == DATETIME else not isinstance(value, str)


def _ordered(given: list[str], columns: Sequence[TensorSpec], names: Sequence[str]) -> list[TensorSpec]:
    """Return the columns in the order of the header; raises `InvalidInput` where it does not name each of them once."""
    known = dict(zip(names, columns, strict=True))
    times = Counter(given)
    faults = Faults()
    try:
        for name in times:
            path = f"{_AT}.{name[:63]}"
            if not name:
                faults.add(
                    path, "unknown_column", "A column has no name. If it is a table's index, leave it out (index=False)."
                )
            elif name not in known:
                faults.add(path, "unknown_column", "The model has no such column.")
            elif times[name] > 1:
                faults.add(path, "duplicate_column", "This column is given more than once.")
        for name in names:
            if name not in times:
                faults.add(f"{_AT}.{name}", "missing_column", "This column is missing.")
    except EnoughError:
        pass
    faults.settle()
    return [known[name] for name in given]


# ---- the rows


def _values(rows: Iterator[list[str]], columns: Sequence[TensorSpec]) -> list[list[object]]:
    """Return the values of each column; raises `InvalidInput` where a line has more cells, or fewer."""
    values: list[list[object]] = [[] for _ in columns]
    width = len(columns)
    faults = Faults()
    try:
        for begin in count(step=_PIECE):
            piece = list(islice(rows, _PIECE))
            if not piece:
                break
            for at, row in enumerate(piece, begin):
                if len(row) != width:
                    has = f"{len(row)} cell{'' if len(row) == 1 else 's'}"
                    faults.add(f"{_AT}[{at}]", "column_count", f"Has {has}; {width} {'is' if width == 1 else 'are'} needed.")
            faults.settle()
            for spec, column, cells in zip(columns, values, zip(*piece, strict=True), strict=True):
                column.extend(_read(cells, spec))
    except EnoughError:
        pass
    faults.settle()
    return values


def _read(cells: Sequence[str], spec: TensorSpec) -> list[object]:
    """Return the values of some cells of a column. Of plain numbers, all at once, which gives the same values."""
    dtype, kind = spec.dtype, spec.kind
    if dtype is Dtype.BYTES and kind != DATETIME:
        return [cell or None for cell in cells]
    together = ",".join(cells)
    with suppress(ValueError):
        if dtype in FLOATS and _NUMBERS.fullmatch(together):
            numbers = list(map(float, cells))
            if min(numbers) > -EXACT and max(numbers) < EXACT:
                return [*numbers]
        if dtype not in _NOT_WHOLE and _DIGITS.fullmatch(together):
            return list(map(int, cells))
    return [from_text(cell, dtype, kind) for cell in cells]
