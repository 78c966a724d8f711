"""An RPC as the predict path sees it: a request whose headers are the metadata, and whose caller may leave."""

from collections.abc import Callable, Iterable

from modelkeep.contracts.errors import Timeout
from modelkeep.infra.headers import presented_key
from modelkeep.serving.messages import Request

_TIMEOUT = b"x-request-timeout"

Metadata = Iterable[tuple[str, str | bytes]]


class RpcRequest(Request):
    """One question. `trailing` is the metadata that goes behind its answer."""

    __slots__ = ("_leave", "trailing")

    def __init__(self, path: str, headers: dict[bytes, bytes]) -> None:
        super().__init__("POST", path, headers.items())
        self._leave: Callable[[], None] | None = None
        self.trailing: list[tuple[str, str]] = [("x-request-id", self.id)]

    @classmethod
    def of_rpc(cls, path: str, metadata: Metadata) -> "RpcRequest":
        """Return the request of an RPC."""
        return cls(path, {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in metadata})

    @property
    def presented_key(self) -> bytes | None:
        """The API key that came in the metadata, or None."""
        return presented_key(self.headers)

    def again(self) -> "RpcRequest":
        """Return a further question of the same stream, with an id of its own for its prediction."""
        other = RpcRequest(self.path, self.headers)
        other.id, other.key = self.id, self.key
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
