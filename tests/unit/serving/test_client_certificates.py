"""Keys that go with client certificates: real handshakes, on each way of a request, and over gRPC."""

import asyncio
import hashlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import uvicorn
from grpc import aio

from fixtures.authority import Callers, der_of
from fixtures.rpcs import ONE, SERVICE, server_of
from fixtures.standings import through
from modelkeep.app.port import Port
from modelkeep.contracts.access import Scope
from modelkeep.contracts.certificates import KeyCertificate
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.infra.client_certificates import FORWARDED, fingerprint, read
from modelkeep.infra.tls import Renewing, TlsFiles
from modelkeep.infra.tls import read as read_tls
from modelkeep.serving.settings import Callers as Patience

SCORING = "uri:spiffe://example.org/scoring"
ROWS = b'{"inputs": [[1, 2]]}'
TENSOR = b'{"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}'
DOORS = {
    "whole": ("/api/v1/predict/m", ROWS),
    "asgi": ("/api/v1/predict/m", b" " * 70_000 + ROWS),
    "v2": ("/v2/models/m/infer", TENSOR),
    "sagemaker": ("/endpoints/m/invocations", ROWS),
    "mlflow": ("/invocations", b'{"inputs": [[1, 2]]}'),
}


class Clock:
    """Time that is moved by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Line:
    """One connection, which stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, path: str, body: bytes = b"", headers: Iterable[str] = (), method: str = "POST") -> tuple[int, Any]:
        head = [f"{method} {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
        self.writer.write("\r\n".join(head).encode() + body)
        async with asyncio.timeout(20):
            answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            said = await self._reader.readexactly(length)
        return int(answer[9:12]), json.loads(said)


@dataclass
class Site:
    """A serving plane behind TLS that asks for certificates, with an api process that notes what it is told."""

    house: Any
    callers: Callers
    clock: Clock
    address: tuple[str, int]
    files: TlsFiles
    told: list[dict[str, list[str]]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def keys(self, *keys: ServedKey) -> None:
        """Publish these keys, and no others."""
        self.house.keys.replace(keys)

    async def line(self, pair: tuple[Path, Path] | None) -> Line:
        """Connect, showing this certificate."""
        shown = self.callers.trust(pair)
        self.lines.append(Line(*await asyncio.open_connection(*self.address, ssl=shown, server_hostname="127.0.0.1")))
        return self.lines[-1]

    async def note(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the api process."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        told: dict[str, list[str]] = {}
        for name, _colon, value in (line.partition(": ") for line in head):
            told.setdefault(name.lower(), []).append(value)
        self.told.append(told)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()


def key(name: str, *names: str, stands_for: bool = False, expires_at: float | None = None, **more: Any) -> ServedKey:
    certificate = KeyCertificate(names, stands_for) if names else None
    digest = hashlib.sha256(name.encode()).digest()
    standing = through(Scope.PREDICT, Scope.MODELS_READ, Scope.MODELS_WRITE, user=f"usr_{name}")
    return ServedKey(more.pop("id", name), digest, name, standing, expires_at, certificate=certificate, **more)


@pytest.fixture
async def site(house: Any, tmp_path: Path) -> AsyncIterator[Site]:
    await house.serve("m")
    callers, clock = Callers(tmp_path / "tls"), Clock()
    house.keys._clock = clock
    certificate, private = callers.server()
    files = TlsFiles(str(certificate), str(private), str(callers.file), "optional")
    http = uvicorn.Server(uvicorn.Config(house.door, ws="none", lifespan="off", log_config=None, proxy_headers=False))
    http.config.load()
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = Port(http, door, Patience(most=30))
        await port.open(read_tls(files, datetime.now(UTC)).context())
        made = Site(house, callers, clock, door.getsockname(), files)
        api = await asyncio.start_unix_server(made.note, tmp_path / "api.sock")
        yield made
        for line in made.lines:
            line.writer.close()
        port.close()
        api.close()


async def codes(line: Line, *headers: str) -> dict[str, str | int]:
    """What each door answers: 200, or why not."""
    answers = {}
    for name, (path, body) in DOORS.items():
        status, said = await line.ask(path, body, [*headers, "Content-Type: application/json"])
        answers[name] = status if status == 200 else said.get("code", status)
    return answers


async def test_a_bound_key_opens_nothing_without_one_of_its_certificates(site: Site) -> None:
    right = site.callers.signs("right", uris=["spiffe://example.org/scoring"])
    pinned = site.callers.signs("pinned")
    wrong = site.callers.signs("wrong", uris=["spiffe://example.org/other"], hosts=["example.org"])
    site.keys(key("bound", SCORING, fingerprint(der_of(pinned))), key("free"))
    for pair in (right, pinned):
        assert set((await codes(await site.line(pair), "X-API-Key: bound")).values()) == {200}
    for pair in (None, wrong):
        line = await site.line(pair)
        answers = await codes(line, "X-API-Key: bound")
        assert 200 not in answers.values()
        assert answers["whole"] == answers["asgi"] == "wrong_certificate"
        assert set((await codes(line, "X-API-Key: free")).values()) == {200}, "the control: the line is good"
    for pair in (right, pinned):
        answers = await codes(await site.line(pair))
        assert answers["whole"] == answers["asgi"] == "unauthenticated", "it stands for no key"
        assert 200 not in answers.values()


async def test_a_certificate_stands_for_its_key_at_each_door(site: Site) -> None:
    right = site.callers.signs("right", uris=["spiffe://example.org/scoring"])
    site.keys(key("service", SCORING, stands_for=True))
    line = await site.line(right)
    assert set((await codes(line)).values()) == {200}
    assert site.house.records[-1].key_id == "service"
    for nobody in (None, site.callers.signs("wrong", uris=["spiffe://example.org/scorin"])):
        assert 200 not in (await codes(await site.line(nobody))).values()


@pytest.mark.parametrize(
    "shown",
    [
        "X-API-Key: wrong",
        "X-API-Key:",
        "Authorization: Bearer wrong",
        "Authorization:",
        "Authorization: Basic YTpi",
        "Origin: https://elsewhere.example",
        "Sec-Fetch-Site: cross-site",
        "Cookie: __Host-modelkeep=wrong",
        "Cookie: __Host-modelkeep=a; __Host-modelkeep=b",
    ],
)
async def test_whoever_shows_a_credential_or_is_a_page_is_decided_by_that_alone(site: Site, shown: str) -> None:
    site.keys(key("service", SCORING, stands_for=True), key("other"))
    line = await site.line(site.callers.signs("right", uris=["spiffe://example.org/scoring"]))
    assert 200 not in (await codes(line, shown)).values()
    assert set((await codes(line)).values()) == {200}, "the control"
    assert (await line.ask(*DOORS["whole"], ["X-API-Key: other"]))[0] == 200
    assert site.house.records[-1].key_id == "other"


async def test_an_open_connection_is_refused_when_its_certificate_has_expired(site: Site) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    short = site.callers.signs("short", uris=["spiffe://example.org/scoring"], until=until)
    site.keys(key("service", SCORING, stands_for=True), key("bound", SCORING), key("free"))
    site.house.keys._max_staleness_s = 1e9
    line = await site.line(short)
    for headers in ((), ("X-API-Key: bound",)):
        assert set((await codes(line, *headers)).values()) == {200}
    site.clock.ahead = 3605
    for headers in ((), ("X-API-Key: bound",)):
        answers = await codes(line, *headers)
        assert answers["whole"] == answers["asgi"] == "certificate_expired"
        assert 200 not in answers.values()
    assert set((await codes(line, "X-API-Key: free")).values()) == {200}, "the control"


async def test_what_is_taken_back_counts_on_open_connections(site: Site) -> None:
    line = await site.line(site.callers.signs("right", uris=["spiffe://example.org/scoring"]))
    site.keys(key("service", SCORING, stands_for=True))
    assert set((await codes(line)).values()) == {200}
    site.keys(key("service", "dns:another", stands_for=True))
    assert 200 not in (await codes(line)).values()
    assert (await codes(line, "X-API-Key: service"))["whole"] == "wrong_certificate"
    site.keys()
    assert 200 not in (await codes(line)).values()
    site.keys(key("service", SCORING, stands_for=True))
    assert set((await codes(line)).values()) == {200}, "the control"


async def test_a_certificate_that_stands_for_two_keys_stands_for_neither(site: Site) -> None:
    pair = site.callers.signs("right", uris=["spiffe://example.org/scoring"])
    one, other = key("one", SCORING, stands_for=True), key("other", fingerprint(der_of(pair)), stands_for=True)
    line = await site.line(pair)
    site.keys(one, other)
    answers = await codes(line)
    assert answers["whole"] == answers["asgi"] == "certificate_unclear"
    assert 200 not in answers.values()
    assert set((await codes(line, "X-API-Key: one")).values()) == {200}, "its secret says which"
    for alone in (one, other):
        site.keys(alone)
        assert set((await codes(line)).values()) == {200}


async def test_both_secrets_of_a_rotated_key_are_one_key(site: Site) -> None:
    line = await site.line(site.callers.signs("right", uris=["spiffe://example.org/scoring"]))
    before = time.time() - 1
    site.keys(
        key("new", SCORING, stands_for=True, id="key_1"), key("old", SCORING, stands_for=True, id="key_1", expires_at=before)
    )
    assert set((await codes(line)).values()) == {200}, "the end of the secret from before is not the key's"


async def test_a_key_that_has_expired_or_may_not_is_refused_for_that(site: Site) -> None:
    line = await site.line(site.callers.signs("right", uris=["spiffe://example.org/scoring"]))
    site.keys(key("service", SCORING, stands_for=True, expires_at=time.time() - 1))
    assert (await codes(line))["whole"] == "unauthenticated"
    site.keys(key("service", SCORING, stands_for=True, networks=("10.0.0.0/8",)))
    assert (await codes(line))["whole"] == "wrong_network"
    assert (await line.ask("/metrics", method="GET"))[1]["code"] == "forbidden"


async def test_another_authority_does_not_get_through_whatever_it_signs(site: Site, tmp_path: Path) -> None:
    names = {"uris": ["spiffe://example.org/scoring"]}
    site.keys(key("service", SCORING, stands_for=True))
    forged = Callers(tmp_path / "elsewhere").signs("right", **names)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await (await site.line(forged)).ask(*DOORS["whole"])
    assert (await (await site.line(site.callers.signs("right", **names))).ask(*DOORS["whole"]))[0] == 200


async def test_a_resumed_connection_shows_the_certificate_of_the_one_before(site: Site) -> None:
    """Its chain is not looked at again: the end of the certificate is."""
    until = datetime.now(UTC) + timedelta(hours=1)
    trust = site.callers.trust(site.callers.signs("short", uris=["spiffe://example.org/scoring"], until=until))
    site.keys(key("service", SCORING, stands_for=True))
    site.house.keys._max_staleness_s = 1e9

    def ask(session: ssl.SSLSession | None) -> tuple[bytes, bool, ssl.SSLSession | None]:
        with (
            socket.create_connection(site.address, timeout=20) as plain,
            trust.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as tls,
        ):
            head = f"POST /api/v1/predict/m HTTP/1.1\r\nHost: h\r\nContent-Length: {len(ROWS)}\r\nConnection: close\r\n\r\n"
            tls.sendall(head.encode() + ROWS)
            answer = b"".join(iter(lambda: tls.recv(65536), b""))
            return answer, tls.session_reused is True, tls.session

    answer, resumed, session = await asyncio.to_thread(ask, None)
    assert (answer[9:12], resumed) == (b"200", False)
    answer, resumed, session = await asyncio.to_thread(ask, session)
    assert (answer[9:12], resumed) == (b"200", True)
    site.clock.ahead = 3605
    answer, resumed, _session = await asyncio.to_thread(ask, session)
    assert (answer[9:12], resumed) == (b"401", True)
    assert b"certificate_expired" in answer


async def test_the_api_process_is_told_by_the_server_alone(site: Site) -> None:
    """Whatever comes from outside under that name, in whatever writing, is not passed on."""
    forged = FORWARDED.decode()
    lies = [f'{name}: {{"names":["dns:admin"],"expires":9e9,"digest":""}}' for name in (forged, forged.title(), forged.upper())]
    pair = site.callers.signs("right", uris=["spiffe://example.org/scoring"])
    for said in (lies, [*lies, f"Connection: {forged}"], [*lies, "X-Other: o"]):
        for line in (await site.line(None), await site.line(pair)):
            assert (await line.ask("/api/v1/me", headers=said, method="GET"))[0] == 200
    assert [told.get(forged) for told in site.told[::2]] == [None] * 3
    assert site.told[-1]["x-other"] == ["o"], "the control: other headers go on"
    shown = read(der_of(pair))
    assert shown is not None
    for told in site.told[1::2]:
        (one,) = told[forged]
        assert (set(json.loads(one)["names"]), json.loads(one)["expires"]) == (set(shown.names), shown.expires)


async def test_what_a_request_shows_goes_on_whatever_its_connection_header_names(site: Site) -> None:
    """Else the api process would take it for one that shows nothing, and have the certificate count."""
    shown = ["X-API-Key: k", "Authorization: Bearer t", "Origin: https://x", "Sec-Fetch-Site: none", "Cookie: a=b"]
    names = [one.partition(":")[0] for one in shown]
    line = await site.line(site.callers.signs("right"))
    await line.ask("/api/v1/me", headers=[*shown, "X-Other: o", f"Connection: {', '.join([*names, 'X-Other'])}"], method="GET")
    assert {name.lower() for name in names} <= site.told[0].keys()
    assert "x-other" not in site.told[0], "the control"


async def test_a_header_says_nothing_of_a_certificate_on_the_predict_path(site: Site) -> None:
    site.keys(key("service", SCORING, stands_for=True), key("bound", SCORING))
    pair = site.callers.signs("right", uris=["spiffe://example.org/scoring"])
    shown = read(der_of(pair))
    assert shown is not None
    said = json.dumps({"names": sorted(shown.names), "expires": shown.expires, "digest": ""})
    lies = [f"{FORWARDED.decode()}: {said}", f"X-Forwarded-Client-Cert: URI={SCORING[4:]}"]
    line = await site.line(None)
    assert 200 not in (await codes(line, *lies)).values()
    assert 200 not in (await codes(line, *lies, "X-API-Key: bound")).values()
    assert set((await codes(await site.line(pair))).values()) == {200}, "the control"


async def test_a_connection_without_a_certificate_costs_no_look_into_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []

    def count(der: bytes) -> Any:
        looked.append(der)
        return read(der)

    monkeypatch.setattr("modelkeep.infra.client_certificates.read", count)
    site.keys(key("service", SCORING, stands_for=True), key("free"))
    plain = await site.line(None)
    for _ in range(3):
        assert (await plain.ask(*DOORS["whole"], ["X-API-Key: free"]))[0] == 200
    assert looked == []
    line = await site.line(site.callers.signs("right", uris=["spiffe://example.org/scoring"]))
    for _ in range(3):
        assert set((await codes(line)).values()) == {200}
    assert len(looked) == 1, "once for each connection"


# ---- gRPC


@pytest.fixture
async def rpcs(site: Site) -> AsyncIterator[int]:
    """The gRPC server of the same plane, which asks for certificates; its port."""
    required = TlsFiles(site.files.certificate, site.files.key, site.files.client_ca, "required")
    server = server_of(site.house, tls=Renewing(required))
    await server.start()
    yield server.port
    await server.stop(0)


def channel(site: Site, port: int, pair: tuple[Path, Path]) -> aio.Channel:
    credentials = grpc.ssl_channel_credentials(site.callers.file.read_bytes(), pair[1].read_bytes(), pair[0].read_bytes())
    return aio.secure_channel(f"127.0.0.1:{port}", credentials, options=(("grpc.use_local_subchannel_pool", 1),))


async def status(line: aio.Channel, *metadata: tuple[str, str], rpc: str = "ModelInfer") -> tuple[grpc.StatusCode, str]:
    try:
        await line.unary_unary(SERVICE + rpc)(ONE.SerializeToString(), metadata=metadata, timeout=20)
    except aio.AioRpcError as error:
        return error.code(), dict(error.trailing_metadata() or ()).get("error-code", error.details() or "")
    return grpc.StatusCode.OK, ""


async def test_over_grpc_a_certificate_stands_for_its_key_and_a_bound_key_needs_one(site: Site, rpcs: int) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    right = site.callers.signs("right", uris=["spiffe://example.org/scoring"], until=until)
    site.keys(key("service", SCORING, stands_for=True), key("bound", SCORING), key("free"))
    ok, no = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
    async with channel(site, rpcs, right) as line, channel(site, rpcs, site.callers.signs("wrong", hosts=["x"])) as other:
        assert (await status(line))[0] is ok
        assert site.house.records[-1].key_id == "service"
        assert (await status(line, ("x-api-key", "bound")))[0] is ok
        assert (await status(line, ("x-api-key", "wrong")))[0] is no
        assert (await status(line, ("authorization", "")))[0] is no
        assert (await status(other))[0] is no
        assert (await status(other, ("x-api-key", "bound")))[0] is no
        assert (await status(other, ("x-api-key", "free")))[0] is ok, "the control"
        for one in (line, other):
            await one.unary_unary(SERVICE + "RepositoryModelLoad")(b"\x12\x01m", metadata=(("x-api-key", "free"),), timeout=20)
        assert [SCORING in json.loads(told[FORWARDED.decode()][0])["names"] for told in site.told] == [True, False]
        site.house.keys._max_staleness_s = 1e9
        site.clock.ahead = 3605
        assert (await status(line))[0] is no
        assert (await status(line, ("x-api-key", "bound")))[0] is no
        assert (await status(line, ("x-api-key", "free")))[0] is ok


async def test_a_probe_with_a_certificate_of_its_own_is_no_failure_of_its_address(
    site: Site, rpcs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one is required, whoever asks for health shows one, which stands for no key."""
    failed: list[str | None] = []
    monkeypatch.setattr(site.house.door.gate._failures, "bad", failed.append)
    site.keys(key("service", SCORING, stands_for=True))
    async with channel(site, rpcs, site.callers.signs("probe")) as line:
        await line.unary_unary(SERVICE + "ServerLive")(b"", timeout=20)
        assert failed == []
        assert (await status(line))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert failed == ["127.0.0.1"], "the control"


async def test_over_grpc_each_message_of_a_stream_is_asked_for_with_a_certificate_that_is_good(site: Site, rpcs: int) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    site.keys(key("service", SCORING, stands_for=True))
    site.house.keys._max_staleness_s = 1e9
    right = site.callers.signs("right", uris=["spiffe://example.org/scoring"], until=until)
    async with channel(site, rpcs, right) as line, asyncio.timeout(20):
        stream = line.stream_stream(SERVICE + "ModelStreamInfer")()
        await stream.write(ONE.SerializeToString())
        assert await stream.read() is not aio.EOF
        site.clock.ahead = 3605
        await stream.write(ONE.SerializeToString())
        with pytest.raises(aio.AioRpcError) as refusal:
            while await stream.read() is not aio.EOF:
                pass
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_without_tls_there_is_no_certificate(house: Any) -> None:
    await house.serve("m")
    house.keys.replace([key("service", SCORING, stands_for=True), key("bound", SCORING)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(house.door), base_url="http://door") as client:
        for headers in ({}, {"x-api-key": "bound"}):
            answer = await client.post("/api/v1/predict/m", content=ROWS, headers=headers)
            assert answer.status_code == 401
