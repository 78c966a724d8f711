"""What a network takes, found out by trying rows of zeros where its file does not say.

A traced module was saved with the shapes of its example, a scripted one with none: there the columns of the uploader's sample
are what is tried first. An axis is open where other lengths are answered as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, NamedTuple

from modelkeep.contracts.columns import ColumnsDiffer, listed, places
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column
from modelkeep.contracts.signature import FLOATS, Dtype, TensorSpec
from modelkeep.plugins.runners.torch.answers import NotTensorsError, is_widened, named
from modelkeep.plugins.runners.torch.network import Argument, Network, Rows, served_as

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST_CHOICES = 64
_SOME_ROWS = 3
_LENGTHS = (8, 32, 224)


class Want(NamedTuple):
    """A tensor as it is tried: its datatype and the shape of one row. `may_open`: another length may be answered, too."""

    dtype: "torch.dtype"
    shape: tuple[int, ...]
    may_open: bool = True


class Found(NamedTuple):
    """What a network takes and gives: inputs and outputs, the datatypes that it wants, rows at once, words for people."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    wanted: "dict[str, torch.dtype]"
    rows: Rows
    warnings: tuple[str, ...]


def find_out(network: Network, sample: Sequence[Column], known: tuple[TensorSpec, ...]) -> Found:
    """Return what the network takes: what the file says, else what `known` or the sample say; raises `CannotLoad`."""
    choices = _choices(network, sample, known)
    batch = network.arguments[0].lengths[0] if network.arguments[0].lengths and network.rows is None else 0
    wants, rows, count, answer = _settled(network, choices, batch)
    told = {one.name: one.shape for one in network.arguments if one.shape and network.rows is not None}
    shapes = {name: told[name][1:] if name in told else want.shape for name, want in wants.items()}
    if network.rows is None and not known and answer:
        shapes = _opened(network, wants, count)
    if known:
        shapes = {one.name: one.shape[1:] for one in known}
    inputs = tuple(TensorSpec(name, served_as(name, want.dtype), (-1, *shapes[name])) for name, want in wants.items())
    outputs = tuple(TensorSpec(name, served_as(name, one.dtype), (-1, *one.shape[1:])) for name, one in answer.items())
    wider = [name for name, one in answer.items() if is_widened(one.dtype)]
    warnings = [f"{listed(wider)}: the datatype is not one that can be served; answers are widened to FP32."] if wider else []
    if rows.most and rows.least == rows.most:
        warnings.append(f"The model takes exactly {rows.most} rows: larger batches run in pieces.")
    return Found(inputs, outputs, {name: want.dtype for name, want in wants.items()}, rows, tuple(warnings))


# ---- what to try


def _choices(network: Network, sample: Sequence[Column], known: tuple[TensorSpec, ...]) -> dict[str, list[Want]]:
    """For each argument that is given, what it may be, the likeliest first."""
    told = {one.name: one for one in network.arguments}
    if known:
        return {one.name: _of_known(one, told.get(one.name), network) for one in known}
    if any(one.dtype for one in network.arguments):
        return {one.name: [Want(one.dtype, one.lengths[1:])] for one in network.arguments if one.dtype}
    if not sample:
        names = listed([one.name for one in network.arguments])
        detail = f"forward() takes {names}, and the file does not say of which shape. Send rows with it, or trace the module."
        raise CannotLoad(Reason.SAMPLE_NEEDED, detail)
    texts = [one.name or "one without a name" for one in sample if one.dtype is Dtype.BYTES]
    if texts:
        raise CannotLoad(Reason.SAMPLE_MISMATCH, f"The sample has texts in {listed(texts)}; the model takes numbers.")
    return _of_sample(network, sample)


def _of_known(spec: TensorSpec, argument: Argument | None, network: Network) -> list[Want]:
    """An input as it was found at validation, with lengths for its open axes."""
    import torch

    if argument is not None and argument.dtype is not None:
        return [Want(argument.dtype, argument.lengths[1:])]
    kind: torch.dtype = getattr(torch, spec.dtype.numpy)
    kinds = [kind] if not is_widened(network.floating) or spec.dtype is not Dtype.FP32 else [network.floating, kind]
    shapes = [tuple(length if axis == -1 else axis for axis in spec.shape[1:]) for length in _LENGTHS]
    return [Want(kind, shape) for kind in kinds for shape in dict.fromkeys(shapes)]


