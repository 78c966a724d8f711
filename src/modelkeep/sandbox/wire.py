"""The runner's end of a channel: whole frames out of a blocking stream, with the shared memory that comes along.

Descriptors travel one way only, from server to runner; whatever a runner might send of that kind is never received.
"""

import array
import mmap
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from modelkeep.sandbox import frames

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Received = tuple[frames.Message, dict[str, NDArray[np.generic]]]

_RECEIVE: Final = 1 << 18
_MOST_FDS: Final = 16
_ROOM: Final = socket.CMSG_SPACE(_MOST_FDS * array.array("i").itemsize)
_FLAGS: Final = socket.MSG_CMSG_CLOEXEC


class Inbox:
    """Reads frames from one connected stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._splitter = frames.Splitter()
        self._fds: deque[int] = deque()

    def read(self, flags: int = 0) -> "list[Received] | None":
        """Receive once and return the frames that are complete; None at the end of the stream.

        Raises `FrameError` for what is no frame, and what `recvmsg` raises (`BlockingIOError` with MSG_DONTWAIT).
        """
        data, ancillary, _flags, _address = self._sock.recvmsg(_RECEIVE, _ROOM, flags | _FLAGS)
        if ancillary:
            self._keep(ancillary)
        if not data:
            return None
        return [frames.decode(frame, self._shared) for frame in self._splitter.feed(data)]

    def close(self) -> None:
        """Close the socket, and what came with frames that never became whole."""
        while self._fds:
            os.close(self._fds.popleft())
        self._sock.close()

    def _keep(self, ancillary: "list[tuple[int, int, bytes]]") -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)

    def _shared(self, size: int) -> mmap.mmap:
        """Map the next descriptor that came. The mapping is private: a model may write to its inputs."""
        if not self._fds:
            raise frames.FrameError("shared tensors without shared memory")
        fd = self._fds.popleft()
        try:
            return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as error:
            raise frames.FrameError(f"shared memory cannot be mapped: {error}") from error
        finally:
            os.close(fd)
