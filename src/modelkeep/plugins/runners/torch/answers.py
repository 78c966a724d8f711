"""Turns what a network returns into named arrays."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ONLY = "output"


class NotTensorsError(TypeError):
    """A network answers something that is no tensor, and no tuple, list, named tuple or dictionary of tensors."""


def named(answer: Any) -> "dict[str, Tensor]":  # noqa: ANN401 - any object
    """Return the tensors of an answer by name; raises `NotTensorsError`.

    A lone tensor is `output`, those of a tuple or list `output_0`, `output_1`, ...; named tuples and dictionaries have names. A
    part that has parts itself puts its name before theirs; a part that is None is left out.
    """
    import torch

    if isinstance(answer, torch.Tensor):
        return {ONLY: answer}
    found = dict(_parts("", answer))
    if not found:
        raise NotTensorsError("The model answers no tensor.")
    return found


def _parts(name: str, thing: Any) -> "Iterator[tuple[str, Tensor]]":  # noqa: ANN401 - any object
    import torch

    if isinstance(thing, torch.Tensor):
        yield name, thing
    elif isinstance(thing, Mapping):
        for key, part in thing.items():
            yield from _parts(f"{name}_{key}" if name else str(key), part)
    elif isinstance(thing, tuple) and hasattr(thing, "_fields"):
        for key, part in zip(thing._fields, thing, strict=True):
            yield from _parts(f"{name}_{key}" if name else str(key), part)
    elif isinstance(thing, list | tuple):
        for at, part in enumerate(thing):
            yield from _parts(f"{name or ONLY}_{at}", part)
    elif thing is not None:
        where = f" in {name}" if name else ""
        raise NotTensorsError(f"The model answers a {type(thing).__name__}{where}. Only tensors can be served.")


def as_array(tensor: "Tensor") -> "NDArray[np.generic]":
    """Return the tensor as numpy has it: dense, contiguous, and as 32-bit floats where numpy has not its datatype."""
    import torch

    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if is_widened(tensor.dtype):
        tensor = tensor.float()
    array: NDArray[np.generic] = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().numpy()
    return array


def is_widened(dtype: Any) -> bool:  # noqa: ANN401 - torch is imported when it is there
    """Whether numpy has no such datatype, and 32-bit floats hold all its values."""
    return bool(dtype.is_floating_point) and str(dtype).removeprefix("torch.") not in {"float16", "float32", "float64"}
