"""Open loop: requests leave by a schedule of fixed rate, whether or not earlier ones were answered.

Latency counts from the moment a request was due, so that a server which stalls is charged with everybody who would have
come meanwhile (no coordinated omission). One thread, plain sockets and epoll: about 15 microseconds a request. What was
due and could not be sent, for want of a free connection, is sent later and counted from when it was due.

    python bench/rig/open_loop.py --port 8080 --index FOLDER/index --rate 5000 --seconds 5
"""

import argparse
import gc
import json
import math
import select
import socket
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BIN_S = 0.1
"""Length of a slice of the timeline, in seconds."""

_LOST = 0  # the status of what was never answered
_OK = 200
_REFUSALS = (429, 503)
_QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
_CONNECT_S = 5.0


def measure(
    port: int,
    index: Path,
    *,
    rate: float,
    seconds: float,
    connections: int = 64,
    core: int | None = None,
    drain_s: float = 10.0,
    deadline_s: float = math.inf,
) -> dict[str, Any]:
    """Run the generator in a process of its own, and return its figures (see `Outcome.figures`)."""
    from rig.machine import pinned

    command = [*pinned(core), sys.executable, __file__, "--port", str(port), "--index", str(index), "--rate", str(rate)]
    command += ["--seconds", str(seconds), "--connections", str(connections), "--drain", str(drain_s)]
    command += ["--deadline", str(deadline_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + drain_s + 60)
    if done.returncode:
        raise RuntimeError(f"the generator failed: {done.stderr[-800:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


class Outcome:
    """What became of each request: when it was due and sent (seconds since the start), how long it took, its status."""

    def __init__(self) -> None:
        self.due = array("d")
        self.sent = array("d")
        self.done = array("d")
        self.status = array("H")
        self.started_at = time.time()
        self.unsent = 0
        self.reconnects = 0

    def note(self, due: float, sent: float, done: float, status: int) -> None:
        """Note one request."""
        self.due.append(due)
        self.sent.append(sent)
        self.done.append(done)
        self.status.append(status)

    def figures(self, *, rate: float, seconds: float, deadline_s: float = math.inf) -> dict[str, Any]:
        """Return rates, latencies in ms from when each was due, those of refusals apart, and a timeline."""
        due, sent, done = (np.frombuffer(one, float) if one else np.zeros(0) for one in (self.due, self.sent, self.done))
        status = np.frombuffer(self.status, np.uint16) if self.status else np.zeros(0, np.uint16)
        good, refused = status == _OK, np.isin(status, _REFUSALS)
        took = (done - due) * 1000
        return {
            "offered_per_second": rate,
            "seconds": seconds,
            "started_at": self.started_at,
            "sent_per_second": int((sent <= seconds).sum()) / seconds,
            "good_per_second": int(good.sum()) / seconds,
            "in_time_per_second": int((good & (done - sent <= deadline_s) & (done <= seconds)).sum()) / seconds,
            "by_status": {str(code or "lost"): count for code, count in sorted(Counter(status.tolist()).items())},
            "unsent": self.unsent,
            "reconnects": self.reconnects,
            "good": quantiles(took[good]),
            "good_from_sent": quantiles((done - sent)[good] * 1000),
            "refused": quantiles(took[refused]),
            "refused_from_sent": quantiles((done - sent)[refused] * 1000),
            "sent_late": quantiles((sent - due) * 1000),
            "timeline": timeline(due, took, good, refused),
            "client_cpu_s": time.process_time(),
        }


def quantiles(took: NDArray[np.float64]) -> dict[str, float]:
    """Return the usual quantiles; nothing for no figures."""
    if not len(took):
        return {}
    return {name: round(float(np.quantile(took, share)), 4) for name, share in _QUANTILES.items()}


def timeline(
    due: NDArray[np.float64], took: NDArray[np.float64], good: NDArray[np.bool_], refused: NDArray[np.bool_]
) -> list[dict[str, float]]:
    """Return a slice each `BIN_S`: how many were good, refused and otherwise lost, and the p99 of the good ones."""
    if not len(due):
        return []
    bins = (due / BIN_S).astype(int)
    slices = []
    for number in range(bins.max() + 1):
        here = bins == number
        fine = took[here & good]
        slices.append({
            "at_s": round(number * BIN_S, 3),
            "good": len(fine),
            "refused": int((here & refused).sum()),
            "failed": int((here & ~good & ~refused).sum()),
            "p99_ms": round(float(np.quantile(fine, 0.99)), 3) if len(fine) else 0.0,
        })  # fmt: skip
    return slices


class _Connection:
    """One connection, with at most one request in flight."""

    __slots__ = ("busy", "due", "left", "received", "sent", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.busy = False
        self.due = self.sent = 0.0
        self.left = b""
        self.received = b""


class Generator:
    """Sends requests by the schedule. `wires`: whole requests, taken in rotation."""

    def __init__(self, port: int, wires: list[bytes], connections: int) -> None:
        self._port = port
        self._wires = wires
        self._epoll = select.epoll()  # before the connections: select() takes low descriptors only
        self._by_fd: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._busy = 0
        self._start = 0.0
        self._outcome = Outcome()
        for _ in range(connections):
            self._connect()

    def run(self, rate: float, seconds: float, drain_s: float) -> Outcome:
        """Send `rate` requests a second for `seconds`; then wait at most `drain_s` for what is out."""
        total, sent, turn = int(rate * seconds), 0, 0
        gc.disable()
        self._outcome.started_at = time.time()
        self._start = clock = time.perf_counter()
        end = clock + seconds + drain_s
        while (sent < total or self._busy) and clock < end:
            passed = clock - self._start
            due = min(total, int(passed * rate) + 1)
            while sent < due and self._idle:
                self._send(self._idle.popleft(), sent / rate, self._wires[turn])
                turn = (turn + 1) % len(self._wires)
                sent += 1
            self._wait(sent / rate - (time.perf_counter() - self._start) if sent < total and self._idle else 0.05)
            clock = time.perf_counter()
        self._outcome.unsent = total - sent
        for one in self._by_fd.values():
            if one.busy:
                self._outcome.note(one.due, one.sent, clock - self._start, _LOST)
        return self._outcome

    def close(self) -> None:
        """Close all connections."""
        for one in self._by_fd.values():
            one.sock.close()
        self._epoll.close()

    def _wait(self, seconds: float) -> None:
        """Take what has arrived, waiting for it at most so long; select() waits by the microsecond, epoll does not."""
        if seconds > 0:
            select.select([self._epoll], [], [], seconds)
        for fd, event in self._epoll.poll(0):
            connection = self._by_fd[fd]
            if connection.left and event & select.EPOLLOUT:
                self._push(connection)
            if event & ~select.EPOLLOUT:
                self._receive(connection)

    def _connect(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port), _CONNECT_S)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self._by_fd[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._idle.append(connection)

    def _send(self, connection: _Connection, due: float, wire: bytes) -> None:
        connection.busy, connection.due, connection.received = True, due, b""
        connection.sent = time.perf_counter() - self._start
        self._busy += 1
        try:
            count = connection.sock.send(wire)
        except BlockingIOError:
            count = 0
        except OSError:
            self._finish(connection, _LOST, reopen=True)
            return
        if count < len(wire):
            connection.left = wire[count:]
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _push(self, connection: _Connection) -> None:
        try:
            connection.left = connection.left[connection.sock.send(connection.left) :]
        except OSError:
            connection.left = b""  # what the server has to say about it comes by the reading side
        if not connection.left:
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._finish(connection, _LOST, reopen=True)
            return
        connection.received = data = connection.received + data if connection.received else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        if _whole(head, data, end):
            self._finish(connection, int(data[9:12]), reopen=b"connection: close" in head)

    def _finish(self, connection: _Connection, status: int, *, reopen: bool) -> None:
        if connection.busy:
            connection.busy = False
            self._busy -= 1
            self._outcome.note(connection.due, connection.sent, time.perf_counter() - self._start, status)
            if not reopen:
                self._idle.append(connection)
        if reopen:
            if connection in self._idle:
                self._idle.remove(connection)
            self._outcome.reconnects += 1
            del self._by_fd[connection.sock.fileno()]
            self._epoll.unregister(connection.sock.fileno())
            connection.sock.close()
            self._connect()


def _whole(head: bytes, data: bytes, end: int) -> bool:
    """Say whether the body has arrived."""
    at = head.find(b"content-length:")
    if at >= 0:
        return len(data) - end - 4 >= int(head[at + 15 :].split(b"\r\n", 1)[0])
    return b"transfer-encoding: chunked" in head and data.endswith(b"0\r\n\r\n")


def wires(index: Path) -> list[bytes]:
    """Return the requests of a folder as they go over the connection."""
    requests = []
    for line in index.read_text().splitlines():
        method, path, body_file, head_file = line.split("\t")
        body = Path(body_file).read_bytes()
        head = Path(head_file).read_text().replace("\n", "\r\n")
        requests.append(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
    return requests


def main() -> None:
    """Run once, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--index", type=Path, required=True, help="file that lists the requests")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--drain", type=float, default=10.0, help="seconds to wait for the last answers")
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which an answer is in vain")
    asked = parser.parse_args()
    generator = Generator(asked.port, wires(asked.index), asked.connections)
    outcome = generator.run(asked.rate, asked.seconds, asked.drain)
    generator.close()
    print(json.dumps(outcome.figures(rate=asked.rate, seconds=asked.seconds, deadline_s=asked.deadline)))


if __name__ == "__main__":
    main()
