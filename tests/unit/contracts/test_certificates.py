"""What a key asks of a client certificate."""

import pytest

from modelkeep.contracts.certificates import KeyCertificate, ShownCertificate
from modelkeep.contracts.errors import CertificateExpired, Unauthenticated, WrongCertificate

ASKED = KeyCertificate(("dns:scoring", "sha256:aa", "uri:spiffe://x/scoring"))


def shown(*names: str) -> ShownCertificate:
    return ShownCertificate(frozenset(names), 1000.0, b"d")


@pytest.mark.parametrize("name", ASKED.names)
def test_one_of_the_names_is_enough(name: str) -> None:
    ASKED.check(shown(name, "uri:another"), 999.9)


@pytest.mark.parametrize(
    "given",
    [
        None,
        shown(),
        shown("dns:scoring.x"),
        shown("dns:Scoring"),
        shown("uri:scoring"),
        shown("dns:*"),
        shown("uri:spiffe://x/scoring/"),
        shown("sha256:aa "),
    ],
)
def test_without_one_of_them_it_is_the_wrong_certificate(given: ShownCertificate | None) -> None:
    with pytest.raises(WrongCertificate):
        ASKED.check(given, 0.0)


def test_after_its_end_it_is_none_and_says_so() -> None:
    with pytest.raises(CertificateExpired):
        ASKED.check(shown("dns:scoring"), 1000.0)
    with pytest.raises(WrongCertificate):
        ASKED.check(shown("dns:other"), 1000.0)
    assert issubclass(CertificateExpired, Unauthenticated)
