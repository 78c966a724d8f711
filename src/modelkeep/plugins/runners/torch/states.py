"""Reads a state dict the safe way: names and tensors, and nothing that could be called. In torch's forms and as safetensors."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelkeep.contracts.columns import listed
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.torch import archive as files
from modelkeep.plugins.runners.torch import weights
from modelkeep.plugins.runners.torch.archive import Kind

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES: Final = (".pt", ".pth", ".bin", ".safetensors")
_HEADER_AT: Final = 8
_SAFETENSORS: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}


class State(NamedTuple):
    """A state dict, and the name of the file that it was in."""

    tensors: "Mapping[str, Tensor]"
    file: str


def find(folder: Path) -> Path:
    """Return the one file with weights in a folder; raises `CannotLoad`."""
    found = sorted(one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise CannotLoad(Reason.NOT_A_MODEL, f"The folder holds no weights: no file that ends in {listed(SUFFIXES)}.")
    names = listed([one.relative_to(folder).as_posix() for one in found])
    raise CannotLoad(Reason.NOT_A_MODEL, f"The folder holds several files of weights: {names}. Leave one in it.")


def read(path: Path, folder: Path) -> State:
    """Return the state dict in a file of the folder; raises `CannotLoad`."""
    name = path.relative_to(folder).as_posix()
    with path.open("rb") as file:
        data = bytearray(path.stat().st_size)
        file.readinto(data)
    head = bytes(data[:16])
    try:
        thing = _safetensors(data) if files.is_safetensors(head) else _saved(bytes(data))
        return State(_state(thing), name)
    except CannotLoad as error:
        raise CannotLoad(error.reason, f"{name}: {error.detail}") from error


def _saved(data: bytes) -> Any:  # noqa: ANN401 - any object of tensors and plain values
    """What `torch.save` wrote. Torch compares the length of each record with what is said of it, and no checksum: we do."""
    import torch

    found = files.look_at(data, weights=True)
    if found.kind in {Kind.SCRIPT, Kind.PROGRAM}:
        detail = f"It is {found.kind.value}, which is a model by itself: push this file alone, without a class."
        raise CannotLoad(Reason.MISMATCH, detail)
    if found.kind not in {Kind.SAVED, Kind.LEGACY}:
        weights.refuse(found, data)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise weights.not_read(error) from error


def _state(thing: Any) -> "Mapping[str, Tensor]":  # noqa: ANN401 - any object
    """The state dict in a checkpoint: itself, or the only one in it."""
    if not isinstance(thing, Mapping):
        detail = f"It holds a {type(thing).__name__}, and no state dict: save model.state_dict()."
        raise CannotLoad(Reason.NOT_A_MODEL, detail)
    if _is_state(thing):
        _check_each(thing)
        return thing
    inner = [key for key, value in thing.items() if _is_state(value)]
    if len(inner) == 1:
        found: Mapping[str, Tensor] = thing[inner[0]]
        _check_each(found)
        return found
    if inner:
        names = listed([str(one) for one in inner])
        raise CannotLoad(Reason.NOT_A_MODEL, f"It holds several state dicts: {names}. Save the one that is to be served alone.")
    others = listed([str(key) for key, value in thing.items() if not _is_tensor(value)])
    what = f"There is more than tensors in it: {others}." if others else "It is empty."
    raise CannotLoad(Reason.NOT_A_MODEL, f"{what} Save model.state_dict() alone.")


def _is_state(thing: object) -> bool:
    return isinstance(thing, Mapping) and bool(thing) and all(isinstance(key, str) for key in thing) and _all_tensors(thing)


def _all_tensors(thing: Mapping[Any, object]) -> bool:
    return all(map(_is_tensor, thing.values()))


def _is_tensor(thing: object) -> bool:
    import torch

    return isinstance(thing, torch.Tensor)


def _check_each(tensors: "Mapping[str, Tensor]") -> None:
    """Refuse a tensor that is no plain block of numbers in memory that was read."""
    import torch

    for name, one in tensors.items():
        plain = one.device.type == "cpu" and one.layout is torch.strided and not one.is_quantized
        if not plain or type(one) not in {torch.Tensor, torch.nn.Parameter}:
            raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"{name!r} is no plain tensor, but of a kind that is not read here.")
        reach = one.storage_offset() + sum((length - 1) * step for length, step in zip(one.shape, one.stride(), strict=True))
        inside = one.storage_offset() >= 0 and all(step >= 0 for step in one.stride())
        if one.numel() and (not inside or (reach + 1) * one.element_size() > one.untyped_storage().nbytes()):
            raise CannotLoad(Reason.LOAD_FAILED, f"{name!r} reaches beyond what the file holds.")


# ---- safetensors


def _safetensors(data: bytearray) -> "dict[str, Tensor]":
    """The tensors of a file that is a length, a header in JSON, and the numbers without a gap."""
    weights.check_header(data)
    start = _HEADER_AT + int.from_bytes(data[:_HEADER_AT], "little")
    try:
        header = json.loads(data[_HEADER_AT:start].decode(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise CannotLoad(Reason.LOAD_FAILED, f"The header of this safetensors file is damaged: {error}") from error
    header.pop("__metadata__", None)
    at, found = 0, {}
    for name, said in sorted(header.items(), key=_begins):
        kind, shape, begin, end = _said(name, said)
        if begin != at or end < begin or start + end > len(data):
            raise _gap(name, data, start + end)
        found[name] = _tensor(name, kind, shape, memoryview(data)[start + begin : start + end])
        at = end
    if start + at != len(data):
        raise CannotLoad(Reason.LOAD_FAILED, f"The file has {len(data) - start - at} bytes more than its tensors.")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _value in pairs]
    if len(set(names)) != len(names):
        twice = listed(sorted({name for name in names if names.count(name) > 1}))
        raise ValueError(f"{twice} is in it twice")
    return dict(pairs)


def _begins(entry: tuple[str, Any]) -> tuple[int, int]:
    _kind, _shape, begin, end = _said(*entry)
    return begin, end


def _said(name: str, said: Any) -> tuple[str, tuple[int, ...], int, int]:  # noqa: ANN401 - whatever the JSON has
    """Datatype, shape, begin and end of one tensor; raises `CannotLoad`."""
    if isinstance(said, dict) and said.keys() == {"dtype", "shape", "data_offsets"}:
        shape, offsets = said["shape"], said["data_offsets"]
        if _lengths(shape) and _lengths(offsets) and len(offsets) == 2 and isinstance(said["dtype"], str):  # noqa: PLR2004 - a pair
            return said["dtype"], tuple(shape), offsets[0], offsets[1]
    raise CannotLoad(Reason.LOAD_FAILED, f"The header says nothing that can be understood of {name!r}.")


def _lengths(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _gap(name: str, data: bytearray, end: int) -> CannotLoad:
    if end > len(data):
        return CannotLoad(Reason.TRUNCATED, f"The file has {len(data)} bytes, and {name!r} goes up to {end}.")
    return CannotLoad(Reason.LOAD_FAILED, f"{name!r} does not begin where the tensor before it ends.")


def _tensor(name: str, kind: str, shape: tuple[int, ...], numbers: memoryview) -> "Tensor":
    import torch

    dtype = getattr(torch, _SAFETENSORS.get(kind, ""), None)
    if dtype is None:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"{name!r} is of the datatype {kind[:20]}, which is not read here.")
    count = math.prod(shape)
    if count * dtype.itemsize != len(numbers):
        detail = f"{name!r} has the shape {list(shape)}, which takes {count * dtype.itemsize} bytes; it has {len(numbers)}."
        raise CannotLoad(Reason.LOAD_FAILED, detail)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(numbers, dtype=dtype).reshape(shape)
