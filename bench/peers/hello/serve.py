"""The floor: the HTTP server that Modelkeep runs on, answering the same bytes to whoever asks."""

from collections.abc import Awaitable, Callable
from typing import Any

BODY = (
    b'{"id":"prd_00000000000000000000000000","deployment":"bench","model":"bench","version":1,'
    b'"outputs":{"label":[1],"probabilities":[[0.0,1.0]]}}'
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Read the request, and answer."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
