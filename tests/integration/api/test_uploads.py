"""Uploads: streamed, bounded, and either whole or not there."""

import asyncio
import hashlib
import itertools
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.control import ADMIN
from modelkeep.api.settings import ApiSettings
from modelkeep.app.control_plane import ControlPlane
from modelkeep.plugins.storage.local import LocalStore

PATH = "/api/v1/models/iris/versions"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
async def _iris(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/models", json={"name": "iris"})).status_code == 201


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def form(*parts: tuple[str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a form: name, file name ("" for none), content."""
    body = b""
    for name, filename, content in parts:
        given = f'; filename="{filename}"' if filename else ""
        body += f'--BOUND\r\nContent-Disposition: form-data; name="{name}"{given}\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--BOUND--\r\n", {"content-type": "multipart/form-data; boundary=BOUND"}


async def nothing_happened(client: httpx.AsyncClient, tmp_path: Path) -> bool:
    return files(tmp_path) == [] and (await client.get(PATH)).json()["items"] == []


async def test_all_parts_of_an_upload_arrive(client: httpx.AsyncClient, control: ControlPlane, blobs: LocalStore):
    parts = {
        "sample": ("rows.csv", b"a,b\n1,2\n"),
        "labels": ("l.txt", b"cat\ndog\n"),
        "file": ("m.bin", b"\x00\r\n--BOUND\r\n" * 9),
    }
    data = {"format": "joblib", "preprocess": '{"size": 64}', "description": "déjà vu"}
    await control.switches.allow_code(ADMIN, allowed=True, reason="a test")
    answer = await client.post(PATH, files=parts, data=data, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.headers["location"]) == (202, f"{PATH}/1")
    body = answer.json()
    assert (body["format"], body["labels"], body["image"]["size"], body["description"]) == ("joblib", 2, 64, "déjà vu")
    version = await control.models.version(ADMIN, "iris", 1)
    assert version.runner == "sklearn"
    assert version.sample is not None
    assert version.sample.filename == "rows.csv"
    assert b"".join([piece async for piece in blobs.read(version.sample.digest)]) == b"a,b\n1,2\n"
    assert b"".join([piece async for piece in blobs.read(version.digest)]) == parts["file"][1]
    assert await control.models.labels(version.id) == ("cat", "dog")


async def test_the_same_upload_again_is_the_same_version(client: httpx.AsyncClient):
    answers = [
        await client.post(PATH, files={"file": ("m.onnx", content)}, headers={"Idempotency-Key": "k1"})
        for content in (b"a", b"a", b"b")
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 409]
    assert answers[0].json() == answers[1].json()
    assert answers[2].json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("parts", "status", "code", "says"),
    [
        ([("file", "m.exe", b"x")], 400, "unsupported_format", "onnx (.onnx)"),
        ([("file", "m", b"x")], 400, "unsupported_format", "joblib (.joblib)"),
        ([("format", "", b"keras"), ("file", "m.onnx", b"x")], 400, "unsupported_format", "keras"),
        ([("file", "m.onnx", b"x"), ("format", "", b"keras")], 400, "unsupported_format", "keras"),
        ([("format", "", b"tensorflow"), ("file", "net.zip", b"x")], 400, "unsupported_format", "tf2onnx.convert"),
        ([], 400, "invalid_upload", "file"),
        ([("description", "", b"x")], 400, "invalid_upload", "no part named `file`"),
        ([("file", "m.onnx", b"")], 400, "invalid_upload", "empty"),
        ([("file", "", b"x")], 400, "invalid_request", "name"),
        ([("file", "m.onnx", b"x"), ("file", "m.onnx", b"x")], 400, "invalid_upload", "twice"),
        ([("colour", "", b"red")], 400, "invalid_upload", "colour"),
        ([("file", "m.onnx", b"x"), ("labels", "l", b"\xff")], 400, "invalid_labels", "UTF-8"),
        ([("file", "m.onnx", b"x"), ("preprocess", "", b"vgg")], 400, "invalid_preprocess", "imagenet"),
        ([("file", "m.onnx", b"x"), ("description", "", b"\xff")], 400, "invalid_upload", "UTF-8"),
        ([("file", "m.onnx", b"x"), ("description", "", b"x" * 10_001)], 400, "invalid_request", "10000"),
        ([("file", "m.onnx", b"x"), ("sample", "s.xls", b"x")], 400, "invalid_upload", ".csv"),
        ([("file", "m.onnx", b"x"), ("sample", "s.csv", b"x" * (MIB + 1))], 413, "too_large", "sample"),
        ([("file", "m.onnx", b"x"), ("labels", "l.txt", b"x" * (MIB + 1))], 413, "too_large", "labels"),
        ([("file", "m.onnx", b"x"), ("calibration", "c.csv", b"x" * (MIB + 1))], 413, "too_large", "calibration"),
        ([("file", "m.onnx", b"x"), ("calibration", "c.xls", b"x")], 400, "invalid_upload", ".csv"),
        ([("file", "m.onnx", b"x"), ("calibration", "c.csv", b"")], 400, "invalid_upload", "empty"),
        ([("file", "m.onnx", b"x"), ("optimise", "", b"int8")], 400, "invalid_request", "calibration"),
        ([("file", "m.onnx", b"x"), ("accuracy_budget", "", b"1%")], 400, "invalid_request", "calibration"),
        ([("file", "m.onnx", b"x"), ("accuracy_budget", "", b"nan")], 400, "invalid_request", "share"),
        ([("file", "m.onnx", b"x"), ("hooks", "h.py", b"x")], 403, "code_formats_off", "Hooks are code"),
        ([("format", "", b"x" * 101)], 413, "too_large", "format"),
        ([("file", "m.onnx", b"x" * (4 * MIB + 1))], 413, "too_large", "4 MiB"),
        ([("file", "m.onnx", b"x" * (9 * MIB))], 413, "too_large", "4 MiB"),
    ],
)
async def test_an_upload_that_cannot_be_accepted_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, tmp_path: Path, parts: list[tuple[str, str, bytes]], status: int, code: str, says: str
):
    body, headers = form(*parts)
    answer = await client.post(PATH, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in answer.json()["detail"]
    assert await nothing_happened(client, tmp_path)


@pytest.mark.parametrize(
    ("hooks", "status", "says"),
    [(b"", 400, "empty"), (b"#" * (MIB + 1), 413, "`hooks` is larger than 1048576 bytes")],
)
async def test_hooks_have_a_size(
    client: httpx.AsyncClient, control: ControlPlane, tmp_path: Path, hooks: bytes, status: int, says: str
):
    await control.switches.allow_code(ADMIN, allowed=True, reason="a test")
    body, headers = form(("file", "m.onnx", b"x"), ("hooks", "h.py", hooks))
    answer = await client.post(PATH, content=body, headers=headers)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert await nothing_happened(client, tmp_path)


async def test_hooks_are_kept_beside_the_file_and_come_back(client: httpx.AsyncClient, control: ControlPlane):
    source = b"def postprocess(outputs):\r\n    return outputs\r\n"
    await control.switches.allow_code(ADMIN, allowed=True, reason="a test")
    answer = await client.post(PATH, files={"file": ("m.onnx", b"x"), "hooks": ("anything.py", source)})
    digest = hashlib.sha256(source).hexdigest()
    assert answer.json()["hooks"] == {"digest": digest, "size": len(source), "functions": []}
    back = await client.get(f"{PATH}/1/hooks")
    assert (back.content, back.headers["etag"]) == (source, f'"{digest}"')
    (noted, *_others) = (await client.get("/api/v1/audit", params={"target": answer.json()["id"]})).json()["items"]
    assert noted["details"]["hooks"] == digest
    await client.post(PATH, files={"file": ("m.onnx", b"x")})
    without = await client.get(f"{PATH}/2/hooks")
    assert (without.status_code, without.json()["code"]) == (404, "hooks_not_found")


async def test_a_chunked_upload_without_a_length_is_bounded_as_well(client: httpx.AsyncClient, tmp_path: Path):
    head, headers = form(("file", "m.onnx", b""))

    async def endless() -> AsyncIterator[bytes]:
        yield head[: -len(b"\r\n--BOUND--\r\n")]
        for _ in range(64):
            yield b"x" * MIB

    answer = await client.post(PATH, content=endless(), headers=headers)
    assert answer.status_code == 413
    assert await nothing_happened(client, tmp_path)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"content-type": "multipart/form-data"},
        {"content-type": "multipart/form-data; boundary="},
        {"content-type": f"multipart/form-data; boundary={'b' * 201}"},
        {"content-type": "multipart/form-data; boundary=OTHER"},
        {},
    ],
)
async def test_a_body_that_is_no_form_is_refused(client: httpx.AsyncClient, tmp_path: Path, headers: dict[str, str]):
    body, _headers = form(("file", "m.onnx", b"x"))
    answer = await client.post(PATH, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart")
    assert await nothing_happened(client, tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--BOUND",
        b"--BOUND\r\n",
        b'--BOUND\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\nhalf',
        b'--BOUND\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\nx\r\n--BOUND',
        b"--BOUND\r\nnonsense\r\n\r\nx\r\n--BOUND--",
        b"--BOUND\r\nX-Long: " + b"x" * 10_000 + b"\r\n\r\nx\r\n--BOUND--",
        b"--BOUND\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(50)) + b"\r\nx\r\n--BOUND--",
        b'--BOUND\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--BOUND--',
    ],
)
async def test_a_form_that_ends_early_or_makes_no_sense_is_refused(client: httpx.AsyncClient, tmp_path: Path, body: bytes):
    answer = await client.post(PATH, content=body, headers={"content-type": "multipart/form-data; boundary=BOUND"})
    assert (answer.status_code, answer.json()["code"]) in {(400, "invalid_multipart"), (413, "too_large")}, answer.text
    assert await nothing_happened(client, tmp_path)


async def test_a_client_that_goes_away_leaves_nothing_at_any_moment(
    api_socket: Path, client: httpx.AsyncClient, tmp_path: Path
):
    body, headers = form(("description", "", b"x"), ("file", "m.onnx", b"x" * (2 * MIB)), ("labels", "l.txt", b"a\nb"))
    head = f"POST {PATH} HTTP/1.1\r\nhost: api\r\nx-api-key: {client.headers['x-api-key']}\r\n"
    head += f"content-type: {headers['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
    for cut in (0, 1, 40, 200, MIB, len(body) - 40, len(body) - 3):
        reader, writer = await asyncio.open_unix_connection(str(api_socket))
        writer.write(head.encode() + body[:cut])
        await writer.drain()
        if cut >= MIB:
            async with asyncio.timeout(5):
                while not files(tmp_path):  # the server is in the middle of it
                    await asyncio.sleep(0.005)
        writer.close()
        await writer.wait_closed()
        del reader
        async with asyncio.timeout(5):
            while files(tmp_path):
                await asyncio.sleep(0.005)
        assert await nothing_happened(client, tmp_path)


async def test_refusals_that_need_no_body_come_before_it(client: httpx.AsyncClient, api_socket: Path):
    await client.post("/api/v1/models", json={"name": "old"})
    await client.post("/api/v1/models/old/archive")
    for path, key, status in (
        ("/api/v1/models/rose/versions", client.headers["x-api-key"], b"404"),
        ("/api/v1/models/old/versions", client.headers["x-api-key"], b"409"),
        (PATH, "mk_wrong", b"401"),
    ):
        reader, writer = await asyncio.open_unix_connection(str(api_socket))
        head = f"POST {path} HTTP/1.1\r\nhost: api\r\nx-api-key: {key}\r\ncontent-length: 1000000\r\n"
        writer.write(f"{head}content-type: multipart/form-data; boundary=B\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 5)
        assert line.split()[1] == status
        writer.close()
        await writer.wait_closed()


async def test_an_upload_is_never_whole_in_memory(client: httpx.AsyncClient, api_settings: ApiSettings):
    object.__setattr__(api_settings, "max_upload_mb", 200)
    head, headers = form(("file", "m.onnx", b""))
    tail = b"\r\n--BOUND--\r\n"
    piece = bytes(64 * 1024)

    async def body() -> AsyncIterator[bytes]:
        yield head[: -len(tail)]
        for _ in range(64 * 16):
            yield piece
        yield tail

    tracemalloc.start()
    answer = await client.post(PATH, content=body(), headers=headers)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.json()["size"] == 64 * MIB
    assert answer.json()["digest"] == hashlib.sha256(bytes(64 * MIB)).hexdigest()
    assert peak < 16 * MIB


async def test_a_full_disk_is_507_and_leaves_no_version(
    client: httpx.AsyncClient, blobs: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blobs, "_unfinished", Path("/dev/full/x"))
    monkeypatch.setattr("modelkeep.plugins.on_disk._FULL", {17})  # the path above is no folder, which stands for "full"
    answer = await client.post(PATH, files={"file": ("m.onnx", b"x")})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert (await client.get(PATH)).json()["items"] == []


@given(
    content=st.binary(min_size=1, max_size=300),
    cuts=st.lists(st.integers(0, 700), max_size=6),
    description=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_however_the_body_is_cut_the_same_upload_arrives(content: bytes, cuts: list[int], description: str):
    from modelkeep.api.uploads import Allowed, _file, _Form

    def nothing() -> None:
        """Anything may be brought."""

    allowed = Allowed(lambda filename, declared: ("onnx", "onnx"), nothing)

    body, _headers = form(("description", "", description.encode()), ("file", "m.onnx", content), ("labels", "l.txt", b"a\nb"))

    async def chunks() -> AsyncIterator[bytes]:
        places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
        for start, end in itertools.pairwise(places):
            yield body[start:end]

    async def read() -> tuple[bytes, _Form]:
        parsed = _Form(b"multipart/form-data; boundary=BOUND", allowed, ApiSettings())
        return b"".join([piece async for piece in _file(chunks(), parsed, 10**6, ApiSettings())]), parsed

    with asyncio.Runner() as runner:
        file, parsed = runner.run(read())
    assert file == content
    assert (parsed.description, parsed.labels, parsed.filename) == (description, ("a", "b"), "m.onnx")


async def test_a_planned_upload_is_refused_as_the_upload_itself_would_be(client: httpx.AsyncClient, tmp_path: Path):
    async def planned(model: str, filename: str, size: int, **query: str) -> tuple[int, str]:
        answer = await client.post(
            f"/api/v1/models/{model}/versions/check", json={"filename": filename, "size": size}, params=query
        )
        return answer.status_code, answer.json()["code"] if answer.content else ""

    assert await planned("iris", "m.onnx", 10) == (204, "")
    assert await planned("new", "m.onnx", 10, create="true") == (204, "")
    assert await planned("new", "m.onnx", 10) == (404, "model_not_found")
    assert await planned("New", "m.onnx", 10, create="true") == (400, "invalid_name")
    assert await planned("iris", "m.exe", 10) == (400, "unsupported_format")
    assert await planned("iris", "m.onnx", 0) == (400, "invalid_upload")
    assert await planned("iris", "m.onnx", 10**15) == (413, "too_large")
    assert await nothing_happened(client, tmp_path)
    assert (await client.get("/api/v1/models/new")).status_code == 404


async def test_an_upload_makes_its_model_where_asked_and_a_refused_one_makes_nothing(client: httpx.AsyncClient):
    path = "/api/v1/models/new/versions"
    assert (await client.post(path, files={"file": ("m.exe", b"x")}, params={"create": "true"})).status_code == 400
    assert (await client.post(path, files={"file": ("m.onnx", b"x")})).status_code == 404
    assert (await client.get("/api/v1/models/new")).status_code == 404
    sent = {"files": {"file": ("m.onnx", b"x")}, "data": {"description": "flowers"}, "params": {"create": "true"}}
    answers = [await client.post(path, **sent) for _ in range(2)]
    assert [answer.json()["number"] for answer in answers] == [1, 2]
    model = (await client.get("/api/v1/models/new")).json()
    assert (model["description"], model["latest_version"]) == ("flowers", 2)
    assert (await client.get("/api/v1/deployments/new")).status_code == 200


async def test_uploads_at_once_make_their_model_once(client: httpx.AsyncClient):
    path = "/api/v1/models/new/versions"
    answers = await asyncio.gather(
        *(client.post(path, files={"file": ("m.onnx", b"%d" % n)}, params={"create": "true"}) for n in range(8))
    )
    assert sorted(answer.json()["number"] for answer in answers) == list(range(1, 9))
