"""The server's HTTP protocol over real connections: plain predictions, which go without ASGI, and all that is unusual."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from modelkeep.serving import protocol
from modelkeep.serving.protocol import HttpProtocol

PATH = b"/api/v1/predict/m"
BODY = b'{"inputs": [[1, 2]]}'


class Line:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: ServerState) -> None:
        self.reader = reader
        self.writer = writer
        self.state = state

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def ended(self) -> bool:
        """Whether the server has closed the connection, with nothing left to read."""
        async with asyncio.timeout(10):
            return await self.reader.read() == b""

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))


def request(
    body: bytes = BODY,
    *,
    method: bytes = b"POST",
    path: bytes = PATH,
    version: bytes = b"1.1",
    headers: tuple[bytes, ...] = (),
    length: bytes | None = None,
    key: bytes = b"all",
) -> bytes:
    lines = [b"%s %s HTTP/%s" % (method, path, version), b"Host: h", b"X-API-Key: " + key, b"Content-Type: application/json"]
    lines += [b"Content-Length: " + (length or b"%d" % len(body)), *headers, b"", body]
    return b"\r\n".join(lines)


def chunked(body: bytes, at: int, *, path: bytes = PATH, key: bytes = b"all") -> bytes:
    pieces = [piece for piece in (body[:at], body[at:]) if piece]
    head = (
        b"POST %s HTTP/1.1\r\nHost: h\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head % (path, key) + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


@pytest.fixture
def asgi(house, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that went the way of ASGI."""
    taken: list[str] = []
    door = type(house.door).__call__

    async def noting(self: Any, scope: Any, receive: Any, send: Any) -> None:
        taken.append(scope["path"])
        await door(self, scope, receive, send)

    monkeypatch.setattr(type(house.door), "__call__", noting)
    return taken


@pytest.fixture
async def listen(house) -> AsyncIterator[Callable[..., Any]]:
    """Open the door on loopback, and return what makes lines to it."""
    servers: list[asyncio.Server] = []
    lines: list[Line] = []
    states: list[ServerState] = []

    async def opened(**options: Any) -> Callable[[], Any]:
        config = uvicorn.Config(
            house.door, http=HttpProtocol, ws="none", lifespan="off", log_config=None, proxy_headers=False, **options
        )
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Sat, 21 Nov 2026 12:00:00 GMT")]
        states.append(state)
        server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        servers.append(server)
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # a caller that does not read is soon noticed

        async def line() -> Line:
            ends = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1], limit=1 << 24)
            lines.append(Line(*ends, state))
            return lines[-1]

        return line

    yield opened
    for one in lines:
        one.writer.close()
    for server in servers:
        server.close()
    async with asyncio.timeout(10):
        while any(state.connections for state in states):
            await asyncio.sleep(0)


@pytest.fixture
async def line(house, listen: Callable[..., Any]) -> Line:
    await house.serve("m")
    return await (await listen())()


async def test_a_plain_prediction_goes_without_asgi_and_is_answered(line: Line, asgi: list[str]) -> None:
    line.send(request(headers=(b"X-Request-ID: mine",)))
    status, headers, body = await line.answer()
    assert (status, json.loads(body)["outputs"]["sum"]) == (200, [3.0])
    assert headers["x-request-id"] == "mine"
    assert headers["x-prediction-id"] == json.loads(body)["id"]
    assert "date" in headers
    assert asgi == []


async def test_a_plain_prediction_of_open_inference_goes_without_asgi_too(line: Line, asgi: list[str]) -> None:
    line.send(request(V2_BODY, path=V2))
    status, _headers, body = await line.answer()
    assert (status, json.loads(body)["id"], json.loads(body)["outputs"][0]["data"]) == (200, "mine", [3.0])
    assert asgi == []


