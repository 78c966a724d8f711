"""Requests and responses of the predict door, over plain ASGI."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol
from urllib.parse import parse_qs

from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.contracts.errors import Invalid, TooLarge
from modelkeep.contracts.ids import new_ulid
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.infra.headers import by_name, given_request_id
from modelkeep.infra.rates import Headers
from modelkeep.serving import codings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_DIGITS = 18


CONNECTION = "modelkeep.connection"
PREDICT = "/api/v1/predict/"
"""Where native predictions are asked for: what follows is the deployment's name."""

_NOTHING: dict[str, Any] = {}
_NOT_KEPT = (b"cache-control", b"no-store")


class Connection(Protocol):
    """What the HTTP protocol offers beyond ASGI: it calls `gone` when its caller has gone away, and sends a whole answer."""

    gone: Callable[[], None] | None
    client: tuple[str, int] | None
    certificate: ShownCertificate | None

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole answer at once; False where it has to go through ASGI."""
        ...


class ClientGone(Exception):
    """The caller left before the request was whole."""


class LengthRequired(Invalid):
    """The content length is not a number."""

    code = "invalid_content_length"


class Request:
    """One HTTP request, its body not yet read."""

    __slots__ = (
        "_connection",
        "_receive",
        "address",
        "beside",
        "fields",
        "headers",
        "id",
        "key",
        "method",
        "path",
        "peer_given",
        "query_string",
        "ulid",
    )

    def __init__(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        query_string: bytes = b"",
        receive: Receive | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.fields = headers  # line by line, for those that may come on several
        self.headers: dict[bytes, bytes] = by_name(headers)
        self.address: str | None = None  # of who asks, where somebody has wanted to know it
        self.peer_given: str | None = None
        self.query_string = query_string
        self.ulid = new_ulid()
        self.id = given_request_id(self.headers) or f"req_{self.ulid}"
        self.key: ServedKey | None = None
        self.beside: Headers = ()  # headers of whatever answers it: for the page that asks, and of the rates it counts against
        self._receive = receive or _nothing
        self._connection = connection

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> "Request":
        """Return the request of an ASGI connection."""
        connection = (scope.get("extensions") or _NOTHING).get(CONNECTION)
        request = cls(
            scope["method"],
            scope["path"],
            scope["headers"],
            query_string=scope["query_string"],
            receive=receive,
            connection=connection,
        )
        client = scope.get("client")
        request.peer_given = client[0] if client else None
        return request

    @property
    def peer(self) -> str | None:
        """The address of the connection, which may be a proxy's; None where there is none."""
        if self.peer_given is None and self._connection is not None and self._connection.client is not None:
            return self._connection.client[0]
        return self.peer_given

    @property
    def certificate(self) -> ShownCertificate | None:
        """The certificate that the caller has shown on this connection, as TLS has verified it; None without one."""
        return None if self._connection is None else self._connection.certificate

    async def answer(self, response: "Response", send: Send) -> None:
        """Send a whole answer, with the request's id."""
        headers = [*response.headers, *self.beside, (b"x-request-id", self.id.encode())]
        if self._connection is None or not self._connection.reply(response.status, headers, response.body):
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await send({"type": "http.response.body", "body": response.body})

    def when_gone(self, leave: Callable[[], None] | None) -> None:
        """Have `leave` called when the caller goes away before it is answered; None takes that back."""
        if self._connection is not None:
            self._connection.gone = leave

    def header(self, name: bytes) -> bytes | None:
        """Return the header of this name (small letters), or None; of several, the last."""
        return self.headers.get(name)

    def query(self, name: str) -> str | None:
        """Return the first query parameter of this name, or None."""
        if not self.query_string:
            return None
        values = parse_qs(self.query_string.decode("latin-1"), keep_blank_values=True).get(name)
        return values[0] if values else None

    async def body(self, max_bytes: int) -> bytes:
        """Return the whole body, out of its content coding.

        Raises `TooLarge` as soon as it is known to be, `ClientGone` when it never will be whole.
        """
        body = await self._whole(max_bytes)
        coding = self.header(b"content-encoding")
        return body if coding is None else await codings.unpacked(coding, body, max_bytes, _too_large(max_bytes))

    def coding_for(self, response: "Response") -> codings.Coding | None:
        """Return the content coding in which an answer is to go out, if any."""
        return codings.wished(self.headers.get(b"accept-encoding"), len(response.body))

    async def _whole(self, max_bytes: int) -> bytes:
        announced = self.header(b"content-length")
        if announced is not None:
            if not announced.isdigit() or len(announced) > _MAX_DIGITS:
                raise LengthRequired
            if int(announced) > max_bytes:
                raise _too_large(max_bytes)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            return body
        pieces = [body]
        size = len(body)
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > max_bytes:
                raise _too_large(max_bytes)
        return b"".join(pieces)


class Response:
    """Status, headers and a whole body."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int, body: bytes, content_type: bytes = b"application/json", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.status = status
        self.body = body
        self.headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), _NOT_KEPT, *headers]

    def packed(self, coding: codings.Coding) -> "Response":
        """Return this answer in a content coding."""
        (_, content_type), _length, _not_kept, *headers = self.headers
        named = ((b"content-encoding", coding.encode()), (b"vary", b"accept-encoding"))
        return Response(self.status, codings.packed(coding, self.body), content_type, (*headers, *named))


async def _nothing() -> MutableMapping[str, Any]:
    """Receive what comes where nothing comes any more."""
    return {"type": "http.disconnect"}


def encoded(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Return headers as ASGI wants them."""
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def segments(path: str) -> list[str]:
    """Return the parts of a path after its first slash. ASGI has already decoded it, once."""
    return path[1:].split("/")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the limit of {max_bytes // (1024 * 1024)} MiB.")
