"""The certificate of a process: what is taken, what is refused in words, and what happens when its files change."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelkeep.infra.certificates import Authority
from modelkeep.infra.tls import EXPIRES, REFUSED, InvalidCertificate, Renewing, TlsFiles, check_apart, read, tls_files

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def made(folder: Path, *hosts: str, days: int = 30, now: datetime = NOW) -> TlsFiles:
    certificate, key = Authority(folder, now).sign_server(hosts or ("127.0.0.1",), days=days, force=True)
    return TlsFiles(str(certificate), str(key))


def test_the_files_become_a_context_of_tls_1_2_and_1_3_with_ciphers_that_keep_the_past_secret(tmp_path: Path) -> None:
    context = read(made(tmp_path), NOW).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    named = [one["name"] for one in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "POLY1305" in name) for name in named)
    assert len(named) >= 8
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(("client", "mode"), [("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)])
def test_callers_are_asked_for_a_certificate_where_that_is_said(tmp_path: Path, client: str, mode: ssl.VerifyMode) -> None:
    files = made(tmp_path)
    asked = tls_files(files.certificate, files.key, str(tmp_path / "ca.pem"), client)  # type: ignore[arg-type]
    assert asked is not None
    context = read(asked, NOW).context()
    assert context.verify_mode is mode
    assert len(context.get_ca_certs()) == 1


def test_a_certificate_says_what_it_is_for_and_how_long(tmp_path: Path) -> None:
    found = read(made(tmp_path, "models.Example.org", "*.inner.example", "::1", days=30), NOW)
    assert found.names == {"models.example.org", "*.inner.example", "::1"}
    assert found.expires == NOW + timedelta(days=30)


def test_without_settings_there_is_no_tls() -> None:
    assert tls_files("", "", "", "none") is None


@pytest.mark.parametrize(
    "given",
    [
        ("a", "", "", "none"),
        ("", "a", "", "none"),
        ("", "", "a", "required"),
        ("a", "a", "a", "none"),
        ("a", "a", "", "required"),
        ("a", "a", "", "optional"),
    ],
)
def test_half_of_the_settings_is_refused(given: tuple[str, str, str, str]) -> None:
    with pytest.raises(InvalidCertificate):
        tls_files(*given)  # type: ignore[arg-type]


def spoil(files: TlsFiles, how: str, folder: Path) -> TlsFiles:
    other = made(folder / "other")
    match how:
        case "no file":
            return TlsFiles(str(folder / "none.pem"), files.key)
        case "no key":
            return TlsFiles(files.certificate, str(folder / "none.key"))
        case "not PEM":
            Path(files.certificate).write_bytes(b"\x30\x82")
        case "cut":
            Path(files.certificate).write_bytes(Path(files.certificate).read_bytes()[:200])
        case "a folder":
            return TlsFiles(str(folder), files.key)
        case "another's key":
            return TlsFiles(files.certificate, other.key)
        case "no authorities":
            (folder / "empty.pem").write_bytes(b"")
            return TlsFiles(files.certificate, files.key, str(folder / "other" / "server.key"), "required")
        case "expired":
            return made(folder / "old", days=1, now=NOW - timedelta(days=2))
        case "of tomorrow":
            return made(folder / "new", now=NOW + timedelta(days=1))
    return files


SPOILT = {
    "no file": "cannot be read",
    "no key": "cannot be read",
    "not PEM": "no certificate in PEM",
    "cut": "no certificate in PEM",
    "a folder": "cannot be read",
    "another's key": "key values mismatch",
    "no authorities": "tls_client_ca",
    "expired": "has expired",
    "of tomorrow": "is not valid before",
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_could_not_be_served_is_refused_in_words(tmp_path: Path, how: str) -> None:
    files = made(tmp_path)
    read(files, NOW)
    with pytest.raises(InvalidCertificate, match=SPOILT[how]) as refused:
        read(spoil(files, how, tmp_path), NOW)
    assert str(tmp_path) not in refused.value.message


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    files = made(tmp_path)
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    Path(files.key).write_bytes(key.private_bytes(*form))
    with pytest.raises(InvalidCertificate, match="cannot be used"):
        read(files, NOW)


def test_another_process_checks_the_files(tmp_path: Path) -> None:
    files = made(tmp_path, now=datetime.now(UTC))
    check_apart(files)
    Path(files.key).write_bytes(b"")
    with pytest.raises(InvalidCertificate, match="tls_key cannot be used"):
        check_apart(files)


def test_new_files_are_taken_and_the_same_ones_are_not_read_again(tmp_path: Path) -> None:
    renewing = Renewing(made(tmp_path), lambda: NOW)
    before = renewing.current
    assert not renewing.tend()
    made(tmp_path, days=60)
    assert renewing.tend()
    assert renewing.current.expires == NOW + timedelta(days=60)
    assert renewing.current.chain != before.chain
    assert not renewing.tend()


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    for name, days in (("one", 10), ("two", 20)):
        made(tmp_path / name, days=days)
    link = tmp_path / "now"
    link.symlink_to(tmp_path / "one")
    renewing = Renewing(TlsFiles(str(link / "server.pem"), str(link / "server.key")), lambda: NOW)
    (tmp_path / "next").symlink_to(tmp_path / "two")
    (tmp_path / "next").replace(link)
    assert renewing.tend()
    assert renewing.current.expires == NOW + timedelta(days=20)


def test_somebody_may_say_that_files_have_changed_which_do_not_look_it(tmp_path: Path) -> None:
    files = made(tmp_path / "one")
    renewing = Renewing(files, lambda: NOW)
    times = [(Path(name), Path(name).stat()) for name in (files.certificate, files.key)]
    other = made(tmp_path / "two", days=99)
    for (path, was), new in zip(times, (other.certificate, other.key), strict=True):
        path.write_bytes(Path(new).read_bytes())
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    renewing.tend(anyway=True)
    assert renewing.current.expires == NOW + timedelta(days=99)


def test_files_that_cannot_be_used_change_nothing_until_they_can(tmp_path: Path) -> None:
    files = made(tmp_path)
    renewing = Renewing(files, lambda: NOW)
    before, shown = renewing.current, dict.fromkeys((EXPIRES.name, REFUSED.name))
    certificate = Path(files.certificate).read_bytes()
    Path(files.certificate).write_bytes(b"nothing")
    assert not renewing.tend()
    assert renewing.current is before
    assert "no certificate in PEM" in renewing.trouble
    assert renewing.state() == {"expires": before.expires.isoformat(), "trouble": renewing.trouble}
    shown = {name: value for name, _labels, value in renewing.gauges()}
    assert shown == {EXPIRES.name: before.expires.timestamp(), REFUSED.name: 1.0}
    Path(files.certificate).write_bytes(certificate)
    assert not renewing.tend(), "the same certificate as before"
    assert renewing.trouble == ""
    assert {value for name, _labels, value in renewing.gauges() if name == REFUSED.name} == {0.0}


def test_whatever_reading_raises_the_certificate_of_before_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = made(tmp_path)
    renewing = Renewing(files, lambda: NOW)
    before = renewing.current

    def none_left(*_given: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", none_left)
        assert not renewing.tend(anyway=True)
    assert renewing.current is before
    assert "Too many open files" in renewing.trouble
    assert not renewing.tend(), "the same certificate as before"
    assert renewing.trouble == ""
