"""The runner itself: locked down first, then loads one model, then answers runs until nobody is left to ask."""

import gc
import os
import socket
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelkeep.contracts.confinement import Confinement
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotCompile, CannotLoad, Compilable, Compiled, Model, Quantisable
from modelkeep.contracts.signature import Dtype
from modelkeep.sandbox import frames, kernel, loader, lockdown, selftest
from modelkeep.sandbox.control import ChannelClosed, Fork, Inbox
from modelkeep.sandbox.hooks import Rehearsal, Wrapping
from modelkeep.sandbox.imaging import BadImageError, Pictures
from modelkeep.sandbox.memory import Memory, peak_resident_bytes
from modelkeep.sandbox.place import Place, walled
from modelkeep.sandbox.servers import Arrays, Servers

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOL_FAULT = 65
"""Exit status: what arrived on a socket was no frame."""

TAKEN = b"+"
"""What a runner that was forked ahead says once it has its order."""

RUNNER, WAITING = "modelkeep-run", "modelkeep-spare"
"""What a runner's process is called, and one that was forked ahead until it has its order."""

CANNOT_LOAD = 3
"""Exit status: the artifact was refused; `LoadFailed` said why."""

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


def main(
    fork: Fork,
    artifact: int,
    channel: int,
    allowance: lockdown.Allowance,
    *,
    hooks: int = -1,
    place: Place | None = None,
    seen: tuple[str, ...] = (),
) -> int:
    """Be a runner until nobody needs it; returns the exit status. Call it right after the fork.

    `channel` brings the sockets of those whom it serves; at its end of file the runner ends. `hooks` is open on the version's
    hooks (-1: it has none). `place` is where its archive is unpacked, in addition to what is `seen`.
    """
    memory = Memory("self", allowance.proc)
    allowance = msgspec.structs.replace(allowance, keep=allowance.keep | {memory.fd})
    if place is not None:
        allowance, place = _with(place, allowance, seen)
    lockdown.lock_down(allowance)
    _start_afresh()
    held = selftest.confinement(allowance.keep, allowance.file_bytes)
    return _work(fork, (artifact, hooks), channel, held, memory=memory, place=place)


def stand_by(orders: socket.socket, allowance: lockdown.Allowance) -> int:
    """Be a runner that is locked down before anybody needs it, and hears from `orders` what to load; returns the exit status.

    What comes is a `Fork` with the artifact, the runner's channel, its pipe, and the hooks where there are; it answers `TAKEN`.
    The end of `orders` is the runner's.
    """
    kernel.name_process(WAITING)
    memory = Memory("self", allowance.proc)
    lockdown.lock_down(msgspec.structs.replace(allowance, keep=frozenset({memory.fd, orders.fileno()})))
    _start_afresh()
    with orders:
        try:
            fork, (artifact, channel, output, *hooks) = _ordered(orders)
            orders.sendall(TAKEN)
        except (ChannelClosed, ConnectionError):
            return 0
    lockdown.limit_memory(memory.mapped_bytes() + (fork.spec.limits.memory_mb << 20))
    lockdown.write_to(output)
    os.close(output)
    held = selftest.confinement(frozenset({memory.fd, artifact, channel, *hooks}))
    return _work(fork, (artifact, *(hooks or [-1])), channel, held, memory=memory)


def _ordered(orders: socket.socket) -> tuple[Fork, list[int]]:
    inbox = Inbox()
    while True:
        for message, fds in inbox.receive(orders):
            if isinstance(message, Fork):
                return message, fds


def _work(
    fork: Fork, files: tuple[int, ...], channel: int, held: Confinement, *, memory: Memory, place: Place | None = None
) -> int:
    """Load, and serve; `files` are artifact and hooks, `held` is how well this process was seen to be locked in."""
    kernel.name_process(RUNNER)
    servers = Servers(socket.socket(fileno=channel))
    try:
        loader.require(fork.spec, held)
        served, loaded = _load(fork, files, memory, place)
    except CannotLoad as error:
        servers.greet(frames.encode(frames.LoadFailed(error.reason, error.detail, error.example)))
        return CANNOT_LOAD
    servers.greet(frames.encode(loaded))
    return serve(servers, served)


