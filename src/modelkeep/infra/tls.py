"""TLS of the ports: the files of a certificate, checked before they are taken, and read anew when they change.

A private key is read by the processes that answer callers, and by nobody else: whoever starts them has the files checked by
another process (`check_apart`), which ends with what it has read.
"""

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import structlog

from modelkeep.contracts.errors import Invalid
from modelkeep.infra.tally import Family, Gauges

if TYPE_CHECKING:
    from cryptography import x509

log = structlog.get_logger(__name__)

Client = Literal["none", "optional", "required"]

_CIPHERS: Final = ":".join(
    f"ECDHE-{signed}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signed in ("ECDSA", "RSA")
)
"""For TLS 1.2, as Mozilla's "intermediate" has them, without those that need parameters for Diffie-Hellman."""
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_PATIENCE_S: Final = 30


EXPIRES: Final = Family(
    "modelkeep_certificate_expiry_timestamp_seconds",
    "gauge",
    "When the certificate of TLS expires, in seconds since 1970; of several servers, the first to.",
    rule="min",
)
REFUSED: Final = Family(
    "modelkeep_certificate_refused",
    "gauge",
    "1 while the files of TLS cannot be used and a server goes on with the certificate it has; the log says why.",
    rule="max",
)


class InvalidCertificate(Invalid):
    """The files of server.tls_* are no certificate with its key."""

    code = "invalid_certificate"


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of TLS, by their paths, and whether callers are asked for a certificate of theirs."""

    certificate: str
    key: str
    client_ca: str = ""
    client: Client = "none"


@dataclass(frozen=True)
class Certificate:
    """What was read of the files at one time, and found to belong together. `names`: DNS names and addresses it is for."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    client: Client
    expires: datetime
    names: frozenset[str]

    def context(self) -> ssl.SSLContext:
        """Return what a server needs to answer with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        with _nameable(self.chain) as chain, _nameable(self.key) as key, _in_words("tls_certificate and server.tls_key"):
            context.load_cert_chain(chain, key, lambda: "")
        if self.authorities:
            with _in_words("tls_client_ca"):
                context.load_verify_locations(cadata=self.authorities.decode("ascii", "replace"))
            context.verify_mode = _VERIFY[self.client]
        return context


class Renewing:
    """The certificate of one process. Where its files change, `tend` takes them, or keeps what it has and says why."""

    def __init__(self, files: TlsFiles, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.files = files
        self.trouble = ""
        self._now = now
        self._seen = _stamps(files)
        self.current = read(files, now())

    def tend(self, *, anyway: bool = False) -> bool:
        """Look for other files, to be called about once a second; returns whether there is another certificate now.

        `anyway`: somebody says that there are. Files that cannot be used are read again until they can: half of them may be on
        their way.
        """
        seen = _stamps(self.files)
        if seen == self._seen and not self.trouble and not anyway:
            return False
        self._seen = seen
        try:
            found = read(self.files, self._now())
        except Exception as error:  # noqa: BLE001 - whatever is the matter with files, who answers goes on with what it has
            reason = error.message if isinstance(error, InvalidCertificate) else repr(error)
            if reason != self.trouble:
                log.error("the new certificate is not taken", reason=reason, expires=self.current.expires.isoformat())  # noqa: TRY400 - the text says it all
            self.trouble = reason
            return False
        changed, self.trouble = found != self.current, ""
        self.current = found
        if changed:
            log.info("the certificate was renewed", expires=found.expires.isoformat())
        return changed

    def state(self) -> dict[str, str | None]:
        """Return what `/readyz` says of it."""
        return {"expires": self.current.expires.isoformat(), "trouble": self.trouble or None}

    def gauges(self) -> Gauges:
        """Return what `/metrics` shows of it."""
        return [(EXPIRES.name, (), self.current.expires.timestamp()), (REFUSED.name, (), float(bool(self.trouble)))]


def tls_files(certificate: str, key: str, client_ca: str, client: Client) -> TlsFiles | None:
    """Return the files of these settings, None without TLS; raises `InvalidCertificate` for half of what is needed."""
    if bool(certificate) != bool(key) or (client_ca and not certificate):
        raise InvalidCertificate("TLS needs both server.tls_certificate and server.tls_key; server.tls_client_ca comes on top.")
    if bool(client_ca) != (client != "none"):
        raise InvalidCertificate(
            "server.tls_client says whether callers' certificates are optional or required, and server.tls_client_ca who signs "
            "them: one goes with the other."
        )
    return TlsFiles(_absolute(certificate), _absolute(key), _absolute(client_ca), client) if certificate else None


def read(files: TlsFiles, now: datetime) -> Certificate:
    """Return the certificate in these files; raises `InvalidCertificate` where it could not be served."""
    from cryptography import x509

    with _in_words("tls_certificate"):
        chain = Path(files.certificate).read_bytes()
    with _in_words("tls_key"):
        key = Path(files.key).read_bytes()
    with _in_words("tls_client_ca"):
        authorities = Path(files.client_ca).read_bytes() if files.client_ca else b""
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
        names = frozenset(_names(first))
    except (ValueError, x509.DuplicateExtension) as error:
        raise InvalidCertificate(
            "The file of server.tls_certificate cannot be used: it holds no certificate in PEM."
        ) from error
    found = Certificate(chain, key, authorities, files.client, first.not_valid_after_utc, names)
    found.context()
    if found.expires <= now:
        raise InvalidCertificate(f"The certificate of server.tls_certificate has expired ({found.expires:%Y-%m-%d %H:%M} UTC).")
    if first.not_valid_before_utc > now:
        raise InvalidCertificate(
            f"The certificate of server.tls_certificate is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC."
        )
    return found


def check_apart(files: TlsFiles) -> None:
    """Raise `InvalidCertificate` where these files cannot be used. Another process looks: this one never has the key."""
    command = [sys.executable, "-I", "-m", "modelkeep.infra.tls", files.certificate, files.key, files.client_ca, files.client]
    done = subprocess.run(command, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_PATIENCE_S, check=True)
    if done.stdout:
        raise InvalidCertificate(done.stdout.decode())


def _names(certificate: "x509.Certificate") -> Iterator[str]:
    from cryptography import x509

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (name.lower() for name in alternatives.get_values_for_type(x509.DNSName))
    yield from (str(address) for address in alternatives.get_values_for_type(x509.IPAddress))


@contextmanager
def _nameable(content: bytes) -> Iterator[str]:
    """Yield a path at which OpenSSL finds bytes that were read once, and checked: the files may be others by now."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextmanager
def _in_words(setting: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise InvalidCertificate(f"The files of server.{setting} cannot be used: {reason}.") from error
    except OSError as error:
        raise InvalidCertificate(f"The file of server.{setting} cannot be read: {error.strerror}.") from error


def _stamps(files: TlsFiles) -> list[tuple[int, int, int] | None]:
    """Return what changes with the files, and with those that a name leads to."""
    return [_stamp(name) for name in (files.certificate, files.key, files.client_ca) if name]


def _stamp(name: str) -> tuple[int, int, int] | None:
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _absolute(name: str) -> str:
    return str(Path(name).absolute()) if name else ""


if __name__ == "__main__":
    _program, _certificate, _key, _client_ca, _client = sys.argv
    try:
        read(TlsFiles(_certificate, _key, _client_ca, _client), datetime.now(UTC))  # type: ignore[arg-type] # as it was given
    except InvalidCertificate as trouble:
        sys.stdout.write(trouble.message)
