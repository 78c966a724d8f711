"""The way to the api process, over real sockets: a door under uvicorn and uvloop on loopback, and an app under uvicorn."""

import asyncio
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import pytest_asyncio
import uvicorn
import uvloop

from modelkeep.infra.rates import OwnRates
from modelkeep.serving.engine import Engine
from modelkeep.serving.forward import ApiDown, Forward
from modelkeep.serving.http import Door
from modelkeep.serving.keys import Keys
from modelkeep.serving.limits import Limits
from modelkeep.serving.messages import Request
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.pool import Pool
from modelkeep.serving.recorder import Recorder
from modelkeep.serving.router import Router
from modelkeep.serving.settings import ServingSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1024 * 1024
PIECE = bytes(range(256)) * 256  # 64 kB


class Api:
    """The app behind the door. It does what its paths say, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.received = 0
        self.sent = 0
        self.heard = asyncio.Event()
        self.gate = asyncio.Event()
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(
            {
                "method": scope["method"],
                "path": scope["raw_path"].decode(),
                "query": scope["query_string"].decode(),
                "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
            }
        )
        name = scope["path"].strip("/").partition("/")[0] or "echo"
        await getattr(self, f"do_{name}", self.do_echo)(scope, receive, send)

    @staticmethod
    async def answer(send: Any, status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def body(self, receive: Any) -> AsyncIterator[bytes]:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    async def do_echo(self, scope: Any, receive: Any, send: Any) -> None:
        data = b"".join([piece async for piece in self.body(receive)])
        said = json.dumps(self.seen[-1] | {"body": data.decode("latin-1")}).encode()
        length = (b"content-length", str(len(said)).encode())
        await self.answer(send, 200, said, length, (b"content-type", b"application/json"), (b"x-from", b"api"))

    async def do_upload(self, scope: Any, receive: Any, send: Any) -> None:
        if b"gate" in scope["query_string"]:
            await self.gate.wait()
        digest = hashlib.sha256()
        async for piece in self.body(receive):
            digest.update(piece)
            self.received += len(piece)
            self.heard.set()
        await self.answer(send, 201, digest.hexdigest().encode(), (b"location", b"/there"))

    async def do_download(self, scope: Any, receive: Any, send: Any) -> None:
        pieces = int(parse_qs(scope["query_string"])[b"mb"][0]) * MB // len(PIECE)
        length = str(pieces * len(PIECE)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for at in range(pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": at < pieces - 1})
            self.sent += len(PIECE)

    async def do_events(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        leaving = asyncio.create_task(self.leave(receive))
        while not leaving.done():
            getting = asyncio.create_task(self.events.get())
            await asyncio.wait({getting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
            elif (event := getting.result()) is None:
                await send({"type": "http.response.body", "body": b""})
                break
            else:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        leaving.cancel()

    async def leave(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def do_hang(self, scope: Any, receive: Any, send: Any) -> None:
        self.heard.set()
        await self.leave(receive)

    async def do_refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.answer(send, 413, b"too large", (b"connection", b"close"))

    async def do_break(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def do_mute(self, scope: Any, receive: Any, send: Any) -> None:
        return

    async def do_status(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, int(scope["path"].rpartition("/")[2]), b"", (b"etag", b'"7"'))

    async def do_hops(self, scope: Any, receive: Any, send: Any) -> None:
        hops = (
            (b"connection", b"x-inner"),
            (b"keep-alive", b"timeout=9"),
            (b"x-inner", b"1"),
            (b"proxy-authenticate", b"Basic"),
        )
        await self.answer(send, 200, b"ok", *hops, (b"x-request-id", b"the-apis-own"))


class House:
    """The api, the door before it, and a client."""

    def __init__(self, api: Api, port: int, door: Door) -> None:
        self.api = api
        self.port = port
        self.door = door
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)

    async def raw(self, *pieces: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        return reader, writer

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes as they are, then read until the door closes."""
        reader, writer = await self.raw(data)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def config(app: Any, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, **options
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Both servers, for the whole module."""
    folder = tmp_path_factory.mktemp("run")
    api = Api()
    with socket.socket(socket.AF_UNIX) as inner, socket.socket() as outer:
        inner.bind(str(folder / "api.sock"))
        inner.listen()
        outer.bind(("127.0.0.1", 0))
        outer.listen()
        behind = uvicorn.Server(config(api, date_header=False))
        serving = asyncio.create_task(behind._serve([inner]))
        options = ServingSettings()
        made: list[Door] = []
        front: list[uvicorn.Server] = []
        up = threading.Event()

        async def door() -> None:
            keys = Keys(max_staleness_s=60)
            forward = Forward(folder / "api.sock")
            metrics = Metrics("9", folder / "metrics")
            recorder = Recorder(None, max_payload=options.max_body_mb * MB)
            router = Router(lambda changed: Pool(options, lambda _message: None, changed, recorder), metrics.meter)
            engine = Engine(options, router, Limits(OwnRates()), recorder)
            made.append(
                Door(settings=options, router=router, engine=engine, keys=keys, metrics=metrics, forward=forward, version="9")
            )
            front.append(uvicorn.Server(config(made[0], proxy_headers=False)))
            up.set()
            await front[0].serve(sockets=[outer])

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(door())

        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(up.wait)
        house = House(api, outer.getsockname()[1], made[0])
        yield house
        await house.client.aclose()
        front[0].should_exit = True
        await asyncio.to_thread(thread.join)
        behind.should_exit = True
        await serving


@pytest.fixture
def house(running: House) -> House:
    """Both servers, with nothing seen yet."""
    running.api.__init__()  # type: ignore[misc]
    return running


def headers_of(seen: dict[str, Any]) -> dict[str, str]:
    return dict(seen["headers"])


async def test_the_api_is_told_who_is_at_the_other_end_and_nobody_says_it_for_themselves(house: House) -> None:
    answer = await house.client.get("/api/v1/models", headers={"x-modelkeep-address": "192.0.2.1"})
    told = [value for name, value in answer.json()["headers"] if name == "x-modelkeep-address"]
    assert told == ["127.0.0.1"]


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_who_may_load_a_model_the_control_plane_says_alone(house: House, what: str) -> None:
    """It takes what no server knows: tokens of services that are a provider's. None is a failure before it says so."""
    theirs = {"authorization": "Bearer eyJ.of-a.provider"}
    for _ in range(3):
        answer = await house.client.post(f"/v2/repository/models/m/{what}", headers=theirs)
        assert (answer.status_code, answer.headers["x-from"]) == (200, "api")
        assert headers_of(answer.json())["authorization"] == theirs["authorization"]
    for method, path in (("GET", f"/v2/repository/models/m/{what}"), ("POST", "/v2/repository/index"), ("GET", "/v2/models/m")):
        answer = await house.client.request(method, path, headers=theirs)
        assert answer.status_code != 200
        assert "x-from" not in answer.headers, "it is the server's own"
    assert len(house.api.seen) == 3


async def test_requests_and_answers_pass_whole(house: House) -> None:
    answer = await house.client.put("/api/v1/models?x=1", content=b"body", headers={"x-mine": "1", "authorization": "Bearer k"})
    said = answer.json()
    assert (answer.status_code, answer.headers["x-from"]) == (200, "api")
    assert (said["method"], said["path"], said["query"], said["body"]) == ("PUT", "/api/v1/models", "x=1", "body")
    assert headers_of(said)["x-mine"] == "1"
    assert headers_of(said)["authorization"] == "Bearer k"
    assert headers_of(said)["host"] == f"127.0.0.1:{house.port}"


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb/%C5%BC",
        "/a%20b?q=%26%3d&q=%C5%BC+x",
        "/a//b/",
        "/a/../b",
        "/a%3Fb",
        "/a?b?c",
        "/a;p=1?",
        "/%",
        "/~tilde'(x)*!$",
        "/api/v1/predict",
        "/api/v1/predict/m/more",
    ],
)
async def test_paths_and_queries_arrive_untouched(house: House, target: str) -> None:
    await house.exchange(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    path, _mark, query = target.partition("?")
    assert [(one["path"], one["query"]) for one in house.api.seen] == [(path, query)]


async def test_the_request_id_is_the_same_on_both_sides_and_in_the_answer(house: House) -> None:
    answer = await house.client.get("/x", headers={"x-request-id": "mine-1"})
    assert headers_of(answer.json())["x-request-id"] == "mine-1"
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    made = await house.client.get("/x", headers={"x-request-id": "not decent"})
    assert made.headers["x-request-id"] == headers_of(made.json())["x-request-id"] != "not decent"
    assert (await house.client.get("/hops")).headers.get_list("x-request-id") == ["the-apis-own"]


@pytest.mark.parametrize("connection", ["keep-alive", "keep-alive, x-modelkeep-address"])
async def test_only_the_server_says_from_which_address_a_request_comes(house: House, connection: str) -> None:
    given = {"X-Modelkeep-Address": "192.0.2.1", "x-forwarded-for": "192.0.2.2", "connection": connection}
    told = (await house.client.get("/x", headers=given)).json()["headers"]
    assert [value for name, value in told if name == "x-modelkeep-address"] == ["127.0.0.1"]


async def test_an_answer_has_one_date(house: House) -> None:
    assert len((await house.client.get("/x")).headers.get_list("date")) == 1


async def test_hop_by_hop_headers_pass_in_neither_direction(house: House) -> None:
    hops = {
        "connection": "close, x-nominated",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "trailer": "x",
        "upgrade": "websocket",
        "proxy-authorization": "Basic eA==",
        "proxy-connection": "keep-alive",
        "x-nominated": "1",
        "x-other": "1",
    }
    answer = await house.client.get("/hops", headers=hops)
    inner = headers_of(house.api.seen[0])
    assert inner.keys() & hops.keys() == {"connection", "x-other"}
    assert inner["connection"] == "close"
    assert not answer.headers.keys() & {"keep-alive", "proxy-authenticate", "x-inner"}


async def test_naming_a_header_in_connection_cannot_take_a_needed_one_away(house: House) -> None:
    body = await house.exchange(
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: close, content-length, host, x-api-key\r\n"
        b"X-Api-Key: k\r\n\r\nbody"
    )
    said = json.loads(body.partition(b"\r\n\r\n")[2])
    assert said["body"] == "body"
    assert headers_of(said)["x-api-key"] == "k"


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_is_streamed(house: House, chunked: bool) -> None:
    digest = hashlib.sha256()
    size = 50 * MB

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(size // MB):
            piece = bytes([at]) * MB
            digest.update(piece)
            yield piece
            if at == 8:
                await house.api.heard.wait()  # would wait for ever, were the upload kept until it is whole
                assert house.api.received < size

    headers = {} if chunked else {"content-length": str(size)}
    answer = await house.client.post("/upload", content=pieces(), headers=headers)
    assert (answer.status_code, answer.text, answer.headers["location"]) == (201, digest.hexdigest(), "/there")
    assert house.api.received == size
    framing = headers_of(house.api.seen[0])
    assert ("transfer-encoding" in framing) == chunked
    assert ("content-length" in framing) != chunked


async def test_an_upload_that_nobody_reads_is_not_kept_in_memory(house: House) -> None:
    size, sent = 60 * MB, 0
    _reader, writer = await house.raw(f"POST /upload?gate=1 HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode())

    async def push() -> None:
        nonlocal sent
        while sent < size:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)

    pushing = asyncio.create_task(push())
    await asyncio.wait({pushing}, timeout=0.6)
    assert sent < 20 * MB
    house.api.gate.set()
    await pushing
    assert (await _reader.readline()).startswith(b"HTTP/1.1 201")
    writer.close()
    await writer.wait_closed()


async def test_a_download_is_streamed_at_the_pace_of_its_reader(house: House) -> None:
    async with house.client.stream("GET", "/download?mb=60") as answer:
        assert int(answer.headers["content-length"]) == 60 * MB
        pieces = answer.aiter_bytes()
        first = await anext(pieces)
        await asyncio.wait({asyncio.create_task(asyncio.Event().wait())}, timeout=0.4)
        assert house.api.sent < 30 * MB
        digest, size = hashlib.sha256(first), len(first)
        async for piece in pieces:
            digest.update(piece)
            size += len(piece)
    assert size == 60 * MB
    assert digest.digest() == hashlib.sha256(PIECE * (60 * MB // len(PIECE))).digest()


async def test_events_arrive_one_by_one(house: House) -> None:
    async with house.client.stream("GET", "/events") as answer:
        lines = answer.aiter_lines()
        for number in range(3):
            house.api.events.put_nowait(f"data: {number}\n".encode())
            assert await anext(lines) == f"data: {number}"
        house.api.events.put_nowait(None)
        assert [line async for line in lines] == []


@pytest.mark.parametrize("path", ["/events", "/hang"])
async def test_a_caller_that_leaves_is_noticed_by_the_app(house: House, path: str) -> None:
    _reader, writer = await house.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    if path == "/hang":
        await house.api.heard.wait()
    else:
        await _reader.readline()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(house.api.left.wait(), 10)


async def test_a_caller_that_leaves_in_mid_upload_is_noticed_by_the_app(house: House) -> None:
    _reader, writer = await house.raw(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc")
    await house.api.heard.wait()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(house.api.left.wait(), 10)


async def test_an_answer_that_is_broken_off_is_broken_off_for_the_caller_too(house: House) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await house.client.get("/break")
    assert (await house.client.get("/x")).status_code == 200


async def test_an_app_that_says_nothing_is_an_error_for_the_caller(house: House) -> None:
    assert (await house.client.get("/mute")).status_code == 500  # uvicorn's own, passed on


@pytest.mark.parametrize("attempt", range(5))
async def test_an_early_refusal_reaches_a_caller_who_is_still_sending(house: House, attempt: int) -> None:
    reader, writer = await house.raw(f"POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: {50 * MB}\r\n\r\n".encode(), PIECE)

    async def push() -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(50 * MB // len(PIECE) - 1):
                writer.write(PIECE)
                await writer.drain()

    pushing = asyncio.create_task(push())
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 413")
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("attempt", range(3))
async def test_an_early_refusal_reaches_a_usual_client(house: House, attempt: int) -> None:
    answer = await house.client.post("/refuse", content=PIECE * 160)
    assert (answer.status_code, answer.text) == (413, "too large")


@pytest.mark.parametrize(("method", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200), ("DELETE", 204), ("HEAD", 404)])
async def test_answers_without_a_body_pass(house: House, method: str, status: int) -> None:
    answer = await house.client.request(method, f"/status/{status}")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", '"7"')
    assert (await house.client.get("/x")).status_code == 200  # and leave the connection sound


async def test_a_head_request_tells_the_length_of_what_it_does_not_bring(house: House) -> None:
    answer = await house.client.head("/download?mb=1")
    assert (answer.headers["content-length"], answer.content) == (str(MB), b"")


async def test_a_caller_may_ask_before_it_sends(house: House) -> None:
    reader, writer = await house.raw(
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"body")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == "body"


async def test_many_requests_use_one_connection_one_after_another(house: House) -> None:
    data = b"".join(
        b"POST /n%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n%s\r\n%d" % (at, b"Connection: close\r\n" * (at == 4), at)
        for at in range(5)
    )
    answers = await house.exchange(data)
    assert [int(body) for body in re.findall(rb'"body": "(\d)"', answers)] == [0, 1, 2, 3, 4]


INNER = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
SMUGGLING = {
    "both framings, length first": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "both framings, chunked first": b"Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n0\r\n\r\n" + INNER,
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    "a list of lengths": b"Content-Length: 0, %d\r\n\r\n" % len(INNER) + INNER,
    "a signed length": b"Content-Length: +0\r\n\r\n" + INNER,
    "a length in hex": b"Content-Length: 0x0\r\n\r\n" + INNER,
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunked, but not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "two encodings": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + INNER,
    "a space before the colon": b"Content-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n" + INNER,
    "a folded header": b"X: 1\r\n Content-Length: 5\r\nContent-Length: 0, 1\r\n\r\n" + INNER,
    "a bare carriage return": b"X: 1\rContent-Length: 40\r\nContent-Length : 0\r\n\r\n" + INNER,
    "a null byte": b"X: \x00\r\nContent-Length: 0\r\n\r\n" + INNER,
    "a chunk size too long": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\n" + INNER,
}


@pytest.mark.parametrize("shape", SMUGGLING)
async def test_smuggling_shapes_are_refused(house: House, shape: str) -> None:
    answer = await house.exchange(b"POST /outer HTTP/1.1\r\nHost: h\r\n" + SMUGGLING[shape])
    assert "/smuggled" not in [one["path"] for one in house.api.seen]
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 500")) or not answer
    assert (await house.client.get("/x")).status_code == 200


@pytest.mark.parametrize("ends", [b"\r\n\r\n" + INNER, b"\r\n" + INNER])
async def test_what_follows_a_body_never_becomes_part_of_an_inner_request(house: House, ends: bytes) -> None:
    await house.exchange(b"POST /outer HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc" + ends)
    assert [one["path"] for one in house.api.seen] == ["/outer"]


@pytest.mark.parametrize(
    "head", [b"GET /\xff HTTP/1.1\r\nHost: h\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n", b"GET /x HTTP/1.1\r\n"]
)
async def test_heads_that_one_parser_takes_and_another_does_not_are_answered_at_once(house: House, head: bytes) -> None:
    answer = await house.exchange(head + b"Connection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))


# ---- without a door: what only the forward itself can show


def one_request(path: str = "/hang") -> tuple[Request, dict[str, Any], Callable[[], Awaitable[dict[str, Any]]]]:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"h")],
    }
    return Request.of(scope, receive), scope, receive


@contextlib.asynccontextmanager
async def api_at(path: Path) -> AsyncIterator[Api]:
    api = Api()
    with socket.socket(socket.AF_UNIX) as inner:
        inner.bind(str(path))
        inner.listen()
        server = uvicorn.Server(config(api))
        serving = asyncio.create_task(server._serve([inner]))
        try:
            yield api
        finally:
            server.should_exit = True
            await serving


async def test_without_an_api_the_caller_is_told_to_come_back(tmp_path: Path) -> None:
    request, scope, receive = one_request()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))  # nobody listens on it any more
    for name in ("none.sock", "deaf.sock"):
        with pytest.raises(ApiDown) as refused:
            await Forward(tmp_path / name)(request, scope, receive, lambda _message: asyncio.sleep(0))
        assert refused.value.retry_after_s


async def test_an_answer_is_not_lost_when_the_api_hangs_up_on_an_upload(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        writer.close()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": PIECE, "more_body": True}

    forward = Forward(tmp_path / "api.sock")
    async with await asyncio.start_unix_server(refuse, tmp_path / "api.sock"):
        for _ in range(50):
            _request, scope, _receive = one_request()
            scope["headers"].append((b"content-length", b"1000000000"))
            assert await forward(Request.of(scope, receive), scope, receive, lambda _message: asyncio.sleep(0)) == 413


async def test_an_api_that_says_nothing_for_too_long_counts_as_down(tmp_path: Path) -> None:
    async with api_at(tmp_path / "api.sock") as api:
        request, scope, receive = one_request()
        with pytest.raises(ApiDown):
            await Forward(tmp_path / "api.sock", silence_s=0.1)(request, scope, receive, lambda _message: asyncio.sleep(0))
        await asyncio.wait_for(api.left.wait(), 10)


async def test_draining_ends_streams_of_events_and_lets_all_else_finish(tmp_path: Path) -> None:
    async with api_at(tmp_path / "api.sock") as api:
        forward = Forward(tmp_path / "api.sock")
        sent: list[dict[str, Any]] = []
        begun = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            begun.set()

        request, scope, receive = one_request("/events")
        stream = asyncio.create_task(forward(request, scope, receive, send))
        await begun.wait()
        slow = asyncio.create_task(forward(*one_request("/upload?gate"), send))
        forward.drain()
        assert await asyncio.wait_for(stream, 10) == 200
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        await asyncio.wait_for(api.left.wait(), 10)
        assert await asyncio.wait_for(slow, 10) == 201


async def test_a_socket_deeper_than_an_address_may_be_long_is_found(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with api_at(tmp_path / "api.sock"):
        (deep / "api.sock").symlink_to(tmp_path / "api.sock")
        request, scope, receive = one_request("/status/204")
        assert await Forward(deep / "api.sock")(request, scope, receive, lambda _message: asyncio.sleep(0)) == 204