@pytest.mark.parametrize(
    "unusual",
    [
        request(path=PATH + b"?version=1"),
        request(path=b"/api/v1/predict/%6d"),
        request(version=b"1.0", headers=(b"Connection: keep-alive",)),
        request(path=b"/predict?model=m"),
        chunked(BODY, 5),
        request(b'{"inputs": [[1, 2]]' + b" " * protocol._LARGEST + b"}"),
    ],
    ids=["query", "escaped", "1.0", "other", "chunked", "large"],
)
async def test_what_is_unusual_goes_the_way_of_asgi_to_the_same_answer(line: Line, asgi: list[str], unusual: bytes) -> None:
    line.send(unusual)
    status, _headers, body = await line.answer()
    assert status == 200
    assert "3.0" in body.decode()
    assert len(asgi) == 1


async def test_who_waits_to_be_told_to_continue_is_told(line: Line) -> None:
    head, _, body = request(headers=(b"Expect: 100-continue",)).partition(b"\r\n\r\n")
    line.send(head, b"\r\n\r\n")
    assert (await line.answer())[0] == 100
    line.send(body)
    assert (await line.answer())[0] == 200


async def test_an_offer_of_another_protocol_is_declined_and_the_request_answered(line: Line) -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA")
    for one in (request(headers=offer), request(), chunked(BODY, 4).replace(b"Host: h", b"Host: h\r\n" + b"\r\n".join(offer))):
        line.send(one)
        status, _headers, body = await line.answer()
        assert (status, json.loads(body)["outputs"]["sum"]) == (200, [3.0])
    line.send(request(method=b"GET", path=b"/healthz", body=b"", headers=(*offer, b"Connection: close")))
    assert (await line.answer())[0] == 200
    assert await line.ended()


