"""The edge of a running server: other hosts, other origins, requests that could be read in two ways, slow callers, and many."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from onnx import TensorProto

from fixtures.artifacts import onnx_identity
from fixtures.described import operations
from fixtures.installation import Installation, eventually, installed

ORIGIN = "https://app.example.org"
BODY = json.dumps({"inputs": [[1.0, 2.0]]}).encode()
PREDICT = "/api/v1/predict/echo"
MOST = 600
HEALTH = {"/healthz", "/readyz", "/health", "/ping", "/version", "/v2/health/live", "/v2/health/ready", "/api/v1/health", "/v2"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("edge")
    environment = {
        "MODELKEEP_SERVER__CORS_ORIGINS": ORIGIN,
        "MODELKEEP_SERVER__HEADERS_S": "3",
        "MODELKEEP_SERVER__MAX_CONNECTIONS": str(MOST),
    }
    with installed(folder / "data", **environment) as installation:
        file = folder / "echo.onnx"
        file.write_bytes(onnx_identity(TensorProto.FLOAT))
        with installation.client() as client:
            client.push(file, "echo")
        yield installation


def said(house: Installation, *pieces: bytes) -> bytes:
    """All that the server says to these bytes until it closes."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as line:
        line.sendall(b"".join(pieces))
        answer = b""
        try:
            while piece := line.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass  # it closed with something of ours unread
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def request(path: str, *headers: bytes, method: str = "GET", body: bytes = b"", host: bytes = b"localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: " + host, *headers]
    return b"\r\n".join([*lines, *([b"Content-Length: %d" % len(body)] if body else []), b"", body])


def asks(house: Installation) -> bytes:
    return b"X-API-Key: " + house.key.encode()


# ---- hosts


def misdirected(house: Installation) -> tuple[set[str], set[str]]:
    """The addresses that refuse a request for another host, and those that do not."""
    refused, answered = set(), set()
    for method, path, _operation in operations():
        concrete = re.sub(r"\{[^}]*\}", "echo", path)
        raw = request(concrete, asks(house), b"Connection: close", method=method, host=b"evil.example")
        (refused if statuses(said(house, raw)) == [421] else answered).add(path)
    return refused, answered


def test_no_address_but_health_answers_for_another_host(house: Installation) -> None:
    refused, answered = misdirected(house)
    assert answered == HEALTH & answered
    assert len(refused) > 50
    predict = request(PREDICT, asks(house), b"Connection: close", method="POST", body=BODY, host=b"evil.example:8080")
    answer = said(house, predict)
    assert statuses(answer) == [421]
    assert b'"host_unknown"' in answer


def test_with_the_check_off_the_same_request_is_answered(tmp_path: Path) -> None:
    with installed(tmp_path / "data", MODELKEEP_SERVER__HOSTS="*") as open_house:
        refused, answered = misdirected(open_house)
    assert refused == set()
    assert len(answered) > 50


# ---- origins


