"""The doctor: each thing that can be wrong is found, and said with what to do."""

import json
import socket
import sqlite3
from datetime import UTC, datetime

import pytest

from fixtures.standin import KEY
from modelkeep.app import doctor
from modelkeep.infra.certificates import Authority


@pytest.fixture
def examined(command, tmp_path, monkeypatch):
    """Runs the doctor on a fresh data directory and a free port; returns findings by their subject."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    monkeypatch.setenv("MODELKEEP_SERVER__PORT", str(port))

    def run(*arguments):
        done = command("doctor", "--json", *arguments)
        found = {finding["subject"]: finding for finding in json.loads(done.out)}
        return done.code, found

    run.port = port
    return run


def starting(found, subject):
    return next(finding for name, finding in found.items() if name.startswith(subject))


def test_a_sound_installation_passes(examined):
    code, found = examined()
    assert code == 0
    assert {finding["status"] for finding in found.values()} <= {"ok", "info"}
    assert "writable" in starting(found, "data directory")["detail"]
    assert starting(found, "port")["detail"] == "free"
    assert "made at the first start" in found["database"]["detail"]
    assert "GiB in this machine or container" in found["memory"]["detail"]
    assert found["sandbox"]["detail"].startswith(("L3, ", "L2, "))  # tried here and now, whatever machine this is
    assert found["runner onnx"]["status"] == "ok"
    assert ".joblib" in found["runner sklearn"]["detail"]
    assert "ready" in starting(found, "server")["detail"]
    assert found["api key"]["detail"] == "admin: admin"


def test_settings_are_shown_with_where_they_come_from(examined, tmp_path):
    (tmp_path / "modelkeep.toml").write_text("[log]\nlevel = 'debug'\n")
    _code, found = examined("--data", tmp_path / "elsewhere")
    assert found["setting log.level"]["detail"] == "debug (from modelkeep.toml)"
    assert "MODELKEEP_SERVER__PORT" in found["setting server.port"]["detail"]
    assert found["setting data"]["detail"].endswith("(from command line)")


def test_wrong_settings_fail(examined, tmp_path):
    (tmp_path / "modelkeep.toml").write_text("[log]\nlvel = 'debug'\n")
    code, found = examined()
    assert code == 1
    assert "log.level" in found["settings"]["detail"]


def test_a_data_directory_that_is_a_file_fails(examined, tmp_path):
    (tmp_path / "file").write_text("")
    code, found = examined("--data", tmp_path / "file")
    assert code == 1
    assert "not a directory" in starting(found, "data directory")["detail"]


def test_a_data_directory_that_cannot_be_written_fails(examined, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    code, found = examined()
    assert code == 1
    assert "Permission denied" in starting(found, "data directory")["detail"]


@pytest.mark.parametrize(("free", "status"), [(10 * 1024**2, "fail"), (500 * 1024**2, "warn")])
def test_a_disk_that_fills_is_noticed(examined, monkeypatch, free, status):
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": free}))
    _code, found = examined()
    assert starting(found, "data directory")["status"] == status


def test_a_port_that_another_program_has_fails(examined, monkeypatch):
    with socket.create_server(("127.0.0.1", examined.port)):
        code, found = examined()
    assert code == 1
    assert "choose another" in starting(found, "port")["advice"]


def test_a_port_that_modelkeep_has_is_fine(examined, standin, monkeypatch):
    monkeypatch.setenv("MODELKEEP_SERVER__PORT", standin.url.rpartition(":")[2])
    _code, found = examined()
    assert starting(found, "port")["detail"] == "in use by Modelkeep 0.1.0"


def test_the_port_of_grpc_is_looked_at_where_there_is_one(examined, monkeypatch):
    assert not any("gRPC" in subject for subject in examined()[1])
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number = sock.getsockname()[1]
        monkeypatch.setenv("MODELKEEP_SERVER__GRPC_PORT", str(number))
        subject = f"port {number} on 127.0.0.1 for gRPC without TLS"
        code, found = examined()
        assert (code, found[subject]["status"]) == (1, "fail")
        assert "--grpc-port" in found[subject]["advice"]
    code, found = examined()
    assert (code, found[subject]["detail"]) == (0, "free")


def test_the_certificate_is_looked_at_where_there_is_one(examined, monkeypatch, tmp_path):
    assert "certificate" not in examined()[1]
    monkeypatch.setenv("MODELKEEP_SERVER__TLS_CERTIFICATE", str(tmp_path / "server.pem"))
    code, found = examined()
    assert (code, found["certificate"]["status"]) == (1, "fail")
    monkeypatch.setenv("MODELKEEP_SERVER__TLS_KEY", str(tmp_path / "server.key"))
    for days, status in ((60, "ok"), (3, "warn")):
        Authority(tmp_path, datetime.now(UTC)).sign_server(["models.example.org"], days=days, force=True)
        code, found = examined()
        assert (code, found["certificate"]["status"]) == (0, status)
        assert found["certificate"]["detail"].startswith("for models.example.org, until ")


def test_a_damaged_database_fails(examined, tmp_path):
    data = tmp_path / ".modelkeep"
    data.mkdir()
    with sqlite3.connect(data / "modelkeep.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert examined()[1]["database"]["status"] == "ok"
    (data / "modelkeep.db").write_bytes(b"no database, and long enough to be looked at" * 100)
    code, found = examined()
    assert code == 1
    assert "backup" in found["database"]["advice"]


def test_a_postgresql_that_is_down_fails(examined, monkeypatch):
    monkeypatch.setenv("MODELKEEP_DATABASE__URL", "postgresql://user:s3cret@127.0.0.1:1/modelkeep?sslpassword=s3cret")
    code, found = examined()
    assert code == 1
    assert found["database"]["detail"].startswith("postgresql://user:***@127.0.0.1:1/modelkeep?sslpassword=***: ")
    assert "s3cret" not in json.dumps(list(found.values()))


def test_a_server_that_is_down_or_not_ready_is_a_warning(examined, standin, no_server):
    standin.ready = False
    assert "models are being loaded" in starting(examined()[1], "server")["detail"]
    code, found = examined("--url", no_server)
    assert code == 0
    assert starting(found, "server")["status"] == "warn"


def test_a_key_is_checked(examined):
    code, found = examined("--key", "mk_wrong")
    assert code == 1
    assert found["api key"]["status"] == "fail"
    assert examined("--key", "")[1]["api key"]["status"] == "info"
    assert examined("--key", KEY)[1]["api key"]["status"] == "ok"


def test_an_address_that_is_none_fails(examined):
    code, found = examined("--url", "http://[")
    assert code == 1
    assert starting(found, "server http://[")["status"] == "fail"


def test_a_runner_without_its_framework_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda module: module != "sklearn")
    finding = next(one for one in doctor.plugins() if one.subject == "runner sklearn")
    assert finding.status == "warn"
    assert "pip install 'modelkeep[sklearn]'" in finding.advice


def test_a_runner_that_cannot_be_imported_is_a_warning(monkeypatch):
    def broken(_group, _name):
        raise ImportError("no such module")

    monkeypatch.setattr("modelkeep.contracts.discovery.find", broken)
    assert {finding.status for finding in doctor.plugins()} == {"warn"}


def test_an_old_sqlite_fails(monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 7, 0))
    (finding,) = doctor.sqlite()
    assert finding.status == "fail"


def test_a_person_reads_lines(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELKEEP_SERVER__PORT", "0")
    done = command("doctor", "--url", "http://127.0.0.1:1")
    assert any(line.startswith("ok   sqlite") for line in done.out.splitlines())
    assert "      Start it with `modelkeep serve`" in done.out
