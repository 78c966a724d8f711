"""What flows through a converted pipeline of a table: columns as they came, and matrices of FP64 that steps made of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from modelkeep.contracts.onnx_nodes import Nodes
from modelkeep.contracts.runner import CannotCompile
from modelkeep.contracts.signature import BOOLEAN, DATETIME, Dtype, Layout, Signature
from modelkeep.plugins.runners.sklearn.features import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["text", "date", "float", "whole", "wider", "boolean"]
"""What a column holds; "wider" are whole numbers without a sign, which go beyond INT64."""

_KINDS: dict[Dtype, Kind] = {Dtype.BYTES: "text", Dtype.INT64: "whole", Dtype.UINT64: "wider", Dtype.BOOL: "boolean"}


class Origin(msgspec.Struct, frozen=True):
    """Where a column of numbers comes from: what the model takes at `place`, of which it is `scale * x + shift`."""

    place: int
    scale: float = 1.0
    shift: float = 0.0


class Column(msgspec.Struct, frozen=True):
    """One column, a tensor of shape [n], as it came into the model.

    `label` names it for people. `none`: a missing text was None in training, not NaN. `replaced` says what an imputer made of
    some texts; None there is the missing one.
    """

    tensor: str
    label: str
    kind: Kind
    origin: Origin | None = None
    none: bool = False
    replaced: Mapping[str | None, object] = {}

    @property
    def width(self) -> int:
        """How many columns it is."""
        return 1


class Matrix(msgspec.Struct, frozen=True):
    """Columns of FP64 [n, width]. `origins`, one a column, where known. `finite`: it never holds NaN or infinity."""

    tensor: str
    origins: tuple[Origin | None, ...]
    finite: bool = False

    @property
    def width(self) -> int:
        """How many columns it has."""
        return len(self.origins)


Block = Sequence[Column | Matrix]


def block_of(signature: Signature, features: Mapping[int, Feature]) -> Block:
    """Return the inputs of a table, or of one matrix of FP64, as they come; `features` are what the model tells of them."""
    if signature.layout is Layout.MATRIX:
        (source,) = signature.inputs
        return [Matrix(source.name, tuple(map(Origin, range(source.shape[1]))))]
    for one in signature.inputs:
        if one.kind == BOOLEAN:
            raise CannotCompile(f"The column {one.name!r} has true, false and gaps, which are not compiled.")
    return [
        Column(
            one.name,
            one.name,
            "date" if one.kind == DATETIME else _KINDS.get(one.dtype, "float"),
            Origin(place),
            features.get(place, Feature()).none,
        )
        for place, one in enumerate(signature.inputs)
    ]


def chosen(nodes: Nodes, block: Block, places: Sequence[int]) -> Block:
    """Return the columns of a block at these places, in this order."""
    import numpy as np

    whole = [(piece, at) for piece in block for at in range(piece.width)]
    picked: list[tuple[Column | Matrix, list[int]]] = []
    for place in places:
        piece, at = whole[place]
        if picked and picked[-1][0] is piece and isinstance(piece, Matrix):
            picked[-1][1].append(at)
        else:
            picked.append((piece, [at]))
    found: list[Column | Matrix] = []
    for piece, several in picked:
        if isinstance(piece, Column) or several == list(range(piece.width)):
            found.append(piece)
        else:
            tensor = nodes.add("Gather", piece.tensor, nodes.constant(np.array(several)), axis=1)
            found.append(Matrix(tensor, tuple(piece.origins[one] for one in several), piece.finite))
    return found


def single(nodes: Nodes, block: Block) -> list[Column]:
    """Return the columns of a block one by one, each of shape [n]."""
    import numpy as np

    found: list[Column] = []
    for piece in block:
        if isinstance(piece, Column):
            found.append(piece)
            continue
        for at, origin in enumerate(piece.origins):
            tensor = nodes.add("Gather", piece.tensor, nodes.constant(np.array(at)), axis=1)
            found.append(Column(tensor, "" if origin is None else str(origin.place), "float", origin))
    return found


def matrix(nodes: Nodes, block: Block, reader: object) -> Matrix:
    """Return all columns side by side as FP64, for `reader` to compute with; raises `CannotCompile` where one is no number."""
    pieces: list[Matrix] = []
    waiting: list[Column] = []
    for piece in block:
        if isinstance(piece, Column):
            waiting.append(piece)
            continue
        pieces += _stacked(nodes, waiting, reader)
        pieces.append(piece)
        waiting = []
    pieces += _stacked(nodes, waiting, reader)
    if not pieces:
        raise CannotCompile(f"Nothing of the table reaches {type(reader).__name__}.")
    if len(pieces) == 1:
        return pieces[0]
    tensor = nodes.add("Concat", *(one.tensor for one in pieces), axis=1)
    return Matrix(tensor, tuple(origin for one in pieces for origin in one.origins), all(one.finite for one in pieces))


def _stacked(nodes: Nodes, columns: Sequence[Column], reader: object) -> "Iterable[Matrix]":
    """Columns as one matrix, by few nodes however many they are; nothing of none."""
    import numpy as np

    if not columns:
        return
    for one in columns:
        if one.kind in {"text", "date"}:
            what = "texts" if one.kind == "text" else "dates"
            raise CannotCompile(
                f"The {what} of the column {one.label!r} reach {type(reader).__name__}, which is not compiled for {what}."
            )
    tensors = [one.tensor if one.kind == "float" else nodes.cast(one.tensor, "DOUBLE") for one in columns]
    if len(tensors) == 1:
        stacked = nodes.add("Reshape", tensors[0], nodes.constant(np.array([-1, 1])))
    else:
        joined = nodes.add("Concat", *tensors, axis=0)
        rows = nodes.add("Reshape", joined, nodes.constant(np.array([len(tensors), -1])))
        stacked = nodes.add("Transpose", rows, perm=[1, 0])
    yield Matrix(stacked, tuple(one.origin for one in columns), all(one.kind != "float" for one in columns))
