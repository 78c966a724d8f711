"""A loaded network and its arguments, however it was saved: what `script` and `program` make, and what `trials` tries out."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.contracts.signature import Dtype

if TYPE_CHECKING:
    from torch import Tensor, dtype

_WIDENED = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"})
_BY_NAME = {one.numpy: one for one in Dtype if one is not Dtype.BYTES}


class Argument(NamedTuple):
    """One tensor that a network takes.

    `dtype` and `shape`, its first axis the batch, are those that the file tells (None: it does not); -1 is any length, for
    which `lengths` has one that will do. `optional`: the network runs without it, too.
    """

    name: str
    optional: bool = False
    dtype: "dtype | None" = None
    shape: tuple[int, ...] | None = None
    lengths: tuple[int, ...] = ()


class Rows(NamedTuple):
    """How many rows a network takes at once: at least, and at most (0: any number)."""

    least: int = 1
    most: int = 0


class Network(NamedTuple):
    """Something that answers tensors by name.

    `rows` is None where the file does not tell how many it takes; `floating` is the datatype that it computes in.
    """

    call: "Callable[[Mapping[str, Tensor]], Any]"
    arguments: tuple[Argument, ...]
    floating: "dtype"
    rows: Rows | None
    kind: str
    details: dict[str, str]


def served_as(name: str, kind: "dtype") -> Dtype:
    """Return the datatype under which tensors of this one are served; raises `CannotLoad`."""
    text = str(kind).removeprefix("torch.")
    if text in _WIDENED:
        return Dtype.FP32
    if text not in _BY_NAME:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"{name!r} is of the datatype {text}, which cannot be served.")
    return _BY_NAME[text]