async def test_any_number_of_offers_may_come_in_one_packet(line: Line) -> None:
    count = 2000
    line.send(*[b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"] * count)
    assert [(await line.answer())[0] for _ in range(count)] == [200] * count


async def test_nobody_gets_through_to_somewhere_else(line: Line) -> None:
    line.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n")
    assert (await line.answer())[0] == 400
    assert await line.ended()


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE"])
async def test_another_method_is_told_which_one_it_is(line: Line, method: bytes) -> None:
    line.send(request(method=method))
    status, headers, _body = await line.answer()
    assert (status, headers["allow"]) == (405, "POST")


V2 = b"/v2/models/m/infer"
PATHS = [
    PATH,
    V2,
    b"/v2/models/nobody/infer",
    b"/api/v1/predict/nobody",
    b"/api/v1/predict/\xc3\xa9",
    b"/v1/models/m:predict",
    b"/v1/models/nobody:predict",
    b"/v1/models/m/versions/1:predict",
    b"/v1/models/m/versions/9:predict",
    b"/v1/models/m:classify",
]
V2_BODY = b'{"id": "mine", "inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}'
BODIES = st.sampled_from(
    [
        BODY,
        b"",
        b"{",
        b"[]",
        b'{"inputs": []}',
        b'{"inputs": [[1]]}',
        b'{"inputs": [[1, "x"]]}',
        b'{"inputs": [[1, 2], [3, 4]], "outputs": ["sum"]}',
        b'{"inputs": [[1, 2]], "version": 9}',
        b'{"inputs": [{"a": 1, "b": 2}]}',
        b'{"inputs": [[1, 1e999]]}',
        V2_BODY,
        b'{"instances": [[1, 2]]}',
        b'{"instances": [{"a": 1, "b": 2}]}',
        b'{"instances": []}',
        b"\xff\xfe",
    ]
)


@given(
    body=st.one_of(BODIES, st.binary(max_size=40)),
    path=st.sampled_from(PATHS),
    key=st.sampled_from([b"all", b"predict", b"read", b"unknown"]),
    at=st.integers(0, 40),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_the_same_answer(both_ways, body: bytes, path: bytes, key: bytes, at: int) -> None:
    plain, through_asgi = both_ways(request(body, path=path, key=key), chunked(body, at, path=path, key=key))
    assert plain == through_asgi


@pytest.fixture
def both_ways(served_once_wired) -> Callable[[bytes, bytes], tuple[Any, Any]]:
    def without_ids(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str], Any]:
        status, headers, body = answer
        kept = {name: value for name, value in headers.items() if name not in {"date", "x-request-id", "x-prediction-id"}}
        if not headers["content-type"].endswith("json"):
            return status, kept, body
        content = json.loads(body)
        for name in ("id", "request_id", "parameters"):
            content.pop(name, None)
        return status, kept, content

    def ask(*raws: bytes) -> tuple[Any, Any]:
        first, second = (without_ids(served_once_wired(raw)) for raw in raws)
        return first, second

    return ask


@given(cuts=st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_may_arrive_in_any_pieces(served_once_wired, cuts: list[int]) -> None:
    whole = request()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(places) if end > start]
    status, _headers, body = served_once_wired(*pieces)
    assert (status, json.loads(body)["outputs"]["sum"]) == (200, [3.0])


async def test_requests_in_one_packet_are_answered_in_their_order(line: Line) -> None:
    line.send(*(request(b'{"inputs": [[%d, 0]]}' % at) for at in range(30)))
    answers = [await line.answer() for _ in range(30)]
    assert [json.loads(body)["outputs"]["sum"] for _status, _headers, body in answers] == [[float(at)] for at in range(30)]


async def test_a_plain_one_waits_behind_one_of_asgi(line: Line) -> None:
    line.send(chunked(b'{"inputs": [[7, 0]]}', 3), request(), request(method=b"GET", path=b"/healthz"), request())
    statuses = [await line.answer() for _ in range(4)]
    assert [status for status, _headers, _body in statuses] == [200] * 4
    assert json.loads(statuses[0][2])["outputs"]["sum"] == [7.0]
    assert json.loads(statuses[2][2])["status"] == "ok"


async def test_a_connection_is_closed_when_its_caller_wants_it(line: Line) -> None:
    line.send(request(headers=(b"Connection: close",)))
    status, headers, _body = await line.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert await line.ended()


@pytest.mark.parametrize("length", [b"x", b"-1", b"+5", b"1, 2", b"5\r\nContent-Length: 6"])
async def test_a_length_that_is_none_ends_the_connection(line: Line, length: bytes) -> None:
    line.send(request(length=length))
    assert (await line.answer())[0] == 400
    assert await line.ended()


async def test_answers_that_nobody_reads_wait_in_order_and_whole(line: Line) -> None:
    rows = [[at, 0.123456789] for at in range(1500)]
    body = json.dumps({"inputs": rows}).encode()
    assert len(body) < protocol._LARGEST
    sock = line.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)  # with less than a segment, each answer takes a second
    line.reader._transport.pause_reading()  # type: ignore[attr-defined]
    count = 60
    for _ in range(count):
        line.send(request(body))
    await asyncio.wait_for(line.writer.drain(), 10)
    async with asyncio.timeout(20):
        while not any(one.transport.get_write_buffer_size() for one in line.state.connections):
            await asyncio.sleep(0.001)
    line.reader._transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(count):
        status, _headers, answer = await line.answer()
        assert status == 200
        assert json.loads(answer)["outputs"]["echo"] == rows


async def test_a_caller_that_leaves_frees_its_place(house, line: Line) -> None:
    version = next(iter(house.versions))
    house.gates[version] = asyncio.Event()
    line.send(request())
    route = house.router.find("m")
    async with asyncio.timeout(10):
        while not route.underway.count:
            await asyncio.sleep(0)
        line.writer.transport.abort()
        while route.underway.count:
            await asyncio.sleep(0)
    house.gates[version].set()


async def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not(house, listen: Callable[..., Any]) -> None:
    version = await house.serve("m")
    opened = await listen(timeout_keep_alive=0.2)
    idle, waiting = await opened(), await opened()
    house.gates[version] = asyncio.Event()
    house.gates[version].set()
    for one in (idle, waiting):
        one.send(request())
        assert (await one.answer())[0] == 200
    house.gates[version].clear()
    waiting.send(request())
    assert await idle.ended()
    house.gates[version].set()
    assert (await waiting.answer())[0] == 200
    assert await waiting.ended()


async def test_a_connection_in_use_outlives_many_idle_times(house, listen: Callable[..., Any]) -> None:
    await house.serve("m")
    line = await (await listen(timeout_keep_alive=0.1))()
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.5
    while loop.time() < until:
        line.send(request())
        assert (await line.answer())[0] == 200
        await asyncio.sleep(0.01)
    assert await line.ended()
