"""Reads the certificates that callers show, and tells them to the api process: the one place that says what is in one.

They come from the TLS layer of the connection, which has verified them, and from nowhere else: no header of a caller or a proxy
says one (`X-Forwarded-Client-Cert` is not read).
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from modelkeep.contracts.certificates import DNS, LONGEST_NAME, MOST_NAMES, SHA256, URI, ShownCertificate
from modelkeep.infra.headers import Headers

FORWARDED: Final = b"x-modelkeep-certificate"
"""The header in which a server tells the api process the certificate; one that comes from outside is dropped."""

_DIGEST: Final = b"modelkeep certificate 1 "
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(ShownCertificate).decode


@lru_cache(maxsize=1024)
def read(der: bytes) -> ShownCertificate | None:
    """Return what a certificate says, None where it cannot be read.

    Where it has more names than anybody needs, or an unreadable list of them, its fingerprint alone counts.
    """
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        expires = certificate.not_valid_after_utc.timestamp()
    except ValueError:
        return None
    try:
        names = frozenset(_names(certificate))
    except (ValueError, x509.DuplicateExtension):
        names = frozenset()
    if len(names) > MOST_NAMES:
        names = frozenset()
    return ShownCertificate(names | {fingerprint(der)}, expires, hashlib.sha256(_DIGEST + der).digest())


def of_tls(ssl_object: Any) -> ShownCertificate | None:  # noqa: ANN401 - asyncio's and uvloop's have no type in common
    """Return the certificate that was shown on a connection, None without one."""
    der: bytes | None = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
    return read(der) if der else None


def fingerprint(der: bytes) -> str:
    """Return the name that is a certificate's alone."""
    return SHA256 + hashlib.sha256(der).hexdigest()


def header(shown: ShownCertificate) -> tuple[bytes, bytes]:
    """Return the header that tells the api process of a certificate."""
    return FORWARDED, _encode(shown)


def told(headers: Headers) -> ShownCertificate | None:
    """Return the certificate that a server tells the api process of."""
    given = headers.get(FORWARDED)
    return None if given is None else _decode(given)


def _names(certificate: Any) -> Iterator[str]:  # noqa: ANN401 - its library is imported when it is needed
    from cryptography import x509

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    named = [
        *(DNS + name.lower() for name in alternatives.get_values_for_type(x509.DNSName)),
        *(URI + name for name in alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
    ]
    yield from (name for name in named if len(name) <= LONGEST_NAME and name.isascii() and name.isprintable())
