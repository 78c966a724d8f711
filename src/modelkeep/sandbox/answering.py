"""What a loaded model answers: its runs with pictures and hooks around it, its outputs as they may be sent, its other forms.

It works in arrays. A runner that was started cold imports it once the packages of its artifact can be found.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from modelkeep.contracts.runner import CannotCompile, Compilable, Compiled, Model, Quantisable
from modelkeep.contracts.signature import Dtype
from modelkeep.sandbox import frames, loader
from modelkeep.sandbox.control import Fork
from modelkeep.sandbox.hooks import Rehearsal, Wrapping
from modelkeep.sandbox.imaging import BadImageError, Pictures
from modelkeep.sandbox.memory import peak_resident_bytes
from modelkeep.sandbox.servers import Arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CALIBRATED_AT_ONCE = 4
"""Rows of one run while ranges are collected: what lies between the layers of a few pictures takes some hundred megabytes."""

_PLAIN = (str, bytes, bool, int, float, type(None))


class OutputInvalidError(Exception):
    """What the model answered cannot be sent on."""


class Served:
    """A loaded model as its socket sees it: inputs checked by the sender, pictures decoded here, outputs checked here."""

    def __init__(self, model: Model, pictures: Pictures | None, wrapping: Wrapping | None = None) -> None:
        self._model = model
        self._pictures = pictures
        self._wrapping = wrapping
        self.facts = wrapping.facts if wrapping else pictures.facts(model.facts) if pictures else model.facts

    def answer(self, message: frames.Run, inputs: Arrays) -> tuple[frames.Result | frames.RunFailed, Arrays]:
        """Run one micro-batch. Whatever the model raises becomes a `RunFailed`."""
        started = time.perf_counter()
        try:
            rows = len(next(iter(inputs.values())))
            asked: Mapping[str, NDArray[np.generic]] = self._wrapping.before(inputs) if self._wrapping else inputs
            tensors = self._pictures.tensors(asked) if self._pictures else asked
            decoded = time.perf_counter()
            outputs = self._model.run(tensors)
            if self._pictures:
                outputs = self._pictures.activated(outputs)
            if self._wrapping:
                outputs = self._wrapping.after(outputs)
            outputs, left = _sendable(outputs, rows)
        except BadImageError as error:
            return frames.RunFailed(message.id, "bad_image", error.detail, error.row), {}
        except OutputInvalidError as error:
            return frames.RunFailed(message.id, "output_invalid", str(error)), {}
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            code = "memory" if loader.is_out_of_memory(error) else _refusal(error)
            return frames.RunFailed(message.id, code, loader.for_people(loader.describe(error))), {}
        ended = time.perf_counter()
        return frames.Result(message.id, ended - decoded, decoded - started, peak_resident_bytes(), left=left), outputs

    def compiled(self) -> "list[bytes | memoryview]":
        """Return the frame with a faster form of the model, or with why there is none, whatever the model raises."""
        if self._pictures or self._wrapping or not isinstance(self._model, Compilable):
            return frames.encode(frames.NotCompiled("Models of this kind are not compiled."))
        return _converted(self._model.compiled)

    def quantised(self, message: frames.Quantise, inputs: Arrays) -> "list[bytes | memoryview]":
        """Return the frame with the model in 8-bit integers, or with why there is none, whatever the model raises."""
        model = self._model
        if not isinstance(model, Quantisable):
            return frames.encode(frames.NotCompiled("Models of this kind have no form in 8-bit integers."))
        chunks = self._chunks(inputs)
        return _converted(lambda: model.quantised(chunks, narrow=message.narrow, spare_ends=message.spare_ends))

    def _chunks(self, inputs: Arrays) -> Iterator[Arrays]:
        """The rows a few at a time, pictures as the tensors that they become."""
        for start in range(0, len(next(iter(inputs.values()))), _CALIBRATED_AT_ONCE):
            chunk = {name: array[start : start + _CALIBRATED_AT_ONCE] for name, array in inputs.items()}
            yield self._pictures.tensors(chunk) if self._pictures else chunk


def served(model: Model, hooks: bytes | None, fork: Fork) -> Served:
    """Return the model with the pictures and hooks that this version has around it; raises `CannotLoad`."""
    pictures = Pictures(fork.spec.image, model.facts.signature) if fork.spec.image else None
    if hooks is None:
        return Served(model, pictures)
    wrapping = Wrapping(hooks)
    wrapping.around(pictures.facts(model.facts) if pictures else model.facts, fork.spec, fork.sample)
    return Served(model, pictures, wrapping)


def rehearsed(hooks: bytes, fork: Fork) -> Served:
    """Return the hooks of a version without its model; raises `CannotLoad`."""
    wrapping = Wrapping(hooks)
    wrapping.alone(pictures=fork.spec.image is not None, sample=fork.sample)
    return Served(Rehearsal(wrapping), None)


def _converted(convert: Callable[[], Compiled]) -> "list[bytes | memoryview]":
    try:
        found = convert()
        data = np.frombuffer(found.data, np.uint8)
        return frames.encode(frames.Compiled(found.format, found.runner, found.edges), {frames.ARTIFACT: data})
    except CannotCompile as error:
        return frames.encode(frames.NotCompiled(loader.for_people(str(error))))
    except BadImageError as error:
        return frames.encode(frames.NotCompiled(f"A calibration picture cannot be used: {error.detail}"))
    except Exception as error:  # noqa: BLE001 - a converter may raise anything
        return frames.encode(frames.NotCompiled(loader.for_people(loader.describe(error))))


def _refusal(error: Exception) -> str:
    """Whether it was these values that the model would not have, or the model that is at fault."""
    refused = isinstance(error, ValueError) or "INVALID_ARGUMENT" in str(error)[:100]  # the latter is ONNX Runtime's
    return "refused" if refused else "model_failed"


def _sendable(outputs: Arrays, rows: int) -> tuple[Arrays, tuple[str, ...]]:
    """The outputs as they may be sent, and the names of those that are one number for all rows (a loss) beside others."""
    if not outputs:
        raise OutputInvalidError("The model answered nothing.")
    arrays = {name: np.asarray(array) for name, array in outputs.items()}
    left = tuple(name for name, array in arrays.items() if not array.ndim)
    if len(left) == len(arrays):
        left = ()
    return {name: _checked(name, array, rows) for name, array in arrays.items() if name not in left}, left


def _checked(name: str, array: "NDArray[np.generic]", rows: int) -> "NDArray[np.generic]":
    if not 0 < array.ndim <= frames.MAX_AXES or len(array) != rows:
        raise OutputInvalidError(f"Output {name!r} has shape {list(array.shape)} for {rows} rows: the rows come first.")
    try:
        dtype = frames.datatype(array)
    except KeyError:
        raise OutputInvalidError(f"Output {name!r} has the datatype {array.dtype.name}, which cannot be served.") from None
    if dtype is not Dtype.BYTES:
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    for value in array.reshape(-1).tolist():
        if not isinstance(value, _PLAIN):
            raise OutputInvalidError(f"Output {name!r} holds values of the type {type(value).__name__}, not numbers or texts.")
    return array
