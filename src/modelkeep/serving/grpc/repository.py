"""Asks the control plane what REST asks it: loading and unloading go on to it as a request over HTTP, with the caller's key."""

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.contracts.errors import Internal
from modelkeep.serving.forward import CLIENT_CLOSED, Forward
from modelkeep.serving.grpc.requests import RpcRequest
from modelkeep.serving.grpc.statuses import raise_refused
from modelkeep.serving.messages import Request, Scope

_PASSED: Final = frozenset({b"x-api-key", b"authorization", b"traceparent"})
_LARGEST: Final = 64 * 1024


async def control_plane(forward: Forward, request: RpcRequest, path: str) -> None:
    """Have the control plane do what a POST without a body to `path` does (percent-encoded); raises what it refuses."""
    headers = [(name, value) for name, value in request.headers.items() if name in _PASSED]
    headers += [(b"content-length", b"0"), (b"x-request-id", request.id.encode())]
    scope: Scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope["headers"] = headers
    answer = _Answer()
    inner = _Asked("POST", path, headers)
    inner.address, inner.certificate = request.address, request.certificate
    status = await forward(inner, scope, answer.receive, answer.send)
    if status == CLIENT_CLOSED:
        raise Internal
    raise_refused(status, bytes(answer.body), answer.retry_after)


class _Asked(Request):
    """What the control plane is asked, for whoever asked it over gRPC."""

    certificate: ShownCertificate | None = None


class _Answer:
    """Both ends of the request: nothing is sent, and what comes is kept."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.retry_after = b""
        self._asked = False

    async def receive(self) -> MutableMapping[str, Any]:
        if self._asked:
            await asyncio.get_running_loop().create_future()  # the caller stays; its leaving ends all of this
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.retry_after = dict(message.get("headers", ())).get(b"retry-after", self.retry_after)
        self.body += message.get("body", b"")[: _LARGEST - len(self.body)]
