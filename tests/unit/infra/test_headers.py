"""What the doors read from headers: the key that is presented, and the id of the request."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.infra.headers import presented_key, presented_password, request_id

SIGNED = (
    b"AWS4-HMAC-SHA256 Credential=mk_one/20260101/eu-central-1/sagemaker/aws4_request, "
    b"SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
)
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"x-api-key", b"one")], b"one"),
        ([(b"authorization", b"Bearer one")], b"one"),
        ([(b"authorization", b"bearer   one ")], b"one"),
        ([(b"authorization", b"Basic b25l")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer  ")], None),
        ([(b"x-api-key", b""), (b"authorization", b"Bearer one")], b"one"),
        ([(b"authorization", b"Bearer two"), (b"x-api-key", b"one")], b"one"),
        ([(b"authorization", SIGNED)], b"mk_one"),
        ([(b"authorization", SIGNED), (b"x-api-key", b"one")], b"one"),
        ([(b"authorization", b"AWS4-HMAC-SHA256 Credential=/20260101/eu/sagemaker/aws4_request")], None),
        ([(b"authorization", b"AWS4-HMAC-SHA256 Credential=mk_one")], None),
        ([(b"authorization", b"AWS4-HMAC-SHA256" + b" " * 100_000)], None),
        ([(b"authorization", b"AWS4-HMAC-SHA256 SignedHeaders=host, Credential=mk_one/")], None),
    ],
)
def test_a_key_is_presented_in_either_header(headers: list[tuple[bytes, bytes]], key: bytes | None) -> None:
    assert presented_key(dict(headers)) == key


@pytest.mark.parametrize(
    ("value", "password"),
    [
        (base64.b64encode(b"anyone:mk_one"), b"mk_one"),
        (base64.b64encode(b":a:b"), b"a:b"),
        (base64.b64encode(b"no colon"), None),
        (b"not base64!", None),
    ],
)
def test_a_browser_presents_its_key_as_a_password(value: bytes, password: bytes | None) -> None:
    assert presented_password({b"authorization": b"Basic " + value}) == password
    assert presented_password({b"authorization": b"Bearer " + value}) is None


@pytest.mark.parametrize("accepted", [b"1", b"req_01ABC", b"a" * 128, b"a.b_c:d/e+f=g@h-i"])
def test_a_decent_request_id_is_kept(accepted: bytes) -> None:
    assert request_id({b"x-request-id": accepted}) == accepted.decode()


@pytest.mark.parametrize("refused", [b"", b"a" * 129, b"a b", b"a\r\nset-cookie: x", "ż".encode(), b"<script>"])
def test_any_other_is_replaced(refused: bytes) -> None:
    assert request_id({b"x-request-id": refused}).startswith("req_")


def test_a_trace_gives_its_id_where_there_is_no_request_id() -> None:
    assert request_id({b"traceparent": TRACE}) == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert request_id({b"traceparent": TRACE, b"x-request-id": b"mine"}) == "mine"
    assert request_id({b"traceparent": b"00-XYZ"}).startswith("req_")


@given(st.binary(max_size=200))
def test_a_request_id_is_always_fit_for_a_header(value: bytes) -> None:
    made = request_id({b"x-request-id": value, b"traceparent": value})
    assert made.isascii()
    assert made.isprintable()
    assert 1 <= len(made) <= 128


def test_made_ids_differ() -> None:
    assert len({request_id({}) for _ in range(100)}) == 100