def serve(servers: Servers, served: Served) -> int:
    """Answer runs, server by server, until there will be none any more; returns the exit status."""
    while (turn := servers.next()) is not None:
        if isinstance(turn.message, frames.Compile):
            servers.send(turn.server, served.compiled())
        elif isinstance(turn.message, frames.Quantise):
            servers.send(turn.server, served.quantised(turn.message, turn.inputs))
        else:
            servers.send(turn.server, _encoded(*served.answer(turn.message, turn.inputs)))
    return PROTOCOL_FAULT if servers.fault else 0


def _with(place: Place, allowance: lockdown.Allowance, seen: tuple[str, ...]) -> tuple[lockdown.Allowance, Place | None]:
    """Return what a runner with this folder may have, and the folder as it can be sealed; none where it cannot."""
    try:
        rules, sealable = walled(place, seen)
    except OSError:
        return allowance, None  # no Landlock here: what needs no folder may be loaded all the same
    sealable = msgspec.structs.replace(sealable, keep=allowance.keep)
    keep = allowance.keep | {sealable.sealing}
    return msgspec.structs.replace(allowance, rules=rules, keep=keep, file_bytes=place.size), sealable


def _load(fork: Fork, files: tuple[int, ...], memory: Memory, place: Place | None) -> tuple[Served, frames.Loaded]:
    before, started = memory.resident_bytes(), time.perf_counter()
    spec = fork.spec
    told: list[str] | None = [] if spec.signature is None else None  # once, at validation
    artifact, hooks = files
    source = None if spec.hooks is None else loader.taken(hooks, spec.hooks.size, spec.hooks.digest)
    try:
        if source is not None and spec.hooks is not None and spec.hooks.alone:
            os.close(artifact)
            served = _rehearsing(Wrapping(source), fork)
        else:
            sample = fork.sample if source is None else ()
            model = loader.load(spec, sample, artifact, place=place, told=told, close=True)
            pictures = Pictures(spec.image, model.facts.signature) if spec.image else None
            wrapping = None if source is None else _wrapped(source, fork, model, pictures)
            served = Served(model, pictures, wrapping)
    except MemoryError as error:
        raise CannotLoad(Reason.MEMORY_LIMIT, str(error)) from error
    facts = msgspec.structs.replace(served.facts, warnings=(*served.facts.warnings, *(told or ())))
    placed = place.held_bytes() if place is not None else 0
    return served, frames.Loaded(facts, time.perf_counter() - started, before, memory.resident_bytes(), placed)


def _wrapped(source: bytes, fork: Fork, model: Model, pictures: Pictures | None) -> Wrapping:
    wrapping = Wrapping(source)
    wrapping.around(pictures.facts(model.facts) if pictures else model.facts, fork.spec, fork.sample)
    return wrapping


def _rehearsing(wrapping: Wrapping, fork: Fork) -> Served:
    wrapping.alone(pictures=fork.spec.image is not None, sample=fork.sample)
    return Served(Rehearsal(wrapping), None)


def _start_afresh() -> None:
    """Shed what a forked process must not share with its siblings, or show to a pickle."""
    gc.enable()  # the template does without while it imports
    sys.modules["__main__"] = types.ModuleType("__main__")
    np.random.seed()  # noqa: NPY002 - the shared legacy state is what models use; Python's own seeds itself
    warnings.resetwarnings()
    warnings.simplefilter("ignore")


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


def _encoded(message: frames.Result | frames.RunFailed, outputs: Arrays) -> "list[bytes | memoryview]":
    try:
        return frames.encode(message, outputs)
    except frames.FrameError as error:
        return frames.encode(frames.RunFailed(message.id, "output_invalid", f"The answer is too large: {error}"))


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
