"""Certificates that are made here: what they are for, how long, and that none is overwritten."""

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from modelkeep.infra.certificates import AlreadyThere, Authority, CannotMake

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def loaded(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_openssl_finds_server_and_client_signed_for_their_purpose_and_no_other(tmp_path: Path) -> None:
    authority = Authority(tmp_path, datetime.now(UTC))
    server, _key = authority.sign_server(["models.example.org", "10.0.0.5"], days=10, force=False)
    client, _key = authority.sign_client("scoring", days=10, force=False)

    def verified(file: Path, purpose: str, *options: str) -> bool:
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            str(authority.file),
            "-purpose",
            purpose,
            *options,
            str(file),
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert verified(server, "sslserver", "-verify_hostname", "models.example.org")
    assert verified(server, "sslserver", "-verify_ip", "10.0.0.5")
    assert not verified(server, "sslserver", "-verify_hostname", "evil.example")
    assert not verified(server, "sslclient")
    assert verified(client, "sslclient")
    assert not verified(client, "sslserver")


def test_lifetimes_are_sane_and_keys_are_nobody_elses_to_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path, NOW)
    server, key = authority.sign_server(["a"], days=397, force=False)
    assert loaded(server).not_valid_after_utc == NOW + timedelta(days=397)
    assert loaded(authority.file).not_valid_after_utc == NOW + timedelta(days=3650)
    client, client_key = authority.sign_client("c", days=397, force=False)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (key, client_key, tmp_path / "ca.key")} == {0o600}
    assert loaded(client).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == sorted(
        ["ca.key", "ca.pem", "server.key", "server.pem", "c.key", "c.pem"]
    )


def test_nothing_is_overwritten_unless_that_is_said_and_the_authority_stays(tmp_path: Path) -> None:
    server, key = Authority(tmp_path, NOW).sign_server(["a"], days=1, force=False)
    before = {file: file.read_bytes() for file in (server, key, tmp_path / "ca.pem", tmp_path / "ca.key")}
    with pytest.raises(AlreadyThere, match="--force"):
        Authority(tmp_path, NOW).sign_server(["a"], days=1, force=False)
    assert {file: file.read_bytes() for file in before} == before
    Authority(tmp_path, NOW).sign_server(["a"], days=1, force=True)
    assert {file.name for file, content in before.items() if file.read_bytes() == content} == {"ca.pem", "ca.key"}
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_half_an_authority_is_not_replaced(tmp_path: Path) -> None:
    Authority(tmp_path, NOW)
    (tmp_path / "ca.key").unlink()
    before = (tmp_path / "ca.pem").read_bytes()
    with pytest.raises(CannotMake):
        Authority(tmp_path, NOW)
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_an_authority_whose_maker_died_after_its_key_is_made_whole(tmp_path: Path) -> None:
    Authority(tmp_path, NOW)
    (tmp_path / "ca.pem").unlink()
    key = (tmp_path / "ca.key").read_bytes()
    Authority(tmp_path, NOW).sign_server(["a"], days=1, force=False)
    assert (tmp_path / "ca.key").read_bytes() == key
    assert (tmp_path / "ca.pem").exists()


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64 + ".example"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(CannotMake):
        Authority(tmp_path, NOW).sign_server([host], days=1, force=False)
