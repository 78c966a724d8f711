"""How the commands name the client certificates that an API key goes with."""

import hashlib
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from modelkeep.app.cli.problems import WrongUse

CertificateFiles = Annotated[
    list[Path],
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="Client certificate (PEM) with which alone the key is good; several times for several.",
    ),
]
CertificateNames = Annotated[
    list[str],
    typer.Option(
        "--certificate-name",
        metavar="NAME",
        help="The same by a name in it, which stays when it is renewed: an address such as spiffe://example.org/scoring, or a "
        "DNS name.",
    ),
]
StandsFor = Annotated[
    bool,
    typer.Option("--stands-for", help="The certificate is enough, without the secret; administrators say so."),
]
_KINDS: Final = ("dns:", "uri:", "sha256:")
_PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def certificate_names(files: Iterable[Path], names: Iterable[str], *, needed: bool) -> list[str]:
    """Return what the server is to compare: fingerprints of the first certificates in these files, and these names."""
    given = [*(_fingerprint(file) for file in files), *(_kind(name) + name for name in names)]
    if needed and not given:
        raise WrongUse("Which certificates is the key to go with?", "Name them by --certificate or --certificate-name.")
    return given


def shown(certificate: Mapping[str, Any] | None) -> str:
    """Return how the certificates of a key are shown."""
    if certificate is None:
        return ""
    names = ", ".join(certificate["names"])
    return f"{names} (in place of its secret)" if certificate["stands_for"] else names


def _kind(name: str) -> str:
    if name.startswith(_KINDS):
        return ""
    return "uri:" if "://" in name else "dns:"


def _fingerprint(file: Path) -> str:
    try:
        found = _PEM.search(file.read_text("ascii", "replace"))
    except OSError as error:
        raise WrongUse(f"{file} cannot be read: {error.strerror}.", "Name a client's certificate in PEM.") from error
    try:
        pem = found[0] if found is not None else ""
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)  # which reads all of it
        der = ssl.PEM_cert_to_DER_cert(pem)
    except (ssl.SSLError, ValueError) as error:
        raise WrongUse(f"{file} holds no certificate in PEM.", "Name the file that clients show, not its key.") from error
    return f"sha256:{hashlib.sha256(der).hexdigest()}"
