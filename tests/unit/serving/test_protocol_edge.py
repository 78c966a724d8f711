"""What the HTTP protocol refuses before anything is looked for, on both ways of a request; over real connections."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn

from modelkeep.app.port import Port
from modelkeep.infra.certificates import Authority
from modelkeep.infra.tls import TlsFiles, read
from modelkeep.serving.settings import Callers

BODY = b'{"inputs": [[1, 2]]}'
PREDICT = b"POST /api/v1/predict/m HTTP/1.1\r\n"
REST = b"X-API-Key: all\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(BODY), BODY)


class Opened:
    """A port with a door behind it, on which `ask` says something and hears all of the answer."""

    def __init__(self, port: Port, http: uvicorn.Server, address: tuple[str, int]) -> None:
        self.port = port
        self.http = http
        self.address = address

    async def ask(self, *pieces: bytes, trust: ssl.SSLContext | None = None) -> bytes:
        reader, writer = await asyncio.open_connection(*self.address, ssl=trust)
        async with asyncio.timeout(10):
            writer.write(b"".join(pieces))
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
        writer.close()
        return answer


@pytest.fixture
async def opened(house) -> AsyncIterator[Opened]:
    import socket

    await house.serve("m")
    http = uvicorn.Server(uvicorn.Config(house.door, ws="none", lifespan="off", log_config=None, proxy_headers=False))
    http.config.load()
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = Port(http, door, Callers(most=3))
        await port.open(None)
        yield Opened(port, http, door.getsockname())
        port.close()


def status(answer: bytes) -> bytes:
    return answer[9:12]


async def test_a_plain_prediction_is_answered(opened: Opened) -> None:
    answer = await opened.ask(PREDICT, b"Host: h\r\n", REST)
    assert status(answer) == b"200"


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        (PREDICT, b"400"),
        (PREDICT + b"Host: a\r\nHost: b\r\n", b"400"),
        (PREDICT + b"Host: a\r\nHost: a\r\n", b"400"),
        (b"POST http://h/api/v1/predict/m HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"POST h:80 HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"POST /api/v1/predict/m HTTP/2.0\r\nHost: h\r\n", b"505"),
        (b"POST /api/v1/predict/m?%s HTTP/1.1\r\nHost: h\r\n" % (b"x" * 8192), b"414"),
        (PREDICT + b"Host: h\r\n" + b"".join(b"x%d: 1\r\n" % at for at in range(100)), b"431"),
    ],
    ids=["no host", "two hosts", "the same host twice", "absolute", "authority", "HTTP/2", "long", "many headers"],
)
async def test_a_head_that_is_unclear_or_too_large_is_refused(opened: Opened, head: bytes, refused: bytes) -> None:
    answer = await opened.ask(head, REST)
    assert status(answer) == refused
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


async def test_headers_that_never_end_are_not_kept(opened: Opened) -> None:
    reader, writer = await asyncio.open_connection(*opened.address)
    writer.write(PREDICT)
    sent = 0
    try:
        while not reader.at_eof() and sent < 50_000_000:
            writer.write(b"x%d: %s\r\n" % (sent, b"x" * 1000))
            await writer.drain()
            sent += 1000
            await asyncio.sleep(0)
    except ConnectionError:
        pass  # it has closed
    writer.close()
    assert sent < 50_000_000


async def test_an_old_client_that_names_no_host_is_answered(opened: Opened) -> None:
    assert status(await opened.ask(b"GET /healthz HTTP/1.0\r\n\r\n")) == b"200"


async def test_trailers_are_no_headers(opened: Opened) -> None:
    head = PREDICT + b"Host: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"%x\r\n%s\r\n0\r\nX-API-Key: all\r\n\r\n" % (len(BODY), BODY)
    assert status(await opened.ask(head, chunks)) == b"401"
    keyed = head.replace(b"Host", b"X-API-Key: all\r\nHost")
    assert status(await opened.ask(keyed, chunks)) == b"200"  # the control


async def test_beyond_the_most_connections_only_health_is_answered(opened: Opened) -> None:
    lines = [await asyncio.open_connection(*opened.address) for _ in range(3)]
    for _reader, writer in lines:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    for reader, _writer in lines:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert status(await opened.ask(PREDICT, b"Host: h\r\n", REST)) == b"503"
    assert status(await opened.ask(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")) == b"200"
    for _reader, writer in lines:
        writer.close()
        await writer.wait_closed()
    while opened.http.server_state.connections:
        await asyncio.sleep(0)
    assert status(await opened.ask(PREDICT, b"Host: h\r\n", REST)) == b"200"


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"", b""),
        (b"GET /", b"HTTP/1.1 408"),
        (PREDICT + b"Host: h\r\n", b"HTTP/1.1 408"),
        (PREDICT + b"Host: h\r\nX-API-Key: all\r\nContent-Length: 50\r\n\r\n{", b"HTTP/1.1 408"),
        (PREDICT + b"Host: h\r\nX-API-Key: all\r\nContent-Length: 500000\r\n\r\n{", b"HTTP/1.1 408"),
    ],
    ids=["nothing", "a line", "a head", "a body", "a large body"],
)
async def test_a_slow_caller_is_told_and_ended(opened: Opened, start: bytes, told: bytes) -> None:
    reader, writer = await asyncio.open_connection(*opened.address)
    writer.write(start)
    while not any(one.pace.received or not start for one in opened.http.server_state.connections):  # type: ignore[union-attr]
        await asyncio.sleep(0)
    for _ in range(5):  # what was sent has been read
        await asyncio.sleep(0)
    assert sum([await opened.port.tend(1.0) for _ in range(30)]) >= 1
    async with asyncio.timeout(10):
        assert (await reader.read())[: len(told) or None] == told
    writer.close()


def sign(folder: Path) -> ssl.SSLContext:
    now = datetime.now(UTC)
    certificate, key = Authority(folder, now).sign_server(["127.0.0.1"], days=1, force=True)
    return read(TlsFiles(str(certificate), str(key)), now).context()


async def test_who_connects_at_once_and_shakes_hands_later_is_counted_all_the_same(opened: Opened, tmp_path: Path) -> None:
    await opened.port.open(sign(tmp_path))
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    lines = [await asyncio.open_connection(*opened.address) for _ in range(5)]
    while len(opened.port._shaking) < len(lines):
        await asyncio.sleep(0)
    said = []
    for reader, writer in lines:
        await writer.start_tls(trust, server_hostname="127.0.0.1")
        writer.write(PREDICT + b"Host: h\r\n" + REST.replace(b"Connection: close\r\n", b""))
        said.append(status(await reader.readline()))
    assert said == [b"200"] * 3 + [b"503"] * 2
    for _reader, writer in lines:
        writer.close()


async def test_while_many_have_yet_to_shake_hands_nobody_else_is_accepted(opened: Opened, tmp_path: Path) -> None:
    port = opened.port
    port._strangers = 4
    await port.open(sign(tmp_path))
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    there = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    reader, writer = await asyncio.open_connection(*opened.address, ssl=trust)
    silent = [await asyncio.open_connection(*opened.address) for _ in range(4)]
    while port._accepting is not None:
        await asyncio.sleep(0)
    await port.tend(1.0)
    assert port._accepting is None, "they are still there"
    writer.write(there)
    assert status(await reader.readline()) == b"200", "whoever is there goes on"
    waiting = asyncio.create_task(opened.ask(there[:-2] + b"Connection: close\r\n\r\n", trust=trust))
    for _reader, other in silent:
        other.close()
    port._shaking = dict.fromkeys(port._shaking, 0.0)  # their time is over
    await port.tend(1.0)
    assert status(await waiting) == b"200"
    writer.close()


async def test_over_tls_a_plain_prediction_goes_the_same_way_and_a_new_certificate_takes_no_connection_away(
    opened: Opened, tmp_path: Path
) -> None:
    await opened.port.open(sign(tmp_path))
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    reader, writer = await asyncio.open_connection(*opened.address, ssl=trust)
    raw = PREDICT + b"Host: h\r\n" + REST.replace(b"Connection: close\r\n", b"")
    for _ in range(3):
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        assert status(head) == b"200"
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["outputs"]["sum"] == [3.0]
        before = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await opened.port.open(sign(tmp_path))
        for _ in range(8):  # nothing accepts with the one before
            _other, fresh = await asyncio.open_connection(*opened.address, ssl=trust)
            assert fresh.get_extra_info("ssl_object").getpeercert(binary_form=True) != before
            fresh.close()
    writer.close()
    assert status(await opened.ask(PREDICT, b"Host: h\r\n", REST, trust=trust)) == b"200"
