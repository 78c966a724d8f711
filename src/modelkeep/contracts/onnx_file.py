"""The structure of ONNX files, walked without a parser, for every runner that takes them.

A cut file is told from a damaged one, the classes of a ZipMap are known before anything runs, and weights outside the file are
refused (a framework would read any file they name) unless they are in the same archive. Field numbers are those of
`onnx.proto3` (ONNX, Apache-2.0).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

if TYPE_CHECKING:
    Files = Mapping[str, memoryview | bytes]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_FIELDS = {
    1: _VARINT,  # ir_version
    2: _BYTES,  # producer_name
    3: _BYTES,  # producer_version
    4: _BYTES,  # domain
    5: _VARINT,  # model_version
    6: _BYTES,  # doc_string
    7: _BYTES,  # graph
    8: _BYTES,  # opset_import
    14: _BYTES,  # metadata_props
    20: _BYTES,  # training_info
    25: _BYTES,  # functions
    26: _BYTES,  # configuration
}
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NEWEST_IR = 64
_PARTS = {  # which fields of a message are messages that may hold tensors
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_MAX_DEPTH = 100
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_GRAPH_INPUT, _GRAPH_OUTPUT = 11, 12
_NODE_OUTPUT, _NODE_OP, _NODE_ATTRIBUTE = 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS = 1, 8, 9
_VARINT_BITS = 64
_DAMAGED = "The file begins like ONNX, and is damaged further on."


class EndsEarlyError(Exception):
    """The bytes stop within a field."""


class NotProtobufError(Exception):
    """The bytes are not in the Protocol Buffers wire format."""


def walk(data: memoryview) -> Iterator[tuple[int, int, "int | memoryview"]]:
    """Yield each field of a Protocol Buffers message: number, wire type, value. Raises where the bytes end within one."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if field == 0 or kind not in {_VARINT, _FIXED64, _BYTES, _FIXED32}:
            raise NotProtobufError
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield field, kind, number
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        else:
            size = 8 if kind == _FIXED64 else 4
        if at + size > len(data):
            raise EndsEarlyError
        yield field, kind, data[at : at + size]
        at += size


def begins(head: bytes) -> bool:
    """Whether these first bytes of a file are the beginning of a ModelProto: an IR version, then only fields that it has."""
    seen = 0
    try:
        for field, kind, value in walk(memoryview(head)):
            if _MODEL_FIELDS.get(field) != kind or (seen == 0 and field != _IR_VERSION):
                return False
            if field == _IR_VERSION and not (isinstance(value, int) and 0 < value < _NEWEST_IR):
                return False
            seen += 1
    except EndsEarlyError:
        pass
    except NotProtobufError:
        return False
    return seen > 0 and len(head) > 2  # noqa: PLR2004 - a version alone is no model


