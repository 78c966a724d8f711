"""What goes into an uploader's own Python and what comes out: as its `signature` says, or as the sample's columns are.

    signature = {"inputs": [{"name": "age", "datatype": "FP64", "shape": [-1]}], "outputs": [...]}

A list alone is of inputs. Outputs that it does not tell are what the sample's answers turn out to be.
"""

from collections.abc import Sequence

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column
from modelkeep.contracts.signature import DATETIME, WIDE, Dtype, Signature, TensorSpec, dtype_of

_KEYS = frozenset({"name", "datatype", "shape", "nullable", "columns", "classes", "kind"})
_MATRIX_AXES = 2


def declared(said: object, sample: Sequence[Column], whose: str = "The class") -> Signature:
    """Return the signature from its own `signature` (None: it has none) or the sample; raises `CannotLoad`."""
    if said is None:
        if not sample:
            wanted = "no sample came with it that tells columns: a value a row, or lists of one length"
            raise CannotLoad(Reason.SAMPLE_NEEDED, f"{whose} has no `signature`, and {wanted}.")
        return Signature(tuple(_column(one, place) for place, one in enumerate(sample)))
    if isinstance(said, list | tuple):
        said = {"inputs": said}
    if not isinstance(said, dict) or not said.keys() <= {"inputs", "outputs"} or not said.get("inputs"):
        raise _wrong("it must be {'inputs': [...], 'outputs': [...]}, or a list of inputs")
    return Signature(_specs("inputs", said["inputs"]), _specs("outputs", said.get("outputs", [])))


def _column(column: Column, place: int) -> TensorSpec:
    """One column. Whole numbers are taken as floats, as the next row may have a fraction, but not where floats lose digits."""
    dtype = column.dtype
    missing = column.nullable and dtype is not Dtype.BYTES
    if missing or (dtype not in {Dtype.BYTES, Dtype.BOOL} and column.kind != WIDE):
        dtype = Dtype.FP64
    name, kind = column.name or f"column_{place}", DATETIME if column.kind == DATETIME else ""
    return TensorSpec(name, dtype, (-1, *column.shape), nullable=column.nullable, kind=kind)


def _specs(kind: str, said: object) -> tuple[TensorSpec, ...]:
    if not isinstance(said, list | tuple):
        raise _wrong(f"{kind} must be a list")
    found = tuple(_spec(f"{kind}[{place}]", one) for place, one in enumerate(said))
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        raise _wrong(f"two of its {kind} have one name")
    return found


def _spec(where: str, said: object) -> TensorSpec:
    if not isinstance(said, dict) or not said.keys() <= _KEYS or not {"name", "datatype"} <= said.keys():
        raise _wrong(f"{where} must be a dict with name and datatype, and at most {', '.join(sorted(_KEYS))}")
    name, nullable = said["name"], said.get("nullable", False)
    if not isinstance(name, str) or not name or not isinstance(nullable, bool):
        raise _wrong(f"{where} needs a name that is a text, and nullable that is True or False")
    shape = _shape(where, said.get("shape", [-1]))
    columns, classes = _names(where, said, "columns"), _names(where, said, "classes")
    for names in (columns, classes):
        if names and (len(shape) != _MATRIX_AXES or shape[1] not in {-1, len(names)}):
            raise _wrong(f"{where} names {len(names)} places of a second axis, and has the shape {list(shape)}")
    dtype, kind = _datatype(where, said["datatype"]), said.get("kind", "")
    if kind and (kind != DATETIME or dtype is not Dtype.BYTES):
        raise _wrong(f"{where} has the kind {kind!r}; there is {DATETIME!r}, for texts ({Dtype.BYTES}) that are dates")
    return TensorSpec(name, dtype, shape, nullable, columns, classes, DATETIME if kind else "")


def _datatype(where: str, said: object) -> Dtype:
    try:
        return Dtype(str(said)) if str(said) in set(Dtype) else dtype_of(str(said))
    except KeyError as error:
        raise _wrong(f"{where} has the datatype {said!r}; there are {', '.join(Dtype)}") from error


def _shape(where: str, said: object) -> tuple[int, ...]:
    whole = isinstance(said, list | tuple) and said and all(type(axis) is int and axis != 0 and axis >= -1 for axis in said)
    if not isinstance(said, list | tuple) or not whole or said[0] != -1:
        raise _wrong(f"{where} has the shape {said!r}; it is a list of lengths, the first of them -1, for the rows")
    return tuple(said)


def _names(where: str, said: dict[str, object], key: str) -> tuple[str, ...]:
    names = said.get(key, ())
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        raise _wrong(f"{where} has {key} that are no list of texts")
    return tuple(names)


def _wrong(why: str) -> CannotLoad:
    return CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The signature is not understood: {why}.")
