"""Whom a runner serves: the sockets that its own channel brings, one for each server, and whose turn it is.

One frame at a time, each server in its turn. Nothing here waits for one server while another has something to run: answers
are sent as far as they go, and a server that does not read its answers is asked for no more until it does.
"""

import select
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from modelkeep.sandbox import control, frames
from modelkeep.sandbox.wire import Inbox

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL

Arrays = dict[str, "NDArray[np.generic]"]
Pieces = Sequence[bytes | memoryview]


class Server:
    """One server's socket: what it asked for and has not got, and what of an answer is still to be sent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.inbox = Inbox(sock)
        self.asked: deque[tuple[frames.Asked, Arrays]] = deque()
        self.unsent: deque[memoryview] = deque()
        self.attached = True


class Turn(NamedTuple):
    """What to do next, and whom to answer with `Servers.send`."""

    server: Server
    message: frames.Asked
    inputs: Arrays


class Servers:
    """All servers of one runner. `fault`: one of them sent what is no frame, and was dropped."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._news = control.Inbox()
        self._servers: dict[int, Server] = {}
        self._greeting: Pieces = ()
        self._round: deque[Server] = deque()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._draining = False
        self._ended = False
        self.fault = False

    def greet(self, frame: Pieces) -> None:
        """Send this frame to every server: now to those that are attached, later to each as it comes."""
        self._greeting = frame
        while self._hear():
            pass

    def next(self) -> Turn | None:
        """Wait for something to run; None when there will be nothing any more."""
        while True:
            while self._round:
                server = self._round.popleft()
                if server.attached:
                    return Turn(server, *server.asked.popleft())
            if self._ended or (self._draining and not self._servers):
                return None
            self._look()
            self._round.extend(server for server in self._servers.values() if server.asked and not server.unsent)

    def send(self, server: Server, pieces: Pieces) -> None:
        """Send a frame as far as it goes now."""
        if not server.attached:
            return
        server.unsent.extend(memoryview(piece) for piece in pieces if len(piece))
        self._flush(server)
        if server.unsent and server.attached:
            self._poll.modify(server.sock, select.POLLOUT)

    def close(self) -> None:
        """Close all sockets that the channel brought."""
        for server in list(self._servers.values()):
            self._drop(server)
        self._news.close()

    def _look(self) -> None:
        """Take in what has arrived; wait for it when there is nothing to run."""
        waiting = any(server.asked and not server.unsent for server in self._servers.values())
        for fd, events in self._poll.poll(0 if waiting else None):
            server = self._servers.get(fd)
            if server is None:
                self._hear()
            elif events & _GONE:
                self._drop(server)  # nobody is left to answer
            elif events & select.POLLOUT:
                self._flush(server)
                if server.attached and not server.unsent:
                    self._poll.modify(server.sock, select.POLLIN)
            elif not server.asked:
                self._read(server)

    def _hear(self) -> bool:
        """Read the channel once; whether there was anything."""
        try:
            news = self._news.receive(self._channel)
        except BlockingIOError:
            return False
        except (control.ChannelClosed, OSError):
            self._ended = True
            return False
        for message, fds in news:
            if isinstance(message, control.Attach):
                self._attach(Server(socket.socket(fileno=fds[0])))
            elif isinstance(message, control.Drain):
                self._draining = True
        return True

    def _attach(self, server: Server) -> None:
        self._servers[server.sock.fileno()] = server
        self._poll.register(server.sock, select.POLLIN)
        self.send(server, self._greeting)

    def _drop(self, server: Server) -> None:
        server.attached = False
        self._poll.unregister(server.sock)
        del self._servers[server.sock.fileno()]
        server.inbox.close()

    def _read(self, server: Server) -> None:
        """Read a server's socket once."""
        try:
            arrived = server.inbox.read()
            if arrived is not None:
                server.asked.extend((_asked(message), inputs) for message, inputs in arrived)
                return
        except BlockingIOError:
            return
        except frames.FrameError as error:
            sys.stderr.write(f"protocol fault: {error}\n")
            self.fault = True
        except ConnectionError:
            pass  # as at end of file
        self._drop(server)

    def _flush(self, server: Server) -> None:
        unsent = server.unsent
        try:
            while unsent:
                sent = server.sock.send(unsent[0])
                if sent == len(unsent[0]):
                    unsent.popleft()
                else:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            pass  # the poll says when to go on
        except ConnectionError:
            self._drop(server)


def _asked(message: frames.Message) -> frames.Asked:
    if not isinstance(message, frames.Asked):
        raise frames.FrameError("neither a run nor a compilation")
    return message
