"""Bodies in gzip and deflate, in and out, at every prediction's door; and those that are too large, damaged, or in neither."""

import asyncio
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import ModelkeepError, TooLarge
from modelkeep.serving import codings

INFER, PREDICT = "/v2/models/m/infer", "/api/v1/predict/m"
BODIES = {
    INFER: {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]},
    PREDICT: {"inputs": [[1, 2]]},
    "/predict": {"inputs": [[1, 2]]},
}


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]),
    "deflate": zlib.compress,
    " deflate ": bare,
    "identity": bytes,
}


@pytest.mark.parametrize(("length", "taken"), [(1 << 20, True), ((1 << 20) + 1, False)])
async def test_a_body_becomes_a_mebibyte_at_will_and_fifty_times_its_length_beyond(length: int, taken: bool) -> None:
    body = gzip.compress(bytes(length))
    if taken:
        assert len(await codings.unpacked(b"gzip", body, 1 << 26, TooLarge())) == length
    else:
        with pytest.raises(TooLarge, match="fifty times"):
            await codings.unpacked(b"gzip", body, 1 << 26, TooLarge())


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("coding", PACKED)
async def test_every_dialect_takes_packed_bodies(house, path: str, coding: str) -> None:
    await house.serve("m")
    body = PACKED[coding](json.dumps(BODIES[path]).encode())
    answer = await house.client.post(path, content=body, headers={"content-encoding": coding})
    assert answer.status_code == 200, answer.text
    assert house.records[0].inputs == json.dumps(BODIES[path]).encode()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip,deflate", "\u00e9"])
async def test_other_codings_are_refused(house, path: str, coding: str) -> None:
    await house.serve("m")
    answer = await house.client.post(path, content=b"x", headers={"content-encoding": coding.encode()})
    assert answer.status_code == 400
    assert "Content-Encoding" in answer.text
    assert answer.json().keys() == {"error"} or not path.startswith("/v2")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare)])
async def test_what_unpacks_to_more_than_the_limit_is_refused(open_house, path: str, coding: str, pack) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")
    for length in (1024 * 1024 + 1, 64 * 1024 * 1024):
        answer = await house.client.post(path, content=pack(b" " * length), headers={"content-encoding": coding})
        assert answer.status_code == 413


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate"]), st.data())
def test_damaged_bodies_are_refused_or_are_another_body(data: bytes, coding: bytes, draw: st.DataObject) -> None:
    body = gzip.compress(data) if coding == b"gzip" else zlib.compress(data)
    at = draw.draw(st.integers(0, len(body)))
    damaged = body[:at] + draw.draw(st.binary(max_size=4)) + body[at + draw.draw(st.integers(0, 4)) :]
    try:
        found = codings._unpacked(coding, damaged, 1000, TooLarge())
    except ModelkeepError:
        return
    assert damaged == body or coding == b"deflate" or found != data or at < 10  # gzip's head says nothing of the body
    assert len(found) <= 1000


async def test_a_body_of_a_million_empty_members_is_refused_at_once(house) -> None:
    await house.serve("m")
    content = gzip.compress(b"") * 1_000_000
    async with asyncio.timeout(5):
        answer = await house.client.post(INFER, content=content, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json().keys()) == (400, {"error"})


@given(st.binary(max_size=2000).map(lambda data: data * 500), st.integers(1, 4), st.sampled_from([b"gzip", b"deflate"]))
def test_long_bodies_come_out_whole(data: bytes, level: int, coding: bytes) -> None:
    body = gzip.compress(data, level) if coding == b"gzip" else zlib.compress(data, level)
    assert codings._unpacked(coding, body, len(data), TooLarge()) == data


@pytest.mark.parametrize("cut", [1, 5, 9])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_half_a_body_is_refused(house, coding: str, cut: int) -> None:
    await house.serve("m")
    body = PACKED[coding](json.dumps(BODIES[INFER]).encode())[:-cut]
    answer = await house.client.post(INFER, content=body, headers={"content-encoding": coding})
    assert (answer.status_code, answer.json().keys()) == (400, {"error"})


@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_packed_comes_back(data: bytes, coding) -> None:
    assert codings._unpacked(coding.encode(), codings.packed(coding, data), 5000, TooLarge()) == data


@pytest.mark.parametrize(
    ("accepted", "length", "coding"),
    [
        (b"gzip", 2000, "gzip"),
        (b"deflate", 2000, "deflate"),
        (b"deflate;q=0.5", 2000, "deflate"),
        (b"gzip;q=0, deflate", 2000, "deflate"),
        (b"gzip", 1000, None),
        (b"gzip, deflate", 100_000, None),
        (b"gzip, deflate", 300_000, "gzip"),
        (b"gzip, deflate, br, zstd", 300_000, "gzip"),
        (b"br, deflate", 300_000, "deflate"),
        (b"br", 300_000, None),
        (b"gzip;q=0", 300_000, None),
        (b"gzip;q=...", 300_000, None),
        (b"", 300_000, None),
        (b"*", 300_000, None),
        (None, 300_000, None),
    ],
)
def test_answers_are_packed_where_that_is_asked_for_and_pays(accepted: bytes | None, length: int, coding: str | None) -> None:
    assert codings.wished(accepted, length) == coding


@pytest.mark.parametrize("rows", [400, 3000])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_long_answers_go_out_packed(house, rows: int, coding: str) -> None:
    await house.serve("m")
    content = json.dumps({"inputs": [[1, 2]] * rows})
    answer = await house.client.post(PREDICT, content=content, headers={"accept-encoding": coding})
    assert answer.headers["content-encoding"] == coding
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) < len(answer.content)
    assert answer.json()["outputs"]["sum"] == [3] * rows
    assert answer.headers["x-prediction-id"] == answer.json()["id"]


@pytest.mark.parametrize("rows", [400, 2500])
def test_so_they_do_without_asgi(served_once_wired, rows: int) -> None:
    body = json.dumps({"inputs": [[1, 2]] * rows}).encode()
    head = b"POST %s HTTP/1.1\r\nhost: h\r\nx-api-key: all\r\naccept-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    status, headers, answer = served_once_wired(head % (PREDICT.encode(), len(body)) + body)
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert json.loads(gzip.decompress(answer))["outputs"]["sum"] == [3] * rows


def test_a_packed_body_is_unpacked_on_the_wire(served_once_wired) -> None:
    body = gzip.compress(json.dumps(BODIES[INFER]).encode())
    head = b"POST %s HTTP/1.1\r\nhost: h\r\nx-api-key: all\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    status, _headers, answer = served_once_wired(head % (INFER.encode(), len(body)) + body)
    assert status == 200
    assert json.loads(answer)["outputs"][0]["data"] == [3.0]
