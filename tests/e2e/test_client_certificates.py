"""Keys that go with client certificates, on a whole installation: two servers, REST, gRPC and the control plane."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from onnx import TensorProto

from fixtures.artifacts import onnx_identity
from fixtures.authority import Callers, der_of
from fixtures.installation import Installation, eventually, free_port
from modelkeep.client import Client, Key, NotAuthenticated
from modelkeep.infra.client_certificates import fingerprint
from modelkeep.serving.protos import open_inference_pb2 as pb

ROWS = {"inputs": [[1.0, 2.0]]}
SCORING = "spiffe://example.org/scoring"


@dataclass
class House:
    """An installation that asks callers for certificates, and whoever signs them."""

    installation: Installation
    callers: Callers
    right: tuple[Path, Path]
    wrong: tuple[Path, Path]

    def line(self, pair: tuple[Path, Path] | None, **headers: str) -> httpx.Client:
        """A client of its own connections."""
        return httpx.Client(base_url=self.installation.url, verify=self.callers.trust(pair), headers=headers, timeout=20)

    def admin(self) -> Client:
        return self.installation.client()


@contextmanager
def key_of(admin: Client, name: str, *scopes: str, stands_for: bool = False) -> Iterator[Key]:
    """A key that goes with the right certificate, for the length of a test."""
    wanted = scopes or ("predict", "models:read")
    made = admin.create_key(name, wanted, rate="unlimited", certificates=[f"uri:{SCORING}"], stands_for=stands_for)
    try:
        yield made
    finally:
        admin.revoke_key(made.id)


def opened(folder: Path, client: str) -> Iterator[House]:
    callers = Callers(folder / "tls")
    certificate, key = callers.server()
    environment = {
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(certificate),
        "MODELKEEP_SERVER__TLS_KEY": str(key),
        "MODELKEEP_SERVER__TLS_CLIENT_CA": str(callers.file),
        "MODELKEEP_SERVER__TLS_CLIENT": client,
        "MODELKEEP_SERVER__PROCESSES": "2",
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
    }
    right, wrong = callers.signs("right", uris=[SCORING]), callers.signs("wrong", uris=["spiffe://example.org/other"])
    probe = callers.signs("probe")
    installation = Installation(folder / "data", **environment)
    installation.authority, installation.certificate = str(callers.file), (str(probe[0]), str(probe[1]))
    try:
        installation.start().wait().set_up()
        file = folder / "echo.onnx"
        file.write_bytes(onnx_identity(TensorProto.FLOAT))
        with installation.client() as admin:
            admin.push(file, "echo")
        yield House(installation, callers, right, wrong)
    finally:
        installation.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield from opened(tmp_path_factory.mktemp("optional"), "optional")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield from opened(tmp_path_factory.mktemp("required"), "required")


def statuses(line: httpx.Client, **headers: str) -> set[int]:
    """What predictions, what is forwarded and an upload are answered, by both servers."""
    found = set()
    for _ in range(8):
        found.add(line.post("/api/v1/predict/echo", json=ROWS, headers=headers).status_code)
        found.add(line.get("/api/v1/me", headers=headers).status_code)
        found.add(line.post("/v2/repository/index", headers=headers).status_code)
    return found


def test_a_stolen_secret_opens_nothing_and_with_its_certificate_all_that_the_key_may(house: House) -> None:
    with house.admin() as admin, key_of(admin, "bound") as key:
        secret = {"x-api-key": str(key.secret)}
        with house.line(house.right) as right, house.line(house.wrong) as wrong, house.line(None) as none:
            eventually(lambda: statuses(right, **secret) == {200}, "news of the key")
            assert statuses(wrong, **secret) == statuses(none, **secret) == {401}
            assert statuses(none, **{"x-api-key": house.installation.key}) == {200}, "the control"
            assert none.get("/api/v1/me", headers=secret).json()["code"] == "wrong_certificate"
            assert none.post("/api/v1/predict/echo", json=ROWS, headers=secret).json()["code"] == "wrong_certificate"
            assert statuses(right) == {401}, "it stands for no key"


def test_a_certificate_stands_for_a_key_until_that_is_bound_anew_or_revoked_on_open_connections_too(house: House) -> None:
    with (
        house.admin() as admin,
        key_of(admin, "jobs", stands_for=True) as key,
        house.line(house.right) as right,
        house.line(house.wrong) as wrong,
        house.line(None) as none,
    ):
        eventually(lambda: statuses(right) == {200}, "news of the key")
        assert right.get("/api/v1/me").json()["key"]["id"] == key.id
        assert statuses(wrong) == statuses(none) == {401}
        assert statuses(right, **{"x-api-key": "mk_wrong"}) == {401}
        assert right.get("/api/v1/me", headers={"x-api-key": house.installation.key}).json()["key"]["name"] == "first key"
        admin.bind_key(key.id, [fingerprint(der_of(house.wrong))], stands_for=True)
        eventually(lambda: statuses(right) == {401} and statuses(wrong) == {200}, "the other certificate")
        admin.bind_key(key.id, [f"uri:{SCORING}"], stands_for=True)
        eventually(lambda: statuses(right) == {200}, "the certificate of the beginning")
        admin.revoke_key(key.id)
        eventually(lambda: statuses(right) == {401}, "the end of the key")
        assert statuses(none, **{"x-api-key": house.installation.key}) == {200}, "the control"


def test_nobody_says_for_themselves_which_certificate_they_have(house: House) -> None:
    with (
        house.admin() as admin,
        key_of(admin, "jobs", stands_for=True),
        house.line(None) as none,
        house.line(house.right) as right,
    ):
        eventually(lambda: statuses(right) == {200}, "news of the key")
        said = f'{{"names":["uri:{SCORING}"],"expires":9e9,"digest":""}}'
        for name in ("x-modelkeep-certificate", "X-Modelkeep-Certificate", "X_Modelkeep_Certificate"):
            assert statuses(none, **{name: said}) == {401}
        assert statuses(none, **{"x-forwarded-client-cert": f"URI={SCORING}"}) == {401}


def test_the_python_client_shows_a_certificate_in_place_of_a_key(house: House) -> None:
    pair = (str(house.right[0]), str(house.right[1]))
    with house.admin() as admin, key_of(admin, "jobs", stands_for=True) as key:
        everybodys = admin.keys()
        (listed,) = [one for one in everybodys if one.id == key.id]
        assert listed.certificate == {"names": [f"uri:{SCORING}"], "stands_for": True}
        with Client(house.installation.url, verify=str(house.callers.file), certificate=pair) as client:
            assert client.me().raw["key"]["id"] == key.id
            eventually(lambda: _answers(client), "a prediction")
        with Client(house.installation.url, verify=str(house.callers.file)) as nobody, pytest.raises(NotAuthenticated):
            nobody.me()


def _answers(client: Client) -> bool:
    try:
        client.predict("echo", [[1.0, 2.0]])
    except NotAuthenticated:
        return False
    return True


def question() -> bytes:
    asked = pb.ModelInferRequest(model_name="echo")
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
    return bytes(asked.SerializeToString())


def rpc(house: House, pair: tuple[Path, Path] | None, *metadata: tuple[str, str], name: str = "ModelInfer") -> Any:
    shown = () if pair is None else (pair[1].read_bytes(), pair[0].read_bytes())
    credentials = grpc.ssl_channel_credentials(house.callers.file.read_bytes(), *shown)
    options = (("grpc.use_local_subchannel_pool", 1),)
    message = question() if name == "ModelInfer" else b"\x12\x04echo"
    with grpc.secure_channel(f"127.0.0.1:{house.installation.grpc_port}", credentials, options) as channel:
        try:
            channel.unary_unary(f"/inference.GRPCInferenceService/{name}")(message, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _each(house: House, code: grpc.StatusCode, *metadata: tuple[str, str]) -> bool:
    """Whether so many connections that both servers have some are answered alike."""
    return all(rpc(house, house.right, *metadata) is code for _ in range(8))


def test_over_grpc_a_certificate_counts_where_one_is_required(strict: House) -> None:
    ok, no = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
    scopes = ["predict", "models:read", "models:write", "deployments:write"]
    with (
        strict.admin() as admin,
        key_of(admin, "jobs", *scopes, stands_for=True) as key,
        key_of(admin, "bound", *scopes) as bound,
    ):
        secret = ("x-api-key", str(bound.secret))
        eventually(lambda: _each(strict, ok) and _each(strict, ok, secret), "news of both keys at both servers")
        for name in ("ModelInfer", "RepositoryModelLoad"):  # the second goes on to the control plane
            assert (rpc(strict, strict.right, name=name), rpc(strict, strict.wrong, name=name)) == (ok, no)
            assert (rpc(strict, strict.right, secret, name=name), rpc(strict, strict.wrong, secret, name=name)) == (ok, no)
        assert rpc(strict, strict.wrong, ("x-api-key", strict.installation.key)) is ok, "the control"
        assert rpc(strict, strict.right, ("x-api-key", "mk_wrong")) is no
        assert rpc(strict, None) is grpc.StatusCode.UNAVAILABLE, "no certificate, no handshake"
        admin.revoke_key(key.id)
        eventually(lambda: _each(strict, no), "the end of the key")


def test_over_grpc_no_certificate_is_asked_for_where_it_is_optional(house: House) -> None:
    with house.admin() as admin, key_of(admin, "jobs", stands_for=True) as key:
        with house.line(house.right) as right:
            eventually(lambda: statuses(right) == {200}, "news of the key")
        assert rpc(house, house.right) is grpc.StatusCode.UNAUTHENTICATED
        assert rpc(house, house.right, ("x-api-key", str(key.secret))) is grpc.StatusCode.UNAUTHENTICATED
        assert rpc(house, house.right, ("x-api-key", house.installation.key)) is grpc.StatusCode.OK, "the control"