@pytest.mark.parametrize("path", [PREDICT, "/api/v1/me"])
def test_pages_of_an_allowed_origin_may_ask_and_read(house: Installation, path: str) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    before = httpx.options(house.url + path, headers=asked)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == ORIGIN
    assert before.headers["access-control-allow-headers"] == "x-api-key"
    assert "access-control-allow-credentials" not in before.headers
    headers = {"origin": ORIGIN, "x-api-key": house.key}
    answer = (
        httpx.get(house.url + path, headers=headers)
        if path != PREDICT
        else httpx.post(house.url + path, headers=headers, content=BODY)
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["vary"] == "origin"
    refused = httpx.get(house.url + "/api/v1/me", headers={"origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


@pytest.mark.parametrize(
    "origin", ["null", "https://app.example.org.evil.com", "HTTPS://APP.EXAMPLE.ORG", "http://app.example.org"]
)
@pytest.mark.parametrize("path", [PREDICT, "/api/v1/me"])
def test_pages_of_others_may_not(house: Installation, path: str, origin: str) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST"}
    for answer in (
        httpx.options(house.url + path, headers=asked),
        httpx.post(house.url + path, headers={"origin": origin, "x-api-key": house.key}, content=BODY),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


# ---- what browsers are told


def test_every_answer_says_how_it_is_to_be_treated(house: Installation) -> None:
    with house.http() as http:
        for path in ("/api/v1/me", "/api/v1/nothing", "/info", "/healthz"):
            answer = http.get(path)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
            assert answer.headers["cache-control"] == "no-store", path
            assert "strict-transport-security" not in answer.headers
        prediction = http.post(PREDICT, content=BODY)
        assert prediction.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in http.get("/api/v1/me").headers["content-security-policy"]
        assert http.get("/api/v1/me").headers["referrer-policy"] == "no-referrer"
        for page in ("/docs", "/redoc"):
            assert "unsafe-inline" not in http.get(page).headers["content-security-policy"]


# ---- one way to read a request


def inner(name: str) -> bytes:
    return request(f"/api/v1/smuggled-{name}", b"Connection: close")


def shapes(start: str, key: bytes) -> dict[str, bytes]:
    """Requests that two readers could take for two different things, each with another behind it."""
    head = start.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + key + b"\r\n"
    after = inner("x")
    bare = b"%s HTTP/1.1\nHost: localhost\n%s\nContent-Length: 0\n\n" % (start.encode(), key)
    method, target = start.split()
    return {
        "CL and TE": head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + after,
        "TE and CL": head + b"Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n0\r\n\r\n" + after,
        "CL and CL": head + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(after) + after,
        "the same CL twice": head + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" + after,
        "a list of CL": head + b"Content-Length: 0, %d\r\n\r\n" % len(after) + after,
        "CL with a sign": head + b"Content-Length: +0\r\n\r\n" + after,
        "CL in hex": head + b"Content-Length: 0x0\r\n\r\n" + after,
        "CL with a space inside": head + b"Content-Length: 0 1\r\n\r\n" + after,
        "TE xchunked": head + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + after,
        "TE chunked, identity": head + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + after,
        "TE quoted": head + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + after,
        "TE with a vertical tab": head + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + after,
        "TE : chunked": head + b"Content-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n" + after,
        "TE with NUL": head + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n" + after,
        "TE folded": head + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + after,
        "a folded header": head + b"X: 1\r\n Content-Length: 5\r\nContent-Length: 0, 1\r\n\r\n" + after,
        "a first header that is folded": head.replace(b"Host:", b" Host:", 1) + b"Content-Length: 0\r\n\r\n" + after,
        "NUL in a value": head + b"X: \x00\r\nContent-Length: 0\r\n\r\n" + after,
        "NUL in a name": head + b"X\x00: 1\r\nContent-Length: 0\r\n\r\n" + after,
        "a bare CR": head + b"X: 1\rContent-Length: 40\r\nContent-Length : 0\r\n\r\n" + after,
        "bare LF": bare + after,
        "a bare LF in the chunks": head + b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n" + after,
        "a chunk size too long": head + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\n" + after,
        "a chunk size with a sign": head + b"Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n" + after,
        "a chunk with a longer body": head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n" + after,
        "absolute form": head.replace(target.encode(), b"http://evil.example" + target.encode(), 1)
        + b"Content-Length: 0\r\n\r\n"
        + after,
        "authority form": head.replace(target.encode(), b"evil.example:80", 1) + b"Content-Length: 0\r\n\r\n" + after,
        "CONNECT": head.replace(method.encode(), b"CONNECT", 1) + b"Content-Length: 0\r\n\r\n" + after,
        "two hosts": head + b"Host: evil.example\r\nContent-Length: 0\r\n\r\n" + after,
        "no host": head.replace(b"Host: localhost\r\n", b"", 1) + b"Content-Length: 0\r\n\r\n" + after,
        "a fragment without a slash": head.replace(target.encode(), b"#" + target.encode(), 1) + b"\r\n" + after,
        "HTTP/1.2": head.replace(b"HTTP/1.1", b"HTTP/1.2", 1) + b"Content-Length: 0\r\n\r\n" + after,
        "HTTP/2": head.replace(b"HTTP/1.1", b"HTTP/2.0", 1) + b"Content-Length: 0\r\n\r\n" + after,
        "too many headers": head + b"".join(b"X%d: 1\r\n" % at for at in range(200)) + b"Content-Length: 0\r\n\r\n" + after,
        "headers too long": head + b"X: " + b"x" * 400_000 + b"\r\nContent-Length: 0\r\n\r\n" + after,
    }


STARTS = {"what is forwarded": "POST /api/v1/models", "a prediction": f"POST {PREDICT}"}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shape", shapes("POST /x", b""))
def test_what_could_be_read_in_two_ways_is_refused_and_what_follows_is_never_read(
    house: Installation, shape: str, start: str
) -> None:
    before = house.log.read_bytes().count(b"smuggled-x")
    answer = said(house, shapes(STARTS[start], asks(house))[shape])
    assert statuses(answer) in ([400], [431], [505], []), answer[:600]
    assert house.log.read_bytes().count(b"smuggled-x") == before
    assert httpx.post(house.url + PREDICT, content=BODY, headers={"x-api-key": house.key}).status_code == 200


def test_the_control_what_is_behind_a_plain_request_is_read_by_the_api(house: Installation) -> None:
    before = house.log.read_bytes().count(b"smuggled-x")
    answer = said(house, request("/api/v1/me", asks(house)), inner("x"))
    assert statuses(answer) == [200, 401]
    eventually(lambda: house.log.read_bytes().count(b"smuggled-x") == before + 1, "its line in the log")


@pytest.mark.parametrize("start", STARTS)
def test_extensions_and_trailers_of_chunks_change_nothing(house: Installation, start: str) -> None:
    raw = STARTS[start].encode() + b" HTTP/1.1\r\nHost: localhost\r\nX-API-Key: wrong\r\nConnection: close\r\n"
    chunks = b'%x;name="a\\"b"\r\n%s\r\n0\r\n%s\r\nHost: evil.example\r\n\r\n' % (len(BODY), BODY, asks(house))
    assert statuses(said(house, raw, b"Transfer-Encoding: chunked\r\n\r\n", chunks)) == [401]  # no key out of a trailer


# ---- slow callers, and many


def opened(house: Installation, count: int, start: bytes) -> list[socket.socket]:
    lines = [socket.create_connection(("127.0.0.1", house.port), timeout=30) for _ in range(count)]
    for line in lines:
        line.sendall(start)
    return lines


def test_slow_callers_leave_predictions_answering_and_are_ended(house: Installation) -> None:
    slow = opened(house, 500, b"POST /api/v1/predict/echo HTTP/1.1\r\nHost: localhost\r\nX-a: ")
    try:
        with house.http() as http:
            answered = sum(http.post(PREDICT, content=BODY).status_code == 200 for _ in range(100))
        assert answered == 100
        ends = [line.recv(1000) for line in slow]  # the server speaks, though nobody has asked it anything
    finally:
        for line in slow:
            line.close()
    assert {end[:13] for end in ends} == {b"HTTP/1.1 408 "}


def test_when_all_connections_are_taken_others_are_told_so_and_health_answers(house: Installation) -> None:
    lines = opened(house, MOST, request("/healthz"))
    try:
        assert {line.recv(1000)[:12] for line in lines} == {b"HTTP/1.1 200"}
        crowded = [
            said(house, request(PREDICT, asks(house), b"Connection: close", method="POST", body=BODY)),
            said(house, request("/api/v1/me", asks(house), b"Connection: close")),
        ]
        assert [statuses(one) for one in crowded] == [[503], [503]]
        assert statuses(said(house, request("/readyz", b"Connection: close"))) == [200]
        lines[0].sendall(request(PREDICT, asks(house), method="POST", body=BODY))
        assert lines[0].recv(1000).startswith(b"HTTP/1.1 200"), "whoever is there goes on"
    finally:
        for line in lines:
            line.close()
    eventually(lambda: statuses(said(house, request("/api/v1/me", asks(house), b"Connection: close"))) == [200], "a place")
