"""Where the audit trail goes beside the database: a file that only grows and is rotated, or syslog (RFC 5424)."""

import array
import errno
import fcntl
import json
import os
import socket
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_MEGABYTE: Final = 1024 * 1024
_NOTICE_OF_AUDIT: Final = 13 * 8 + 5  # facility "log audit", severity "notice"
_PATIENCE_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.01
SCHEMES: Final = ("udp", "tcp", "unix")


class FileSink:
    """A file of JSON lines. When it is full it gets the time as the end of its name, and a new one begins; none is removed."""

    name = "file"

    def __init__(self, path: Path, rotate_mb: int) -> None:
        self._path = path
        self._rotate = rotate_mb * _MEGABYTE

    def take(self, lines: Sequence[bytes]) -> None:
        """Append lines, and return when they are on the disk. A line that a crash has torn is closed first, and stays."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            left = memoryview((b"\n" if torn else b"") + b"".join(lines))
            while left:
                left = left[file.write(left) or 0 :]
            os.fsync(fd)
            size = os.fstat(fd).st_size
        if size >= self._rotate:
            self._path.rename(self._path.with_name(f"{self._path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"))
        _sync(self._path.parent)


class SyslogSink:
    """A syslog server: `udp://host:port`, `tcp://host:port` (octet-counted, RFC 6587) or `unix:///path`.

    What does not fit into a datagram goes without its contents: record and hash always fit.

    Over TCP a line counts as taken when the other machine's kernel has acknowledged it; over UDP when it was sent, and it may
    be lost.
    """

    name = "syslog"

    def __init__(self, address: str) -> None:
        self._address = urlsplit(address)
        self._host = socket.gethostname() or "-"
        self._socket: socket.socket | None = None

    def take(self, lines: Sequence[bytes]) -> None:
        """Send lines, in ten seconds; where that fails, the connection is made anew by the next call."""
        deadline = time.monotonic() + _PATIENCE_S
        try:
            for line in lines:
                self._send(line, deadline)
            self._arrived(deadline)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; the next call makes it anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _message(self, line: bytes) -> bytes:
        head = f"<{_NOTICE_OF_AUDIT}>1 {datetime.now(UTC).isoformat()} {self._host} modelkeep {os.getpid()} audit - "
        return head.encode() + line.rstrip(b"\n")

    def _send(self, line: bytes, deadline: float) -> None:
        connection = self._socket = self._socket or self._connected()
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the syslog server does not take what it is sent")
        connection.settimeout(left)
        message = self._message(line)
        if connection.type == socket.SOCK_STREAM:
            framed = b"%d %s" % (len(message), message) if self._address.scheme == "tcp" else message + b"\n"
            connection.sendall(framed)
            return
        try:
            connection.send(message)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            connection.send(self._message(_without_contents(line)))

    def _connected(self) -> socket.socket:
        if self._address.scheme == "unix":
            return self._local()
        kind = socket.SOCK_DGRAM if self._address.scheme == "udp" else socket.SOCK_STREAM
        where = socket.getaddrinfo(self._address.hostname, self._address.port or 514, type=kind)[0]
        made = socket.socket(where[0], kind)
        return self._to(made, where[4])

    def _local(self) -> socket.socket:
        """Connect to a socket of this machine, which takes datagrams or a stream."""
        try:
            return self._to(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), self._address.path)
        except OSError:
            return self._to(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), self._address.path)

    def _to(self, made: socket.socket, where: object) -> socket.socket:
        made.settimeout(_PATIENCE_S)
        try:
            made.connect(where)  # type: ignore[arg-type] # an address of the socket's own kind
        except OSError:
            made.close()
            raise
        return made

    def _arrived(self, deadline: float) -> None:
        """Wait until the other kernel has all of a TCP stream; raises `OSError` where it will not."""
        connection = self._socket
        if connection is None or self._address.scheme != "tcp":
            return
        waiting = array.array("i", [0])
        while True:
            trouble = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if trouble:
                raise OSError(trouble, os.strerror(trouble))
            fcntl.ioctl(connection, termios.TIOCOUTQ, waiting)
            if not waiting[0]:
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the syslog server does not take what it is sent")
            time.sleep(_LOOK_AGAIN_S)  # the kernel tells nobody when the other side has it
        connection.setblocking(False)
        try:
            if connection.recv(1) == b"":
                raise ConnectionResetError("the syslog server has hung up")
        except BlockingIOError:
            pass  # it says nothing, as it should


def _without_contents(line: bytes) -> bytes:
    """Return a line without what was said; that it is missing is told."""
    read = json.loads(line)
    read.pop("said", None)
    return json.dumps({**read, "too_long": True}, separators=(",", ":"), ensure_ascii=False).encode()


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
