"""The whole installation over TLS: real clients, certificates that are renewed while it answers, and who holds the keys."""

import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from onnx import TensorProto

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, eventually, free_port
from modelkeep.client import Client, ServerUnreachable
from modelkeep.infra.certificates import Authority

ROWS = {"inputs": [[1.0, 2.0]]}


def sign(folder: Path, *, days: int = 30, now: datetime | None = None) -> None:
    Authority(folder, now or datetime.now(UTC)).sign_server(["127.0.0.1", "localhost"], days=days, force=True)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("tls")
    sign(folder)
    environment = {
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(folder / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(folder / "server.key"),
        "MODELKEEP_SERVER__PROCESSES": "2",
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
    }
    installation = Installation(folder / "data", **environment)
    installation.authority = str(folder / "ca.pem")
    try:
        installation.start().wait().set_up()
        file = folder / "echo.onnx"
        file.write_bytes(onnx_identity(TensorProto.FLOAT))
        with installation.client() as client:
            client.push(file, "echo")
        yield installation
    finally:
        installation.stop()


def predict(house: Installation, http: httpx.Client) -> httpx.Response:
    return http.post(f"{house.url}/api/v1/predict/echo", json=ROWS, headers={"X-API-Key": house.key})


def openssl(house: Installation, *options: str, port: int = 0) -> str:
    where, trust = f"127.0.0.1:{port or house.port}", str(folder(house) / "ca.pem")
    command = ["openssl", "s_client", "-connect", where, "-CAfile", trust, *options]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    return (done.stdout + done.stderr).decode()


def lenient(house: Installation) -> socket.socket:
    """A server that shakes hands once, in any version of TLS: the control."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(folder(house) / "server.pem", folder(house) / "server.key")
    door = socket.create_server(("127.0.0.1", 0))

    def shake() -> None:
        with door, door.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as line:
            line.recv(1)

    threading.Thread(target=shake).start()
    return door


def folder(house: Installation) -> Path:
    return house.data.parent


def test_predictions_pages_and_what_is_forwarded_are_answered_over_tls(house: Installation) -> None:
    with httpx.Client(verify=house.trust) as http:
        answer = predict(house, http)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"] == {"y": [[1.0, 2.0]]}
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        me = http.get(f"{house.url}/api/v1/me", headers={"X-API-Key": house.key})
        assert me.status_code == 200
        assert http.get(f"{house.url}/readyz").json()["certificate"]["trouble"] is None


@pytest.mark.parametrize(("version", "taken"), [("tls1_3", True), ("tls1_2", True), ("tls1_1", False), ("tls1", False)])
def test_openssl_is_answered_in_tls_1_2_and_1_3_only(house: Installation, version: str, taken: bool) -> None:
    options = (f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
    assert ("Cipher is (NONE)" not in (said := openssl(house, *options))) is taken, said
    assert "Cipher is (NONE)" not in openssl(house, *options, port=lenient(house).getsockname()[1])  # the client can


@pytest.mark.parametrize("cipher", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA384"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(house: Installation, cipher: str) -> None:
    assert "Cipher is (NONE)" in openssl(house, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in openssl(house, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")


def test_who_speaks_no_tls_gets_no_answer_and_disturbs_nobody(house: Installation) -> None:
    with socket.create_connection(("127.0.0.1", house.port), timeout=20) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" not in plain.recv(1000)
    with httpx.Client(verify=house.trust) as http:
        assert predict(house, http).status_code == 200


def test_a_client_that_does_not_trust_the_authority_is_told_so(house: Installation) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"{house.url}/healthz")


def shown(house: Installation) -> bytes:
    trust = ssl.create_default_context(cafile=house.authority)
    with (
        socket.create_connection(("127.0.0.1", house.port), timeout=20) as plain,
        trust.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        found = line.getpeercert(binary_form=True)
    assert found is not None
    return found


def shown_over_grpc(house: Installation) -> bool:
    credentials = grpc.ssl_channel_credentials((folder(house) / "ca.pem").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{house.grpc_port}", credentials) as channel:
        return bool(channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=10))


def renewed(house: Installation) -> bool:
    """Whether no server shows another certificate any more: of so many connections, each gets some."""
    return all(shown(house) == on_disk(house) for _ in range(16))


def on_disk(house: Installation) -> bytes:
    return ssl.PEM_cert_to_DER_cert((folder(house) / "server.pem").read_text())


def test_renewals_lose_no_request_and_no_connection(house: Installation) -> None:
    failures, answered, stop = [], 0, threading.Event()

    def keep_asking() -> None:
        nonlocal answered
        while not stop.is_set():
            with httpx.Client(verify=house.trust) as http:  # a handshake for every few requests
                for _ in range(3):
                    try:
                        failures.extend([] if (answer := predict(house, http)).status_code == 200 else [answer.text])
                    except httpx.HTTPError as error:
                        failures.append(repr(error))
                    answered += 1

    with httpx.Client(verify=house.trust) as kept:
        assert predict(house, kept).status_code == 200
        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            for _ in range(10):
                before = shown(house)
                sign(folder(house))
                assert before != on_disk(house)
                house.supervisor.send_signal(signal.SIGHUP)
                eventually(lambda: renewed(house), "the new certificate")
        finally:
            stop.set()
            asking.join()
        assert predict(house, kept).status_code == 200
        (line,) = kept._transport._pool.connections  # type: ignore[attr-defined] # the one of the beginning
        assert line.info().endswith("Request Count: 2")
    assert failures == []
    assert answered > 30
    assert shown_over_grpc(house)


def metric(house: Installation, name: str) -> float:
    with httpx.Client(verify=house.trust) as http:
        page = http.get(f"{house.url}/metrics", headers={"X-API-Key": house.key}).text
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


def test_a_file_is_noticed_without_a_signal_and_metrics_say_when_it_ends(house: Installation) -> None:
    sign(folder(house), days=77)
    ends = datetime.now(UTC) + timedelta(days=77)
    eventually(
        lambda: abs(metric(house, "modelkeep_certificate_expiry_timestamp_seconds") - ends.timestamp()) < 600, "the new end"
    )
    eventually(lambda: renewed(house), "the new certificate")


@pytest.mark.parametrize("how", ["not PEM", "another's key", "expired"])
def test_a_broken_file_is_told_and_the_certificate_before_goes_on(house: Installation, how: str, tmp_path: Path) -> None:
    before, certificate = shown(house), folder(house) / "server.pem"
    good = certificate.read_bytes()
    key = (folder(house) / "server.key").read_bytes()
    if how == "not PEM":
        certificate.write_bytes(b"nothing")
    elif how == "expired":
        sign(folder(house), days=1, now=datetime.now(UTC) - timedelta(days=3))
    else:
        sign(tmp_path)
        certificate.write_bytes((tmp_path / "server.pem").read_bytes())
    try:
        eventually(lambda: metric(house, "modelkeep_certificate_refused") == 1, "a metric that says so")
        with httpx.Client(verify=house.trust) as http:
            for _ in range(8):
                ready = http.get(f"{house.url}/readyz", headers={"connection": "close"})
                eventually(
                    lambda: http.get(f"{house.url}/readyz", headers={"connection": "close"}).json()["certificate"]["trouble"],
                    "the trouble",
                )
                assert ready.status_code == 200
        assert shown(house) == before
        assert "the new certificate is not taken" in house.log.read_text()
    finally:
        certificate.write_bytes(good)
        (folder(house) / "server.key").write_bytes(key)
    eventually(lambda: metric(house, "modelkeep_certificate_refused") == 0, "no trouble any more")


def test_no_process_but_the_servers_has_the_key_or_reads_it(house: Installation) -> None:
    secret = b"".join((folder(house) / "server.key").read_bytes().splitlines()[1:-1])[:48]
    tree = [house.supervisor, *house.supervisor.children(recursive=True)]
    holders = set()
    for process in tree:
        of = Path(f"/proc/{process.pid}")
        with (of / "maps").open() as maps, (of / "mem").open("rb", 0) as memory:
            for line in maps:
                start, end = (int(one, 16) for one in line.split()[0].split("-"))
                if line.split()[1].startswith("r") and "/" not in line and "[v" not in line:
                    memory.seek(start)
                    try:
                        found = secret in memory.read(end - start).replace(b"\n", b"")
                    except OSError:
                        continue
                    if found:
                        holders.add(process.pid)
    servers = {one.pid for one in (house.role("server"), house.role("server-2")) if one is not None}
    assert len(servers) == 2
    assert holders == servers  # the control: that they are found shows that others would be
    assert house.supervisor.pid not in holders
    assert "PRIVATE KEY" not in house.log.read_text()


def test_a_server_that_could_not_answer_is_not_started_and_says_why(tmp_path: Path) -> None:
    sign(tmp_path)
    (tmp_path / "server.key").write_bytes(b"")
    environment = {
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(tmp_path / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(tmp_path / "server.key"),
    }
    installation = Installation(tmp_path / "data", **environment).start()
    assert installation._process is not None
    assert installation._process.wait(30) != 0
    assert "server.tls_key cannot be used" in installation.log.read_text()


def test_callers_without_a_certificate_are_turned_away_where_one_is_required(tmp_path: Path) -> None:
    sign(tmp_path)
    certificate, key = Authority(tmp_path, datetime.now(UTC)).sign_client("scoring", days=1, force=False)
    stranger = Authority(tmp_path / "elsewhere", datetime.now(UTC)).sign_client("scoring", days=1, force=False)
    environment = {
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(tmp_path / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(tmp_path / "server.key"),
        "MODELKEEP_SERVER__TLS_CLIENT_CA": str(tmp_path / "ca.pem"),
        "MODELKEEP_SERVER__TLS_CLIENT": "required",
    }

    def context(*pair: Path) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        if pair:
            made.load_cert_chain(*pair)
        return made

    installation = Installation(tmp_path / "data", **environment)
    installation.authority, installation.certificate = str(tmp_path / "ca.pem"), (str(certificate), str(key))
    try:
        installation.start().wait()
        for nobody in (context(), context(*stranger)):
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{installation.url}/healthz", verify=nobody)
        assert httpx.get(f"{installation.url}/healthz", verify=installation.trust).json()["status"] == "ok"
        with pytest.raises(ServerUnreachable), Client(installation.url, verify=str(tmp_path / "ca.pem"), retries=0) as client:
            client.health()
        with installation.client() as client:
            assert client.health()["status"] == "ok"
    finally:
        installation.stop()
