"""What is read in a certificate that a caller shows, and how the api process is told of it."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.authority import Callers, der_of
from modelkeep.contracts.certificates import MOST_NAMES
from modelkeep.infra.client_certificates import FORWARDED, fingerprint, header, read, told

END = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_its_alternative_names_its_fingerprint_and_its_end_are_read(tmp_path: Path) -> None:
    der = der_of(Callers(tmp_path).signs("a", uris=["spiffe://Example.org/a"], hosts=["A.example.org", "*.x.org"], until=END))
    found = read(der)
    assert found is not None
    assert found.names == {
        "uri:spiffe://Example.org/a",
        "dns:a.example.org",
        "dns:*.x.org",
        f"sha256:{hashlib.sha256(der).hexdigest()}",
    }
    assert found.expires == END.timestamp()


def test_its_subject_is_no_name(tmp_path: Path) -> None:
    der = der_of(Callers(tmp_path).signs("scoring.example.org"))
    found = read(der)
    assert found is not None
    assert found.names == {fingerprint(der)}


@pytest.mark.parametrize(("count", "taken"), [(MOST_NAMES, True), (MOST_NAMES + 1, False)])
def test_of_too_many_names_none_counts(tmp_path: Path, count: int, taken: bool) -> None:
    found = read(der_of(Callers(tmp_path).signs("a", hosts=[f"h{at}.example.org" for at in range(count)])))
    assert found is not None
    assert len(found.names) == (1 + count if taken else 1)


def test_a_name_that_nobody_could_write_does_not_count(tmp_path: Path) -> None:
    found = read(der_of(Callers(tmp_path).signs("a", uris=["x:" + "y" * 600, "x:\0y", "x:z"])))
    assert found is not None
    assert {name for name in found.names if name.startswith("uri:")} == {"uri:x:z"}


@pytest.mark.parametrize("der", [b"", b"nothing", b"\x30\x82\x01\x00"])
def test_what_is_no_certificate_is_none(der: bytes) -> None:
    assert read(der) is None


def test_what_a_server_tells_is_what_it_was_shown(tmp_path: Path) -> None:
    der = der_of(Callers(tmp_path).signs("a", uris=['spiffe://x/a?b="c"'], hosts=["a.example.org"]))
    found = read(der)
    assert found is not None
    name, value = header(found)
    assert name == FORWARDED
    assert value.isascii()
    assert b"\n" not in value
    assert told({name: value}) == found
    assert told({}) is None
    assert hashlib.sha256(der).digest() != found.digest, "what the database has of it does not open sealed answers"
