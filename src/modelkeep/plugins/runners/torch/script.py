"""Loads TorchScript. A traced module says of which shapes its example was; a scripted one says no more than names."""

import io
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.torch.network import Argument, Network

if TYPE_CHECKING:
    from torch import Tensor, dtype


def load(data: bytes, names: Container[str], keys: Sequence[str] = ()) -> Network:
    """Return the module, ready to answer; `names` are in the archive. Raises `CannotLoad`, or whatever torch raises.

    `keys`: what the sample, or the signature, calls what goes in: those of a module that takes a dictionary of tensors.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is to be followed by torch.export, which is no fault of this file
        module = torch.jit.load(io.BytesIO(data), map_location="cpu", _restore_shapes="traced_inputs.pkl" in names)
    if not hasattr(module, "forward"):
        raise CannotLoad(Reason.NOT_A_MODEL, "The module has no forward().")
    module.eval()
    keyed = _keyed(module)
    arguments = _of_keys(keyed, keys) if keyed else _arguments(module)
    names = [one.name for one in arguments]

    def call(tensors: "Mapping[str, Tensor]") -> Any:  # noqa: ANN401 - whatever it answers
        given = {name: tensors[name] for name in names if name in tensors}
        return module(given) if keyed else module(**given)

    details = {"module": str(module.original_name), "form": "traced" if arguments[0].shape else "scripted"}
    return Network(call, arguments, _floating(module), None, "TorchScript", details)


def _keyed(module: Any) -> str:  # noqa: ANN401 - torch carries no types that help here
    """The name of the one argument, where that is a dictionary of tensors by name; "" for any other module."""
    needed = [one for one in module.forward.schema.arguments[1:] if not one.has_default_value()]
    if len(needed) != 1 or needed[0].type.kind() != "DictType":
        return ""
    kinds = needed[0].type.getKeyType().kind(), needed[0].type.getValueType().kind()
    return str(needed[0].name) if kinds == ("StringType", "TensorType") else ""


def _of_keys(keyed: str, keys: Sequence[str]) -> tuple[Argument, ...]:
    if not keys or "" in keys:
        detail = (
            f"forward() takes {keyed}, a dictionary of tensors, and the file does not say of which. Send rows with its keys."
        )
        raise CannotLoad(Reason.SAMPLE_NEEDED, detail)
    return tuple(map(Argument, keys))


def _arguments(module: Any) -> tuple[Argument, ...]:  # noqa: ANN401 - torch carries no types that help here
    found = []
    shapes = dict(zip((one.name for one in module.forward.schema.arguments), module.graph.inputs(), strict=False))
    for one in module.forward.schema.arguments[1:]:
        optional = bool(one.has_default_value())
        kind = one.type.getElementType() if one.type.kind() == "OptionalType" else one.type
        if kind.kind() == "TensorType":
            found.append(_argument(one.name, shapes.get(one.name), optional=optional))
        elif not optional:
            detail = f"forward() takes {one.name}: {one.type}, which is no tensor. Give it a default, or take a tensor instead."
            raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, detail)
    if all(one.optional for one in found):
        found[:1] = [one._replace(optional=False) for one in found[:1]]
    if not found:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, "forward() takes no tensors.")
    return tuple(found)


def _argument(name: str, value: Any, *, optional: bool) -> Argument:  # noqa: ANN401 - as above
    """What the graph says of one argument: all, for traced modules, or nothing but its name."""
    kind: Any = value.type() if value is not None else None
    sizes = kind.sizes() if kind is not None and kind.kind() == "TensorType" else None
    if sizes is None or kind.dtype() is None:
        return Argument(name, optional)
    if not sizes:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The input {name!r} has no batch axis.")
    return Argument(name, False, kind.dtype(), tuple(sizes), tuple(sizes))


def _floating(module: Any) -> "dtype":  # noqa: ANN401 - as above
    """The datatype that most networks of this kind compute in: that of their first parameter with fractions."""
    import torch

    for one in (*module.parameters(), *module.buffers()):
        if one.is_floating_point():
            kind: torch.dtype = one.dtype
            return kind
    return torch.float32
