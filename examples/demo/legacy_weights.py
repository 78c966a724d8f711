"""Reads the weights in a PyTorch file of the format before 1.6 without PyTorch.

Such a file is a row of pickles: a magic number, a protocol version, the system that wrote it, the state dict (whose tensors
name storages that come later), the names of those storages; then for each storage its length and its raw numbers.
The unpickler here knows one container, one way to build a tensor and the storage types: anything else is refused.
"""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8", "IntStorage": "<i4", "HalfStorage": "<f2", "DoubleStorage": "<f8"}


class NotLegacyWeights(ValueError):
    """The file is not a state dict in PyTorch's format before 1.6."""


class _Tensor(NamedTuple):
    """A tensor whose numbers come later in the file."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def cut_from(self, numbers: np.ndarray) -> np.ndarray:
        last = self.offset + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        if min(self.offset, *self.shape, *self.stride, 0) < 0 or last >= numbers.size:
            raise NotLegacyWeights("A tensor reaches beyond its storage.")
        steps = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps).copy()


def _tensor(storage: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, shape, stride)


class _Unpickler(pickle.Unpickler):
    """Builds nothing but ordered dicts of `_Tensor`; notes the datatype and length of every storage on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[str, int]] = {}

    def persistent_load(self, pid: Any) -> str:  # noqa: ANN401 - the pickle decides what comes
        kind, storage, name, _device, count, _view = pid
        if kind != "storage":
            raise NotLegacyWeights("The file refers to something that is no storage.")
        self.storages[name] = (_STORAGES[storage], count)
        return str(name)

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as in the standard library
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return name
        raise NotLegacyWeights(f"The file asks for {module}.{name}, which no weights need.")


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the file by their names."""
    with path.open("rb") as file:
        if _Unpickler(file).load() != MAGIC:
            raise NotLegacyWeights("The file does not begin as PyTorch files before 1.6 do.")
        _protocol, _system = _Unpickler(file).load(), _Unpickler(file).load()
        state = _Unpickler(file)
        tree = state.load()
        numbers = {name: _read_storage(file, *state.storages[name]) for name in _Unpickler(file).load()}
    return {name: tensor.cut_from(numbers[tensor.storage]) for name, tensor in tree.items() if isinstance(tensor, _Tensor)}


def _read_storage(file: IO[bytes], dtype: str, count: int) -> np.ndarray:
    (announced,) = struct.unpack("<q", file.read(8))
    data = file.read(count * np.dtype(dtype).itemsize)
    if announced != count or len(data) != count * np.dtype(dtype).itemsize:
        raise NotLegacyWeights("A storage is not as long as the file says.")
    return np.frombuffer(data, dtype)
