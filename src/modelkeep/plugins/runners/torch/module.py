"""Makes a network of an uploader's class and the weights that were saved of it.

model.py        a class that is a torch.nn.Module, or a function that returns one
model.json      what it is called with, by name, where it takes arguments
weights.pt      its state dict, under any name, which `states` has read before anything here runs
"""

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelkeep.contracts import imports
from modelkeep.contracts.columns import listed
from modelkeep.contracts.imports import SETTINGS, USUAL_NAME
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.torch.network import Argument, Network
from modelkeep.plugins.runners.torch.states import State

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor, dtype, nn

ARGUMENTS: Final = "model.json"
_PLAIN: Final = (bool, int, float, complex, str, bytes)
_NAMED: Final = {"bool", "int", "float", "complex", "str", "bytes"}


def load(folder: str, state: State) -> Network:
    """Return the network with these weights, ready to answer; raises `CannotLoad`, or `MemoryError`."""
    sys.dont_write_bytecode = True  # there is nowhere to write it
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        maker = _maker(folder)
        module = _made(maker, _arguments(Path(folder, ARGUMENTS)))
        _fill(module, state)
        module.eval()
        return _network(module, maker, state)
    except (CannotLoad, MemoryError):
        raise
    except Exception as error:
        raise imports.failed(error, folder) from error


# ---- the class


def _maker(folder: str) -> "Callable[..., object]":
    """What makes the network: the class or function that `modelkeep.toml` names, or the one that is meant in `model.py`."""
    module, name = imports.declared(Path(folder, SETTINGS))
    imported = imports.imported(module, folder)
    if not name:
        return _only(imported)
    found = getattr(imported, name, None)
    if not callable(found):
        raise CannotLoad(Reason.NOT_A_MODEL, f"The module {module} has no class or function {name}.")
    return _checked(found)


def _only(module: "ModuleType") -> "Callable[..., object]":
    """`Model`, or the only network among the classes, or, where there is none, the only function."""
    from torch import nn

    usual = getattr(module, USUAL_NAME, None)
    if callable(usual):
        return _checked(usual)
    own: list[Callable[..., object]] = [one for one in imports.own_classes(module) if issubclass(one, nn.Module)]
    if not own:
        own = [
            one
            for name, one in vars(module).items()
            if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
        ]
    if len(own) == 1:
        return own[0]
    if not own:
        detail = f"{module.__name__}.py holds no class that is a torch.nn.Module, and no function that makes one."
        raise CannotLoad(Reason.NOT_A_MODEL, detail)
    names = listed([getattr(one, "__name__", "") for one in own])
    raise CannotLoad(
        Reason.NOT_A_MODEL,
        f"{module.__name__}.py holds {names}. Call one of them {USUAL_NAME}, or name it in {SETTINGS}.",
    )


def _checked(maker: "Callable[..., object]") -> "Callable[..., object]":
    from torch import nn

    if inspect.isclass(maker) and not issubclass(maker, nn.Module):
        raise CannotLoad(
            Reason.NOT_A_MODEL,
            f"The class {maker.__name__} is no torch.nn.Module. One with load and predict is of the format python.",
        )
    return maker


def _arguments(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CannotLoad(Reason.LOAD_FAILED, f"{ARGUMENTS} is no JSON: {error}") from error
    if not isinstance(said, dict):
        detail = f'{ARGUMENTS} must be arguments by name, such as {{"width": 8}}, and is a {type(said).__name__}.'
        raise CannotLoad(Reason.LOAD_FAILED, detail)
    return said


def _made(maker: "Callable[..., object]", arguments: dict[str, Any]) -> "nn.Module":
    from torch import nn

    name = getattr(maker, "__name__", USUAL_NAME)
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        given = f"has {listed(list(arguments))}" if arguments else "is not there or empty"
        detail = f"{name} cannot be called as it is to be: {error}. Its arguments are those of {ARGUMENTS}, which {given}."
        raise CannotLoad(Reason.LOAD_FAILED, detail) from error
    module = maker(**arguments)
    if not isinstance(module, nn.Module):
        detail = f"{name} returned a {type(module).__name__}, and no torch.nn.Module."
        raise CannotLoad(Reason.NOT_A_MODEL, detail)
    return module


# ---- its weights


def _fill(module: "nn.Module", state: State) -> None:
    """Put the weights in; raises `CannotLoad` that names what is missing, unexpected, or of another shape."""
    try:
        module.load_state_dict(state.tensors, strict=True)
    except RuntimeError as error:
        raise CannotLoad(Reason.LOAD_FAILED, _differences(module, state) or str(error)) from error


def _differences(module: "nn.Module", state: State) -> str:
    wanted, given = module.state_dict(), state.tensors
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    shapes = [
        f"{name} is {list(given[name].shape)}, and {list(one.shape)} in the class"
        for name, one in wanted.items()
        if name in given and one.shape != given[name].shape
    ]
    parts = [f"missing: {listed(missing)}"] * bool(missing) + [f"unexpected: {listed(unexpected)}"] * bool(unexpected)
    parts += [f"of another shape: {listed(shapes)}"] * bool(shapes)
    return f"The weights in {state.file} are not those of {type(module).__name__}; {'; '.join(parts)}." if parts else ""


# ---- what it takes


def _network(module: "nn.Module", maker: "Callable[..., object]", state: State) -> Network:
    positional, arguments = _takes(module)

    def call(tensors: "Mapping[str, Tensor]") -> Any:  # noqa: ANN401 - whatever it answers
        placed = [tensors[name] for name in positional if name in tensors]
        return module(*placed, **{name: one for name, one in tensors.items() if name not in positional})

    details = {
        "class": f"{getattr(maker, '__module__', '')}:{getattr(maker, '__qualname__', USUAL_NAME)}",
        "weights": state.file,
        "parameters": str(sum(one.numel() for one in module.parameters())),
    }
    return Network(call, arguments, _floating(module), None, "state dict", details)


def _takes(module: "nn.Module") -> tuple[list[str], tuple[Argument, ...]]:
    """The arguments of `forward` that have no names for callers, and all that may be tensors."""
    positional: list[str] = []
    found: list[Argument] = []
    for one in inspect.signature(module.forward).parameters.values():
        if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}:
            continue
        given = one.default is not one.empty
        if _is_plain(one.default) or _is_plain_type(one.annotation):
            if given:
                continue
            detail = f"forward() takes {one.name}, which is no tensor. Give it a default, or take a tensor instead."
            raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, detail)
        found.append(Argument(one.name, optional=given))
        if one.kind is one.POSITIONAL_ONLY:
            positional.append(one.name)
    if found and all(one.optional for one in found):
        found[:1] = [found[0]._replace(optional=False)]
    if not found:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, "forward() takes no tensors by name.")
    return positional, tuple(found)


def _is_plain(default: object) -> bool:
    return isinstance(default, _PLAIN)


def _is_plain_type(annotation: object) -> bool:
    return annotation in _PLAIN or (isinstance(annotation, str) and annotation in _NAMED)


def _floating(module: "nn.Module") -> "dtype":
    """The datatype that most networks of this kind compute in: that of their first parameter with fractions."""
    import torch

    for one in (*module.parameters(), *module.buffers()):
        if one.is_floating_point():
            return one.dtype
    return torch.float32
