"""Multipart forms: parts as they were sent, limits, and nothing but refusals for what is malformed."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import TooLarge
from modelkeep.infra.multipart import InvalidMultipart
from modelkeep.serving.multipart import Part, parse

TYPE = b"multipart/form-data; boundary=XX"


def body(*parts: bytes, end: bytes = b"--XX--\r\n") -> bytes:
    return b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + end


def part(name: str = "file", data: bytes = b"data", *more: bytes) -> bytes:
    headers = [f'Content-Disposition: form-data; name="{name}"'.encode(), *more]
    return b"\r\n".join(headers) + b"\r\n\r\n" + data


def test_parts_come_with_name_file_name_and_bytes() -> None:
    content = b"\x89PNG\r\n--X\r\n\x00" * 1000
    disposition = b'Content-Disposition: form-data; name="file"; filename="a b.png"\r\nContent-Type: image/png\r\n\r\n'
    assert parse(TYPE, body(disposition + content, part("top_k", b"3"))) == [
        Part("file", "a b.png", bytearray(content)),
        Part("top_k", "", bytearray(b"3")),
    ]


def test_what_a_usual_client_sends_is_read() -> None:
    request = httpx.Request(
        "POST", "http://x", files=[("file", ("ż.png", b"one")), ("file", ("b.png", b"two"))], data={"top_k": "3"}
    )
    parts = parse(request.headers["content-type"].encode(), request.read())
    assert [(one.name, bytes(one.data)) for one in parts] == [("top_k", b"3"), ("file", b"one"), ("file", b"two")]


def test_a_quoted_boundary_is_a_boundary() -> None:
    assert parse(b'multipart/form-data; boundary="XX"', body(part()))[0].data == b"data"


def test_an_empty_part_is_a_part() -> None:
    assert parse(TYPE, body(part(data=b"")))[0].data == b""


def test_a_part_without_a_name_has_the_empty_one() -> None:
    assert parse(TYPE, body(b"Content-Type: text/plain\r\n\r\ndata"))[0].name == ""


@pytest.mark.parametrize(
    "content_type",
    [b"", b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"X" * 201],
)
def test_a_form_without_a_sound_boundary_is_refused(content_type: bytes) -> None:
    with pytest.raises(InvalidMultipart):
        parse(content_type, body(part()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no form at all",
        b"--YY\r\n\r\n",
        body(part(), end=b""),
        body(part(), end=b"--XX-"),
        body(part())[:-20],
        b"--XX\r\nbad header\r\n\r\ndata\r\n--XX--\r\n",
        b"--XX\nContent-Disposition: form-data\n\ndata\n--XX--\n",
    ],
)
def test_a_malformed_or_unfinished_form_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMultipart):
        parse(TYPE, data)


@pytest.mark.parametrize(
    "data",
    [
        body(*[part()] * 65),
        body(part("file", b"data", *[b"X-%d: 1" % number for number in range(8)])),
        body(part("n" * 5000)),
        body(b"X" * 5000 + b": 1\r\n\r\ndata"),
    ],
)
def test_more_parts_or_headers_than_anyone_needs_are_refused(data: bytes) -> None:
    with pytest.raises((TooLarge, InvalidMultipart)):
        parse(TYPE, data)


def test_as_many_parts_as_allowed_are_read() -> None:
    assert len(parse(TYPE, body(*[part()] * 64))) == 64


@given(st.lists(st.tuples(st.sampled_from(["file", "top_k", "ż"]), st.binary(max_size=50)), max_size=5))
def test_whatever_is_in_the_parts_comes_back(parts: list[tuple[str, bytes]]) -> None:
    data = body(*[part(name, content) for name, content in parts])
    if any(b"\r\n--XX" in b"\r\n" + content for _name, content in parts) or not parts:
        return
    assert [(one.name, bytes(one.data)) for one in parse(TYPE, data)] == parts


PIECES = st.lists(
    st.sampled_from(
        [
            b"--XX",
            b"--XX--",
            b"\r\n",
            b"\n",
            b"\r",
            b"--",
            b"Content-Disposition: form-data; name=file",
            b'"',
            b";",
            b":",
            b"\x00",
        ]
    )
    | st.binary(max_size=8),
    max_size=20,
).map(b"".join)


@given(PIECES, st.binary(max_size=40).map(lambda tail: b"multipart/form-data; boundary=XX" + tail) | st.binary(max_size=60))
def test_any_bytes_at_all_are_parts_or_refused(data: bytes, content_type: bytes) -> None:
    try:
        parts = parse(content_type, data)
    except (InvalidMultipart, TooLarge):
        return
    assert all(isinstance(one, Part) for one in parts)
