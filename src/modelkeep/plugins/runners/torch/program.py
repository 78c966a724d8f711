"""Loads programs of `torch.export`, which say what they take: names, datatypes, shapes, and which axes are open."""

import io
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.columns import listed
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.torch.network import Argument, Network, Rows

if TYPE_CHECKING:
    from torch import Tensor

_ONLY = "model"
_LENGTH = 8


def load(data: bytes, names: Container[str]) -> Network:
    """Return the program, ready to answer; raises `CannotLoad`, or whatever torch raises."""
    del names
    import torch
    from torch.export.pt2_archive._package import load_pt2
    from torch.utils import _pytree as pytree

    programs = load_pt2(io.BytesIO(data)).exported_programs
    if len(programs) != 1 and _ONLY not in programs:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"There are several programs: {listed(sorted(programs))}. Save one.")
    program = programs.get(_ONLY) or next(iter(programs.values()))
    module, into = program.module(), program.call_spec.in_spec
    places = _places(program)

    def call(tensors: "Mapping[str, Tensor]") -> Any:  # noqa: ANN401 - whatever it answers
        leaves = [tensors[one.name] if isinstance(one, Argument) else one for one in places]
        args, kwargs = pytree.tree_unflatten(leaves, into)
        return module(*args, **kwargs)

    arguments = tuple(one for one in places if isinstance(one, Argument))
    return Network(call, arguments, torch.float32, _rows(program, arguments), "exported program", {})


def _places(program: Any) -> list[Any]:  # noqa: ANN401 - torch carries no types that help here
    """What goes in, place by place: an `Argument`, or the value that was fixed when the program was exported."""
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    shown = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    places: list[Any] = []
    for one in program.graph_signature.input_specs:
        if one.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(one.arg, ConstantArgument):
            places.append(one.arg.value)
        elif isinstance(one.arg, TensorArgument):
            places.append(_argument(one.arg.name, shown[one.arg.name], program))
        else:
            detail = f"The program takes {one.arg.name}, which is no tensor. Export it with that value fixed."
            raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, detail)
    if not any(isinstance(one, Argument) for one in places):
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, "The program takes no tensors.")
    return places


def _argument(name: str, shown: Any, program: Any) -> Argument:  # noqa: ANN401 - torch's own stand-in for a tensor
    if not shown.dim():
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The input {name!r} has no batch axis.")
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in shown.shape)
    lengths = tuple(axis if isinstance(axis, int) else _length(axis, program) for axis in shown.shape)
    return Argument(name, False, shown.dtype, shape, lengths)


def _length(axis: Any, program: Any) -> int:  # noqa: ANN401 - a symbol
    least, most = _bounds(axis, program)
    return max(least, min(_LENGTH, most or _LENGTH))


def _bounds(axis: Any, program: Any) -> tuple[int, int]:  # noqa: ANN401 - as above
    """Least and most length of an open axis (0: any)."""
    bounds = program.range_constraints.get(axis.node.expr)
    if bounds is None:
        return 1, 0
    least, most = (int(one) if one.is_Integer else 0 for one in (bounds.lower, bounds.upper))  # one may be infinite
    return max(1, least), most


def _rows(program: Any, arguments: tuple[Argument, ...]) -> Rows:  # noqa: ANN401 - as above
    shown = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    batches = [shown[one.name].shape[0] for one in arguments]
    fixed = {one for one in batches if isinstance(one, int)}
    if len(fixed) > 1 or (fixed and len(fixed) != len(set(batches))):
        shapes = ", ".join(f"{one.name} {list(one.shape or ())}" for one in arguments)
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The first axis of every input must be the batch: {shapes}.")
    if fixed:
        only = fixed.pop()
        return Rows(only, only)
    bounds = [_bounds(one, program) for one in batches]
    limits = [most for _least, most in bounds if most]
    return Rows(max(least for least, _most in bounds), min(limits) if limits else 0)