def _of_sample(network: Network, sample: Sequence[Column]) -> dict[str, list[Want]]:
    names = [one.name for one in sample]
    needed = [one.name for one in network.arguments if not one.optional]
    if set(needed) <= set(names) <= {one.name for one in network.arguments}:
        return {one.name: _of_column(one, network, [one.shape, (1,)] if not one.shape else [one.shape]) for one in sample}
    if len(needed) == 1 and not any(one.shape for one in sample):
        shapes = [(len(sample),)] if len(sample) > 1 else [(1,), ()]
        column = Column("", _widest(sample), any(one.nullable for one in sample))
        return {needed[0]: _of_column(column, network, shapes, may_open=not any(names))}
    try:
        order = places(names, needed, by_name=len(needed) > 1)
    except ColumnsDiffer as error:
        raise CannotLoad(Reason.SAMPLE_MISMATCH, f"forward() takes {listed(needed)}. {error}") from error
    given = {name: sample[at] for name, at in zip(needed, order, strict=True)}
    return {name: _of_column(one, network, [one.shape]) for name, one in given.items()}


def _of_column(column: Column, network: Network, shapes: Sequence[tuple[int, ...]], *, may_open: bool = True) -> list[Want]:
    """The datatypes and shapes that a column may be meant as. Whole numbers stay whole where the network takes them."""
    import torch

    kinds = [network.floating, torch.float32, torch.float64]
    if column.dtype not in FLOATS and not column.nullable:
        kinds = [getattr(torch, column.dtype.numpy), network.floating]
    return [Want(kind, shape, may_open) for shape in shapes for kind in dict.fromkeys(kinds)]


def _widest(sample: Sequence[Column]) -> Dtype:
    kinds = {one.dtype for one in sample}
    return kinds.pop() if len(kinds) == 1 else Dtype.FP64


# ---- trying


def _settled(
    network: Network, choices: dict[str, list[Want]], batch: int
) -> "tuple[dict[str, Want], Rows, int, dict[str, Tensor]]":
    """The first choice that is answered row by row, the rows that it takes and took, and the answer; the likeliest if none is.

    `batch` is the number of rows that a module was traced with (0: unknown): another number shows whether any will do.
    """
    first = {name: wants[0] for name, wants in choices.items()}
    for rows, count in _counts(network, batch):
        for wants in islice(product(*choices.values()), _MOST_CHOICES):
            chosen = dict(zip(choices, wants, strict=True))
            answer = _answer(network, chosen, count)
            if answer:
                return chosen, rows, count, answer
    return first, network.rows or Rows(), 1, {}


def _counts(network: Network, batch: int) -> list[tuple[Rows, int]]:
    """How many rows it may take, the likeliest first, and how many to try that with."""
    if network.rows:
        most = network.rows.most or _SOME_ROWS
        return [(network.rows, max(network.rows.least, min(most, _SOME_ROWS)))]
    fixed = [one for one in dict.fromkeys((batch, 1)) if one]
    return [(Rows(), _SOME_ROWS if batch != _SOME_ROWS else _SOME_ROWS + 1), *((Rows(one, one), one) for one in fixed)]


def _answer(network: Network, wants: Mapping[str, Want], count: int) -> "dict[str, Tensor]":
    """What the network answers to rows of zeros; nothing where it refuses them, or does not answer row by row."""
    import torch

    try:
        with torch.inference_mode():
            zeros = {name: torch.zeros((count, *want.shape), dtype=want.dtype) for name, want in wants.items()}
            answer = named(network.call(zeros))
    except NotTensorsError as error:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, str(error)) from error
    except Exception:  # noqa: BLE001 - a network may raise anything; what it says of real rows is what people are told
        return {}
    rows = {name: one for name, one in answer.items() if one.dim()}  # what is one number for all is left out of the answers
    return rows if all(len(one) == count for one in rows.values()) else {}


def _opened(network: Network, wants: dict[str, Want], count: int) -> dict[str, tuple[int, ...]]:
    """The shapes, with -1 where other lengths are answered as well, by themselves or together with axes of the same length."""
    axes = [(name, at) for name, want in wants.items() if want.may_open for at, length in enumerate(want.shape) if length > 0]
    free = {one for one in axes if _takes_other_lengths(network, wants, count, {one})}
    for group in _alike(wants, [one for one in axes if one not in free]):
        if _takes_other_lengths(network, wants, count, group):
            free |= group
    return {
        name: tuple(-1 if (name, at) in free else length for at, length in enumerate(want.shape))
        for name, want in wants.items()
    }


def _alike(wants: Mapping[str, Want], axes: Sequence[tuple[str, int]]) -> Iterator[set[tuple[str, int]]]:
    """Axes of one length that two or more inputs have."""
    for length in dict.fromkeys(wants[name].shape[at] for name, at in axes):
        group = {(name, at) for name, at in axes if wants[name].shape[at] == length}
        if len({name for name, _at in group}) > 1:
            yield group


def _takes_other_lengths(network: Network, wants: Mapping[str, Want], count: int, axes: set[tuple[str, int]]) -> bool:
    for times in (1, 2):
        other = {
            name: want._replace(
                shape=tuple(length * times + 1 if (name, at) in axes else length for at, length in enumerate(want.shape))
            )
            for name, want in wants.items()
        }
        if not _answer(network, other, count):
            return False
    return True
