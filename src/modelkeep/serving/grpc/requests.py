"""An RPC as the predict path sees it: a request whose headers are the metadata, and whose caller may leave."""

import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import unquote

from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.contracts.errors import Timeout
from modelkeep.infra import client_certificates
from modelkeep.serving.messages import Request

_TIMEOUT = b"x-request-timeout"
_PEM: Final = "x509_pem_cert"

Metadata = Iterable[tuple[str, str | bytes]]


class RpcRequest(Request):
    """One question. `trailing` is the metadata that goes behind its answer."""

    __slots__ = ("_context", "_leave", "_shown", "trailing")

    def __init__(self, path: str, fields: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__("POST", path, fields)
        self.headers.pop(b"cookie", None)  # pages do not call, and nothing of a cookie would go on to the control plane
        self._leave: Callable[[], None] | None = None
        self._context: Any = None
        self._shown: ShownCertificate | None = None
        self.trailing: list[tuple[str, str]] = [("x-request-id", self.id)]

    @classmethod
    def of_rpc(cls, path: str, metadata: Metadata, peer: str = "", context: Any = None) -> "RpcRequest":  # noqa: ANN401 - the library has no types
        """Return the request of an RPC; `peer` as the library names it: `ipv4:10.0.0.1:5000`, `ipv6:%5B::1%5D:5000`.

        `context` is the library's, for a connection whose caller has been asked for a certificate.
        """
        fields = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in metadata]
        request = cls(path, fields)
        request._context = context
        family, _colon, address = peer.partition(":")
        if family in {"ipv4", "ipv6"}:
            request.peer_given = unquote(address)
        return request

    @property
    def certificate(self) -> ShownCertificate | None:
        """The certificate that the caller has shown on this connection, as TLS has verified it; None without one."""
        if self._context is not None:
            pem = self._context.auth_context().get(_PEM, ())
            self._shown = client_certificates.read(ssl.PEM_cert_to_DER_cert(pem[0].decode("ascii"))) if pem else None
            self._context = None
        return self._shown

    def again(self) -> "RpcRequest":
        """Return a further question of the same stream, with an id of its own for its prediction."""
        other = RpcRequest(self.path, self.fields)
        other.headers = self.headers
        other._context, other._shown = self._context, self._shown
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
