"""Makes certificates where an organisation has no authority of its own: an authority, and what it signs.

Everything lies in one folder: `ca.pem` for all who are to trust, `ca.key` for nobody, `server.pem` and `server.key` for the
server, and a pair for each client under `clients`.
"""

import ipaddress
import os
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelkeep.contracts.errors import Conflict, Invalid

_AUTHORITY_DAYS: Final = 3650
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_EARLIER: Final = timedelta(hours=1)  # for clocks that go after
_KEY_MODE, _CERTIFICATE_MODE, _FOLDER_MODE = 0o600, 0o644, 0o700


class AlreadyThere(Conflict):
    """This file is there already."""

    code = "file_exists"


class CannotMake(Invalid):
    """The certificate cannot be made."""

    code = "certificate_not_made"


class Authority:
    """The authority of a folder: the one that lies there, or a new one."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.file = folder / "ca.pem"
        self._folder = folder
        self._now = now
        key_file = folder / "ca.key"
        try:
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            made = self.file.exists()
            if made or key_file.exists():
                self._key = _signing(serialization.load_pem_private_key(key_file.read_bytes(), None))
            else:
                self._key = ec.generate_private_key(ec.SECP256R1())
                _write(key_file, _private(self._key), _KEY_MODE, force=False)
            if made:
                self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())
                return
            self._certificate = self._made()  # also where whoever wrote the key has died before this
            _write(self.file, _public(self._certificate), _CERTIFICATE_MODE, force=False)
        except OSError as error:
            raise CannotMake(f"The authority in {folder} cannot be read or written: {error.strerror}.") from error
        except (ValueError, TypeError) as error:
            raise CannotMake(f"{self.file} and ca.key beside it are no authority that was made here.") from error

    def sign_server(self, hosts: Iterable[str], *, days: int, force: bool) -> tuple[Path, Path]:
        """Make the server's certificate and key for these names and addresses; returns their files."""
        names = [_alternative(host) for host in dict.fromkeys(hosts)]
        pair = self._folder / "server.pem", self._folder / "server.key"
        return self._sign(pair, "Modelkeep server", names, ExtendedKeyUsageOID.SERVER_AUTH, days, force=force)

    def sign_client(self, name: str, *, days: int, force: bool) -> tuple[Path, Path]:
        """Make a client's certificate and key; returns their files."""
        folder = self._folder / "clients"
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        pair = folder / f"{name}.pem", folder / f"{name}.key"
        return self._sign(pair, name, [x509.DNSName(name)], ExtendedKeyUsageOID.CLIENT_AUTH, days, force=force)

    def _made(self) -> x509.Certificate:
        name = _name(f"Modelkeep authority {secrets.token_hex(4)}")  # two of them in one store of trust are to be told apart
        builder = _begun(name, name, self._key.public_key(), self._now, _AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def _sign(
        self,
        pair: tuple[Path, Path],
        name: str,
        alternatives: list[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        days: int,
        *,
        force: bool,
    ) -> tuple[Path, Path]:
        for file in pair:
            if file.exists() and not force:
                raise AlreadyThere(f"{file} is there already; --force replaces it. The authority stays as it is.")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begun(_name(name), self._certificate.subject, key.public_key(), self._now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        signed = builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())
        try:
            _write(pair[1], _private(key), _KEY_MODE, force=force)
            _write(pair[0], _public(signed), _CERTIFICATE_MODE, force=force)
        except OSError as error:
            raise CannotMake(f"{pair[0].parent} cannot be written: {error.strerror}.") from error
        return pair


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass  # a name, then
    try:
        name = host.encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise CannotMake(f"{host!r} is neither the name of a host nor an address.")
    return x509.DNSName(name)


def _signing(key: PrivateKeyTypes) -> ec.EllipticCurvePrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(type(key).__name__)
    return key


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(file: Path, content: bytes, mode: int, *, force: bool) -> None:
    """Write a file that appears at once and whole, and replaces another only by `force`."""
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as opened:
            opened.write(content)
        if force:
            fresh.replace(file)
        else:
            file.hardlink_to(fresh)
    finally:
        fresh.unlink(missing_ok=True)
