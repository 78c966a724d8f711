"""Client certificates, as every door speaks of them: what one says of who shows it, and what a key asks of it.

A certificate has *names*: `dns:` and `uri:` with each of its subject alternative names of these kinds, and `sha256:` with its
fingerprint. Its subject is none: nobody checks what is written there. Names are compared as wholes; a `*` in one is a sign like
others.
"""

from typing import Final

import msgspec

from modelkeep.contracts.errors import CertificateExpired, WrongCertificate

DNS: Final = "dns:"
URI: Final = "uri:"
SHA256: Final = "sha256:"
MOST_NAMES: Final = 20
LONGEST_NAME: Final = 512


class ShownCertificate(msgspec.Struct, frozen=True):
    """The certificate of one connection, which TLS has verified. `expires` is in Unix seconds.

    `digest` is of the certificate, and not its fingerprint: what is kept in our database does not tell it.
    """

    names: frozenset[str]
    expires: float
    digest: bytes


class KeyCertificate(msgspec.Struct, frozen=True):
    """The certificates that a key goes with: those that have one of these names.

    Without one the key is good for nothing. With `stands_for`, the certificate is enough: who shows one, and no credential, has
    shown the key.
    """

    names: tuple[str, ...]
    stands_for: bool = False

    def check(self, shown: ShownCertificate | None, now: float) -> None:
        """Raise `WrongCertificate` unless a connection's certificate has one of the names, `CertificateExpired` after its end.

        TLS looks at its end once, when the connection begins.
        """
        if shown is None or shown.names.isdisjoint(self.names):
            raise WrongCertificate
        if now >= shown.expires:
            raise CertificateExpired