def names(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a graph's inputs (its weights among them, where they have defaults) and outputs, as declared."""
    found: dict[int, list[str]] = {_GRAPH_INPUT: [], _GRAPH_OUTPUT: []}
    for field, _kind, graph in walk(memoryview(data)):
        if field != _GRAPH or not isinstance(graph, memoryview):
            continue
        for part, _, value in walk(graph):
            if part in found and isinstance(value, memoryview):
                found[part].append(_first_text(value))
    return tuple(found[_GRAPH_INPUT]), tuple(found[_GRAPH_OUTPUT])


def is_quantised(data: bytes) -> bool:
    """Whether the graph computes with integers that stand for numbers: some node of it takes such integers back."""
    nodes = (part for kind, part in _messages("model", memoryview(data), 0) if kind == "node")
    return any(
        field == _NODE_OP and value == memoryview(b"DequantizeLinear") for node in nodes for field, _kind, value in walk(node)
    )


def _first_text(message: memoryview) -> str:
    return next(
        (bytes(value).decode(errors="replace") for at, _, value in walk(message) if at == 1 and isinstance(value, memoryview)),
        "",
    )


def inspect(data: bytes, beside: "Files | None" = None) -> "tuple[dict[str, tuple[str, ...]], Files]":
    """Check that the file is whole, and alone but for what is in the files `beside` it; raises `CannotLoad`.

    Returns the classes of its ZipMaps by output name, and those of the files that its weights are in.
    """
    model = memoryview(data)
    try:
        fields = {field for field, _kind, _value in walk(model)}
    except EndsEarlyError:
        detail = f"The file has {len(data)} bytes and stops within a field that is longer."
        raise CannotLoad(Reason.TRUNCATED, detail) from None
    except NotProtobufError:
        raise CannotLoad(Reason.LOAD_FAILED, _DAMAGED) from None
    if not {_GRAPH, _OPSET} <= fields:
        raise CannotLoad(Reason.TRUNCATED, "The file stops before its graph is complete.")
    classes: dict[str, tuple[str, ...]] = {}
    used: dict[str, memoryview | bytes] = {}
    try:
        for kind, part in _messages("model", model, 0):
            if kind == "tensor" and _is_elsewhere(part):
                name = _whereabouts(part, beside)
                used[name] = (beside or {})[name]
            if kind == "node":
                classes |= _zipmap(part)
    except (EndsEarlyError, NotProtobufError):
        raise CannotLoad(Reason.LOAD_FAILED, _DAMAGED) from None
    return classes, used


def _whereabouts(tensor: memoryview, beside: "Files | None") -> str:
    """The file that a tensor's bytes are in; raises `CannotLoad` unless it is one of those `beside`, and they are inside it."""
    if beside is None:
        advice = "Push the folder that holds both files, or save the model as one file."
        raise CannotLoad(Reason.LOAD_FAILED, f"The model keeps its weights in another file. {advice}")
    told: dict[str, str] = {}
    for field, _kind, value in walk(tensor):
        if field == _EXTERNAL_DATA and isinstance(value, memoryview):
            entry = {part: bytes(text).decode(errors="replace") for part, _, text in walk(value) if not isinstance(text, int)}
            if entry.get(1, "") not in _EXTERNAL_KEYS or entry[1] in told:
                raise CannotLoad(Reason.LOAD_FAILED, f"A weight has an unknown or repeated property {entry.get(1, '')[:40]!r}.")
            told[entry[1]] = entry.get(2, "")
    name = told.get("location", "")
    if name not in beside or "*" in name:  # ONNX Runtime has names with stars for addresses in memory
        raise CannotLoad(Reason.LOAD_FAILED, f"The model keeps its weights in {name[:100]!r}, which is no file of the archive.")
    numbers = [told.get("offset", "0"), told.get("length", "0")]
    if not all(one.isascii() and one.isdigit() and len(one) < _VARINT_BITS for one in numbers) or sum(map(int, numbers)) > len(
        beside[name]
    ):
        raise CannotLoad(Reason.TRUNCATED, f"A weight lies outside {name[:100]!r}, which has {len(beside[name])} bytes.")
    return name


def _messages(kind: str, message: memoryview, depth: int) -> Iterator[tuple[str, memoryview]]:
    """Yield every message inside a message that may hold tensors, itself included."""
    if depth > _MAX_DEPTH:
        raise NotProtobufError
    yield kind, message
    parts = _PARTS[kind]
    if not parts:
        return
    for field, _kind, value in walk(message):
        if field in parts and isinstance(value, memoryview):
            yield from _messages(parts[field], value, depth + 1)


def _is_elsewhere(tensor: memoryview) -> bool:
    return any(field == _DATA_LOCATION and value for field, _kind, value in walk(tensor))


def _zipmap(node: memoryview) -> dict[str, tuple[str, ...]]:
    output, operator = "", ""
    classes: tuple[str, ...] = ()
    for field, _kind, value in walk(node):
        if not isinstance(value, memoryview):
            continue
        if field == _NODE_OUTPUT:
            output = bytes(value).decode(errors="replace")
        elif field == _NODE_OP:
            operator = bytes(value).decode(errors="replace")
        elif field == _NODE_ATTRIBUTE and operator == "ZipMap":
            classes = classes or _class_labels(value)
    return {output: classes} if operator == "ZipMap" else {}


def _class_labels(attribute: memoryview) -> tuple[str, ...]:
    name = ""
    labels: list[str] = []
    for field, _kind, value in walk(attribute):
        if field == _ATTRIBUTE_NAME and isinstance(value, memoryview):
            name = bytes(value).decode(errors="replace")
        elif field == _ATTRIBUTE_STRINGS and isinstance(value, memoryview):
            labels.append(bytes(value).decode(errors="replace"))
        elif field == _ATTRIBUTE_INTS:
            labels.extend(str(_signed(number)) for number in _integers(value))
    return tuple(labels) if name.startswith("classlabels") else ()


def _integers(value: int | memoryview) -> list[int]:
    """A repeated integer: one value, or many packed together."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _signed(number: int) -> int:
    return number - (1 << _VARINT_BITS) if number >> (_VARINT_BITS - 1) else number


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data):
            raise EndsEarlyError
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, at
        shift += 7
        if shift >= _VARINT_BITS:
            raise NotProtobufError
