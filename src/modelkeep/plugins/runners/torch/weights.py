"""Refuses what holds weights or pickled objects instead of a model, and says what is in it and what to do."""

import io
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.torch.archive import Archive, Kind

_MOST_HEADER = 100 << 20
_FEW = 3
_SAVE = "torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
_INSTEAD = f"Save the model itself, with {_SAVE} or torch.jit.script(model).save('model.pt')"
_WITH_CLASS = f"{_INSTEAD}, or push it in a folder with its class: the weights beside a model.py."
_STATE = "Save its weights alone, with torch.save(model.state_dict(), 'weights.pt'), beside its class"


def refuse(archive: Archive, data: bytes) -> NoReturn:
    """Raise `CannotLoad` for a file that is neither TorchScript nor a program of torch.export."""
    match archive.kind:
        case Kind.SAFETENSORS:
            raise _only_weights(_safetensors(data))
        case Kind.SAVED | Kind.LEGACY:
            raise _saved(data)
        case Kind.INDUCTOR:
            detail = f"An AOTInductor package is a program for one kind of machine, which is not run here. {_INSTEAD}."
        case Kind.PACKAGE:
            detail = f"A torch.package brings Python code of its own. {_WITH_CLASS}"
        case Kind.MOBILE:
            detail = f"A model for mobile devices in FlatBuffers cannot be loaded here. {_INSTEAD}."
        case _:
            detail = f"PyTorch wrote this archive, and there is no model in it. {_INSTEAD}."
    raise CannotLoad(Reason.UNRECOGNISED, detail)


def _saved(data: bytes) -> CannotLoad:
    """Why what `torch.save` wrote is refused. Only tensors and plain values are unpickled, and no tensor is read."""
    import torch

    try:
        thing = torch.load(io.BytesIO(data), map_location="meta", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged pickle may raise anything; the file is refused in any case
        return not_read(error, _WITH_CLASS)
    names = _tensors_in(thing)
    if names:
        return _only_weights(names)
    return CannotLoad(Reason.NOT_A_MODEL, f"torch.save wrote a {type(thing).__name__} without a model. {_WITH_CLASS}")


def not_read(error: Exception, instead: str = "") -> CannotLoad:
    """Return why `torch.load` would not read this as tensors and plain values; `instead` says what to do."""
    import pickle

    named = _global_in(str(error)) if isinstance(error, pickle.UnpicklingError) else ""
    if named:
        detail = f"torch.save wrote a pickled {named}, which only its own Python code can read. {instead or _STATE + '.'}"
        return CannotLoad(Reason.UNRECOGNISED, detail)
    if isinstance(error, pickle.UnpicklingError):
        return CannotLoad(Reason.LOAD_FAILED, f"torch.save wrote this file, and it is damaged. {instead}".rstrip())
    return CannotLoad(Reason.LOAD_FAILED, f"torch.save wrote this file, and it cannot be read: {type(error).__name__}.")


def _global_in(message: str) -> str:
    """The class or function that torch named when it would not unpickle it."""
    for before in ("Unsupported global: GLOBAL ", "Trying to load unsupported GLOBAL ", "instantiate "):
        _start, found, rest = message.partition(before)
        if found:
            return rest.split()[0].strip("`'\".,").rpartition(".")[2]
    return ""


def _tensors_in(thing: Any, depth: int = 0) -> list[str]:  # noqa: ANN401 - any object
    """Names of the tensors in a dictionary, those of dictionaries in it included."""
    import torch

    if isinstance(thing, torch.Tensor):
        return ["(a tensor)"] if depth == 0 else [""]
    if not isinstance(thing, Mapping) or depth > _FEW:
        return []
    return [f"{key}.{name}".rstrip(".") for key, value in thing.items() for name in _tensors_in(value, depth + 1)]


def check_header(data: bytes | bytearray) -> None:
    """Raise `CannotLoad` where a file of safetensors does not hold its whole header."""
    length = int.from_bytes(data[:8], "little")
    if length > min(_MOST_HEADER, len(data) - 8):
        detail = f"The file has {len(data)} bytes and stops within a header of {length}."
        raise CannotLoad(Reason.TRUNCATED, detail)


def _safetensors(data: bytes) -> list[str]:
    check_header(data)
    length = int.from_bytes(data[:8], "little")
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotLoad(Reason.LOAD_FAILED, f"The header of this safetensors file is damaged: {error}") from error
    return [name for name in header if name != "__metadata__"]


def _only_weights(names: list[str]) -> CannotLoad:
    few = ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
    held = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    detail = f"The file holds weights without the model they belong to: {held} ({few}). {_WITH_CLASS}"
    return CannotLoad(Reason.NOT_A_MODEL, detail)
