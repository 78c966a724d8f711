"""A file that the disk has damaged is never downloaded as if it were whole."""

import random
from pathlib import Path

import httpx

from fixtures.stores import flipped

CAMPAIGN = 200
MIB = 1 << 20


async def _pushed(client: httpx.AsyncClient, content: bytes, tmp_path: Path) -> tuple[str, Path]:
    assert (await client.post("/api/v1/models", json={"name": "iris"})).status_code == 201
    version = (await client.post("/api/v1/models/iris/versions", files={"file": ("m.onnx", content)})).json()
    return "/api/v1/models/iris/versions/1/artifact", tmp_path / "blobs" / version["digest"][:2] / version["digest"]


async def test_every_flipped_bit_of_a_small_file_is_an_error_instead_of_a_download(client: httpx.AsyncClient, tmp_path: Path):
    content = random.Random(1).randbytes(5000)
    path, file = await _pushed(client, content, tmp_path)
    drawn = random.Random(2)
    for _ in range(CAMPAIGN):
        file.write_bytes(flipped(content, drawn.randrange(8 * len(content))))
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (500, "file_damaged")
    file.write_bytes(content)
    assert (await client.get(path)).content == content


async def test_a_download_that_turns_out_damaged_on_its_way_breaks_off(client: httpx.AsyncClient, tmp_path: Path):
    content = random.Random(3).randbytes(3 * MIB + 5)
    path, file = await _pushed(client, content, tmp_path)
    drawn = random.Random(4)
    broken = 0
    for _ in range(10):
        file.write_bytes(flipped(content, drawn.randrange(8 * len(content))))
        received = b""
        try:
            async with client.stream("GET", path) as answer:
                async for piece in answer.aiter_bytes():
                    received += piece
        except httpx.RemoteProtocolError:
            broken += len(received) < len(content)
    assert broken == 10
