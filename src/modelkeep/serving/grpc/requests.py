"""An RPC as the predict path sees it: a request whose headers are the metadata, and whose caller may leave."""

from collections.abc import Callable, Iterable
from urllib.parse import unquote

from modelkeep.contracts.errors import Timeout
from modelkeep.serving.messages import Request

_TIMEOUT = b"x-request-timeout"

Metadata = Iterable[tuple[str, str | bytes]]


class RpcRequest(Request):
    """One question. `trailing` is the metadata that goes behind its answer."""

    __slots__ = ("_leave", "trailing")

    def __init__(self, path: str, fields: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__("POST", path, fields)
        self.headers.pop(b"cookie", None)  # pages do not call, and nothing of a cookie would go on to the control plane
        self._leave: Callable[[], None] | None = None
        self.trailing: list[tuple[str, str]] = [("x-request-id", self.id)]

    @classmethod
    def of_rpc(cls, path: str, metadata: Metadata, peer: str = "") -> "RpcRequest":
        """Return the request of an RPC; `peer` as the library names it: `ipv4:10.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
        fields = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in metadata]
        request = cls(path, fields)
        family, _colon, address = peer.partition(":")
        if family in {"ipv4", "ipv6"}:
            request.peer_given = unquote(address)
        return request

    def again(self) -> "RpcRequest":
        """Return a further question of the same stream, with an id of its own for its prediction."""
        other = RpcRequest(self.path, self.fields)
        other.headers = self.headers
        other.id, other.key, other.address, other.peer_given = self.id, self.key, self.address, self.peer_given
        return other

    def bound(self, seconds: float | None) -> None:
        """Let the RPC's deadline hold, `seconds` from now, where it is sooner than `X-Request-Timeout`; raises `Timeout`."""
        if seconds is None:
            return
        if seconds <= 0:
            raise Timeout
        try:
            wish = float(self.headers[_TIMEOUT])
        except KeyError:
            wish = seconds * 2
        except ValueError:
            return  # the engine says what is the matter with it
        if seconds < wish < float("inf"):
            self.headers[_TIMEOUT] = repr(seconds).encode()

    def when_gone(self, leave: Callable[[], None] | None) -> None:
        """Have `leave` called when the caller goes away before it is answered; None takes that back."""
        self._leave = leave

    def leave(self) -> None:
        """The caller has gone away: its place is free."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
