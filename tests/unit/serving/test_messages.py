"""Requests over plain ASGI: bodies within their limit, ids, queries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import TooLarge
from modelkeep.serving.messages import ClientGone, LengthRequired, Request, Response, segments


def request(*pieces: bytes | None, headers: list[tuple[bytes, bytes]] | None = None, query: bytes = b"") -> Request:
    """A request whose body arrives in these pieces; None is where the caller leaves."""
    messages = [
        {"type": "http.disconnect"}
        if piece is None
        else {"type": "http.request", "body": piece, "more_body": at < len(pieces) - 1}
        for at, piece in enumerate(pieces)
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    scope = {"method": "POST", "path": "/", "headers": headers or [], "query_string": query, "rest": messages}
    return Request.of(scope, receive)


async def test_a_body_is_put_together_from_its_pieces() -> None:
    assert await request(b"abc").body(3) == b"abc"
    assert await request(b"a", b"", b"bc").body(3) == b"abc"
    assert await request(b"").body(0) == b""


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd"), (b"", b"", b"abcd"), (b"abc", b"d", b"never read")])
async def test_a_body_over_the_limit_is_refused_as_soon_as_it_is_known(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(TooLarge):
        await request(*pieces).body(3)


async def test_an_announced_length_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        await request(headers=[(b"content-length", b"4")]).body(3)


@pytest.mark.parametrize("length", [b"", b"-1", b"1.5", b"abc", b"0x10", "٣".encode(), b"9" * 5000])
async def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    with pytest.raises(LengthRequired):
        await request(b"abc", headers=[(b"content-length", length)]).body(3)


@pytest.mark.parametrize("pieces", [(None,), (b"a", None), (b"a", b"b", None)])
async def test_a_caller_that_leaves_is_noticed(pieces: tuple[bytes | None, ...]) -> None:
    with pytest.raises(ClientGone):
        await request(*pieces).body(100)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"", None),
        (b"top_k=3", "3"),
        (b"a=1&top_k=3&top_k=4", "3"),
        (b"top_k=", ""),
        (b"top_k", ""),
        (b"top_k=a%20b%C5%BC+c", "a bż c"),
        (b"TOP_K=3", None),
    ],
)
def test_the_first_query_parameter_of_a_name_counts(query: bytes, value: str | None) -> None:
    assert request(query=query).query("top_k") == value


@given(st.binary(max_size=60))
def test_no_query_is_too_odd_to_be_read(query: bytes) -> None:
    request(query=query).query("top_k")


def test_the_last_header_of_a_name_counts() -> None:
    one = request(headers=[(b"accept", b"a"), (b"accept", b"b")])
    assert (one.header(b"accept"), one.header(b"missing")) == (b"b", None)


def test_a_path_is_its_segments() -> None:
    assert segments("/v2/models/m") == ["v2", "models", "m"]
    assert segments("/") == [""]
    assert segments("/v2/") == ["v2", ""]


def test_a_response_says_its_length() -> None:
    response = Response(200, b"four", headers=((b"x-one", b"1"),))
    said = {b"content-type": b"application/json", b"content-length": b"4", b"cache-control": b"no-store", b"x-one": b"1"}
    assert dict(response.headers) == said
