"""Frames between serving and a runner: one message and its tensors, length-prefixed, typed and capped.

    u32 length of the rest | u32 length of the head | head: msgpack of a `Message` | the tensors' bytes, back to back

Numbers are little-endian. A tensor of numbers is its C-ordered bytes; BYTES are, for each element, a u32 length and that
many bytes (texts as UTF-8), with length 0xFFFFFFFF for a missing value and 0xFFFFFFFE before a byte string's own length.
Nothing here is ever pickled. Both sides treat what arrives as untrusted: any fault is a `FrameError`.

Towards a runner, tensors of more than 64 kB may lie in a sealed memory file whose descriptor comes with the frame, each at
the next multiple of 64 bytes.

numpy is imported with the first tensor and not with this module: a runner that was started cold speaks before it has any, and
the one that it gets may have come in its artifact.
"""

import fcntl
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from mmap import mmap
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import ModelFacts
from modelkeep.contracts.signature import Dtype, dtype_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Buffer = bytes | bytearray | memoryview | mmap

MAX_FRAME = 256 * 1024 * 1024
MAX_AXES = 16
ARTIFACT = "artifact"
"""The tensor of UINT8 that carries the bytes of a compiled model."""

SHARED_FROM = 64 * 1024
"""Tensors larger than this many bytes travel in shared memory where that is possible: a copy less each way."""

MAX_TEXTS = 1 << 20  # each is Python work on the reader's event loop: about a second for so many
_LENGTH = struct.Struct("<I")
_PREFIX = struct.Struct("<II")
_MISSING = 0xFFFFFFFF
_RAW = 0xFFFFFFFE
_ALIGNMENT = 64
_NO_MEMORY = memoryview(b"")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class FrameError(Exception):
    """What arrived is not a frame; the channel cannot be trusted any further."""


class TensorHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Name, datatype, shape and length in bytes of one tensor, that follows the head or lies in shared memory."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    nbytes: int
    shared: bool = False


class Loaded(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Runner: the model is ready. Seconds it took, and resident memory in bytes before and after.

    `placed` is how many bytes of unpacked files lie in memory beside that, which belong to no process.
    """

    facts: ModelFacts
    seconds: float
    rss_before: int
    rss_after: int
    placed: int = 0


class LoadFailed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Runner: the model will not be ready; the process ends. `example` is what the artifact has for a sample."""

    reason: Reason
    detail: str
    example: bytes = b""


class Run(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Serving: run these inputs. `id` comes back with the answer; `shared` is the size of the memory that comes along."""

    id: int
    tensors: tuple[TensorHead, ...] = ()
    shared: int = 0


class Result(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Runner: the answer. `preprocess_s` and `run_s` are seconds; `peak_rss` is bytes so far.

    `left` names outputs that are not in it: those that are one value for all rows.
    """

    id: int
    run_s: float
    preprocess_s: float = 0.0
    peak_rss: int = 0
    tensors: tuple[TensorHead, ...] = ()
    left: tuple[str, ...] = ()


class RunFailed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Runner: the run raised.

    `code`: "refused" (the model will not have these inputs), "model_failed", "memory", "bad_image" or "output_invalid".
    `row` where one row is at fault.
    """

    id: int
    code: str
    detail: str
    row: int | None = None


class Compile(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Worker: return a faster form of the model, if it has one."""


class Quantise(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Worker: return the model in 8-bit integers, by these calibration rows. As in `contracts.runner.Quantisable`."""

    narrow: bool
    spare_ends: bool
    tensors: tuple[TensorHead, ...] = ()


class Compiled(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Runner: the faster form. Its bytes are the tensor `ARTIFACT`; the rest is as in `contracts.runner.Compiled`."""

    format: str
    runner: str
    edges: tuple[tuple[float, ...], ...] = ()
    tensors: tuple[TensorHead, ...] = ()


class NotCompiled(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Runner: the model has no faster form."""

    reason: str


Message = Loaded | LoadFailed | Run | Result | RunFailed | Compile | Quantise | Compiled | NotCompiled
Asked = Run | Compile | Quantise
"""What a runner is asked for."""

Tensors = Mapping[str, "NDArray[np.generic]"]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def encode(message: Message, tensors: "Tensors | None" = None) -> list[bytes | memoryview]:
    """Return the frame's pieces for `sendmsg`. Raises `FrameError` when it would pass the cap.

    Tensors are contiguous numpy arrays by name; BYTES are arrays of objects.
    """
    if not tensors:
        return _framed(message, ())
    heads, bodies = _laid_out(tensors)
    return _framed(msgspec.structs.replace(message, tensors=tuple(heads)), bodies)


def encode_run(number: int, tensors: "Tensors") -> tuple[list[bytes | memoryview], int | None]:
    """Return the pieces of a `Run`, and the descriptor of a sealed memory file that goes with them and is then closed.

    Raises `FrameError` when frame or memory would pass the cap, or `OSError` when there is no memory.
    """
    heads, bodies = _laid_out(tensors)
    if max(map(len, bodies), default=0) <= SHARED_FROM:
        return _framed(Run(number, tuple(heads)), bodies), None
    inline, shared, size = [], [], 0
    for at, body in enumerate(bodies):
        if len(body) > SHARED_FROM:
            heads[at] = msgspec.structs.replace(heads[at], shared=True)
            shared.append((size, body))
            size = _aligned(size + len(body))
        else:
            inline.append(body)
    if size > MAX_FRAME:
        raise FrameError(f"tensors of {size} bytes are over the cap of {MAX_FRAME}")
    pieces = _framed(Run(number, tuple(heads), size), inline)
    return pieces, _sealed(size, shared)


def decode(
    frame: "bytes | bytearray | memoryview", map_shared: "Callable[[int], Buffer] | None" = None
) -> "tuple[Message, dict[str, NDArray[np.generic]]]":
    """Read one frame without its outer length. Number tensors are copies, so the caller may reuse the buffer.

    `map_shared(size)` returns the shared memory that came with the frame; without it, a frame that needs some is refused.
    """
    view = memoryview(frame)
    end = len(view)
    if end < _LENGTH.size:
        raise FrameError("frame without a head")
    (size,) = _LENGTH.unpack_from(view)
    start = _LENGTH.size + size
    if start > end:
        raise FrameError("head is longer than its frame")
    try:
        message = _decode(view[_LENGTH.size : start])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error
    heads: tuple[TensorHead, ...] = getattr(message, "tensors", ())
    shared = _mapped(message, map_shared) if isinstance(message, Run) and message.shared else _NO_MEMORY
    tensors: dict[str, NDArray[np.generic]] = {}
    offset = 0
    for head in heads:
        if head.name in tensors:
            raise FrameError(f"two tensors named {head.name!r}")
        if head.nbytes < 0:
            raise FrameError(f"tensor {head.name!r} has an impossible length")
        if head.shared:
            body, offset = shared[offset : offset + head.nbytes], _aligned(offset + head.nbytes)
        else:
            body, start = view[start : start + head.nbytes], start + head.nbytes
        if len(body) != head.nbytes:
            raise FrameError(f"tensor {head.name!r} is longer than its frame")
        tensors[head.name] = _decode_tensor(head, body)
    if start != end:
        raise FrameError("bytes after the last tensor")
    return message, tensors


class Splitter:
    """Cuts a byte stream into frames. Feed it what arrives; it yields whole frames, without their outer length."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._max = max_frame

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each frame that is complete with `data`; raises `FrameError` for a length over the cap."""
        if not self._buffer and len(data) >= _LENGTH.size and _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size:
            if len(data) - _LENGTH.size > self._max:
                raise FrameError(f"frame of {len(data)} bytes is over the cap of {self._max}")
            yield data[_LENGTH.size :]  # one whole frame, as it nearly always is
            return
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > self._max:
                raise FrameError(f"frame of {size} bytes is over the cap of {self._max}")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            yield frame


def datatype(array: "NDArray[np.generic]") -> Dtype:
    """Return the datatype of an array; `KeyError` where there is none."""
    found = _datatypes().get(array.dtype)
    return dtype_of(array.dtype.name) if found is None else found


@cache
def _datatypes() -> "dict[np.dtype[Any], Dtype]":
    import numpy as np

    return {np.dtype(dtype.numpy): dtype for dtype in Dtype}


def _laid_out(tensors: "Tensors") -> "tuple[list[TensorHead], list[bytes | memoryview]]":
    import numpy as np

    heads: list[TensorHead] = []
    bodies: list[bytes | memoryview] = []
    for name, array in tensors.items():
        dtype = datatype(array)
        if dtype is Dtype.BYTES:
            body: bytes | memoryview = _encode_texts(array)
        elif array.nbytes <= SHARED_FROM:
            body = array.tobytes()  # a view takes longer than to copy so little
        else:
            body = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        heads.append(TensorHead(name, dtype, array.shape, len(body)))
        bodies.append(body)
    return heads, bodies


def _framed(message: Message, bodies: "Sequence[bytes | memoryview]") -> "list[bytes | memoryview]":
    head = _encode(message)
    total = _LENGTH.size + len(head) + sum(map(len, bodies))
    if total > MAX_FRAME:
        raise FrameError(f"frame of {total} bytes is over the cap of {MAX_FRAME}")
    prefix = _PREFIX.pack(total, len(head))
    if total <= SHARED_FROM:
        return [b"".join((prefix, head, *bodies))]
    return [prefix + head, *bodies]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _sealed(size: int, bodies: "list[tuple[int, bytes | memoryview]]") -> int:
    """Return a memory file with these bodies at their places, which nobody can change any more."""
    fd = os.memfd_create("tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        with mmap(fd, size) as memory:
            for at, body in bodies:
                memory[at : at + len(body)] = body
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mapped(message: Run, map_shared: "Callable[[int], Buffer] | None") -> memoryview:
    if map_shared is None or not 0 < message.shared <= MAX_FRAME:
        raise FrameError("shared memory that cannot be taken")
    return memoryview(map_shared(message.shared))


def _decode_tensor(head: TensorHead, body: memoryview) -> "NDArray[np.generic]":
    import numpy as np

    shape = head.shape
    if len(shape) > MAX_AXES or (shape and min(shape) < 0):
        raise FrameError(f"tensor {head.name!r} has an impossible shape")
    count = math.prod(shape)
    if head.dtype is Dtype.BYTES:
        return _decode_texts(head, body, count)
    dtype = np.dtype(head.dtype.numpy)
    if count * dtype.itemsize != len(body):
        raise FrameError(f"tensor {head.name!r} has {len(body)} bytes, its shape needs {count * dtype.itemsize}")
    return _shaped(np.frombuffer(body if head.shared else bytearray(body), dtype), head)


def _shaped(array: "NDArray[np.generic]", head: TensorHead) -> "NDArray[np.generic]":
    try:
        return array.reshape(head.shape)
    except (ValueError, OverflowError) as error:  # no values, and axes that numpy cannot address
        raise FrameError(f"tensor {head.name!r}: {error}") from error


def _encode_texts(array: "NDArray[np.generic]") -> bytes:
    parts: list[bytes] = []
    for value in array.reshape(-1).tolist():
        if value is None:
            parts.append(_LENGTH.pack(_MISSING))
        elif isinstance(value, bytes):
            parts += (_LENGTH.pack(_RAW), _LENGTH.pack(len(value)), value)
        else:
            text = str(value).encode()
            parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def _decode_texts(head: TensorHead, body: memoryview, count: int) -> "NDArray[np.generic]":
    import numpy as np

    if count > MAX_TEXTS:
        raise FrameError(f"tensor {head.name!r} has more than {MAX_TEXTS} texts")
    if count * _LENGTH.size > len(body):
        raise FrameError(f"tensor {head.name!r} has fewer values than its shape needs")
    values: list[str | bytes | None] = []
    at = 0
    try:
        for _ in range(count):
            (size,) = _LENGTH.unpack_from(body, at)
            at += _LENGTH.size
            if size == _MISSING:
                values.append(None)
                continue
            raw = size == _RAW
            if raw:
                (size,) = _LENGTH.unpack_from(body, at)
                at += _LENGTH.size
            piece = bytes(body[at : at + size])
            if len(piece) != size:
                raise FrameError(f"tensor {head.name!r} ends within a value")
            values.append(piece if raw else piece.decode())
            at += size
    except (struct.error, UnicodeDecodeError) as error:
        raise FrameError(f"tensor {head.name!r}: {error}") from error
    if at != len(body):
        raise FrameError(f"tensor {head.name!r} has bytes after its last value")
    array = np.empty(count, dtype=object)
    array[:] = values
    return _shaped(array, head)
