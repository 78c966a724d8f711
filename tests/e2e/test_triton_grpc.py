"""The gRPC client of Triton, unchanged, against a whole installation: two server processes on one port, and TLS."""

import asyncio
import datetime as dt
import ipaddress
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tritonclient import grpc as triton
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, eventually, free_port, installed
from modelkeep.contracts.signature import Dtype

SAMPLES = {
    Dtype.BOOL: [[True, False], [False, True]],
    Dtype.FP16: [[0.1, -65504.0], [6e-08, np.inf]],
    Dtype.FP32: [[0.1, -3.4e38], [1e-45, np.nan]],
    Dtype.FP64: [[0.1, -1.7e308], [5e-324, np.nan]],
    Dtype.BYTES: [[b"", "gr\u00fc\u00df \U0001f600".encode()], [b"a" * 300, b"\x01"]],
}


def sample(dtype: Dtype) -> np.ndarray:
    if dtype in SAMPLES:
        return np.array(SAMPLES[dtype], np.object_ if dtype is Dtype.BYTES else dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    return np.array([[limits.min, limits.max], [0, 1]], dtype.numpy)


def np_to_onnx(dtype: Dtype) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype.numpy)))


def tensor(client: object, array: np.ndarray, dtype: Dtype) -> object:
    one = client.InferInput("x", list(array.shape), dtype.value)
    one.set_data_from_numpy(array)
    return one


def address(house: Installation) -> str:
    return f"127.0.0.1:{house.grpc_port}"


def key(house: Installation) -> dict[str, str]:
    return {"x-api-key": house.key}


@pytest.fixture
def client(house: Installation, echoes: dict[Dtype, str]) -> Iterator[triton.InferenceServerClient]:
    assert echoes
    with triton.InferenceServerClient(address(house)) as found:
        yield found


def test_the_server_lives_and_is_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


@pytest.mark.parametrize("dtype", list(Dtype))
def test_every_datatype_comes_back_bit_by_bit(house: Installation, client: triton.InferenceServerClient, dtype: Dtype) -> None:
    array = sample(dtype)
    answer = client.infer(
        f"echo-{dtype.value.lower()}",
        [tensor(triton, array, dtype)],
        outputs=[triton.InferRequestedOutput("y")],
        request_id="n-1",
        headers=key(house),
    )
    assert answer.get_response().id == "n-1"
    got = answer.as_numpy("y")
    assert got.dtype == array.dtype
    assert got.tolist() == array.tolist() if dtype is Dtype.BYTES else got.tobytes() == array.tobytes()


def test_a_tensor_of_many_megabytes_comes_back(house: Installation, client: triton.InferenceServerClient) -> None:
    array = np.arange(2_000_000, dtype=np.float32).reshape(-1, 2)
    answer = client.infer("echo-fp32", [tensor(triton, array, Dtype.FP32)], headers=key(house))
    assert answer.as_numpy("y").tobytes() == array.tobytes()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_messages_are_taken(house: Installation, client: triton.InferenceServerClient, algorithm: str) -> None:
    array = np.arange(20_000, dtype=np.float32).reshape(-1, 2) // 100
    answer = client.infer("echo-fp32", [tensor(triton, array, Dtype.FP32)], headers=key(house), compression_algorithm=algorithm)
    assert answer.as_numpy("y").tobytes() == array.tobytes()


async def test_the_client_of_asyncio_compresses_too(house: Installation, echoes: dict[Dtype, str]) -> None:
    array = np.zeros((1_000, 2), np.float32)
    async with triton_aio.InferenceServerClient(address(house)) as client:
        answer = await client.infer(
            "echo-fp32", [tensor(triton_aio, array, Dtype.FP32)], headers=key(house), compression_algorithm="gzip"
        )
    assert answer.as_numpy("y").tobytes() == array.tobytes()


def test_refusals_are_read_by_the_client(house: Installation, client: triton.InferenceServerClient) -> None:
    one = tensor(triton, np.ones((1, 2), np.float32), Dtype.FP32)
    for model, headers, status in (
        ("echo-fp32", None, "UNAUTHENTICATED"),
        ("echo-fp32", {"x-api-key": "mk_nobody"}, "UNAUTHENTICATED"),
        ("no-such", key(house), "NOT_FOUND"),
        ("echo-bytes", key(house), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            client.infer(model, [one], headers=headers)
        assert refused.value.status() == f"StatusCode.{status}"


async def test_the_client_of_asyncio_and_its_stream(house: Installation, echoes: dict[Dtype, str]) -> None:
    array = sample(Dtype.INT64)
    async with triton_aio.InferenceServerClient(address(house)) as client:
        assert await client.is_server_ready()
        questions = [
            client.infer("echo-int64", [tensor(triton_aio, array, Dtype.INT64)], headers=key(house)) for _ in range(20)
        ]
        for answer in await asyncio.gather(*questions):
            assert answer.as_numpy("y").tobytes() == array.tobytes()

        async def asked():
            for number in range(3):
                yield {
                    "model_name": "echo-int64" if number != 1 else "no-such",
                    "inputs": [tensor(triton_aio, array + number % 2 * 0, Dtype.INT64)],
                    "request_id": str(number),
                }

        told = [one async for one in client.stream_infer(asked(), headers=key(house))]
    assert [error is None for _answer, error in told] == [True, False, True]
    assert told[2][0].as_numpy("y").tobytes() == array.tobytes()


def test_a_stream_of_the_other_client(house: Installation, client: triton.InferenceServerClient) -> None:
    array, told = sample(Dtype.UINT64), []
    client.start_stream(lambda result, error: told.append((result, error)), headers=key(house))
    for _ in range(5):
        client.async_stream_infer("echo-uint64", [tensor(triton, array, Dtype.UINT64)])
    eventually(lambda: len(told) == 5, "five answers")
    client.stop_stream()
    assert all(error is None and result.as_numpy("y").tobytes() == array.tobytes() for result, error in told)


def test_what_was_asked_is_in_the_history(house: Installation, client: triton.InferenceServerClient) -> None:
    answer = client.infer("echo-fp64", [tensor(triton, sample(Dtype.FP64), Dtype.FP64)], headers=key(house))
    name = answer.get_response().parameters["prediction_id"].string_param
    with house.http() as http:
        eventually(lambda: http.get(f"/api/v1/predictions/{name}").status_code == 200, "the prediction in the history")
        kept = http.get(f"/api/v1/predictions/{name}").json()
        page = http.get("/metrics").text
    assert kept["dialect"] == "v2-grpc"
    assert kept["inputs"]["base64"]
    assert 'modelkeep_grpc_requests_total{method="ModelInfer",code="OK"}' in page


def test_the_server_and_its_models_describe_themselves(house: Installation, client: triton.InferenceServerClient) -> None:
    assert "model_repository" in client.get_server_metadata(headers=key(house)).extensions
    described = client.get_model_metadata("echo-int16", headers=key(house))
    assert [(one.name, one.datatype, list(one.shape)) for one in described.inputs] == [("x", "INT16", [-1, 2])]
    config = client.get_model_config("echo-bytes", headers=key(house)).config
    assert (config.name, config.input[0].data_type, list(config.output[0].dims)) == ("echo-bytes", 13, [2])
    assert client.is_model_ready("echo-int16", headers=key(house))
    client.infer("echo-int16", [tensor(triton, sample(Dtype.INT16), Dtype.INT16)], headers=key(house))
    (counted,) = client.get_inference_statistics("echo-int16", headers=key(house)).model_stats
    assert counted.inference_count >= 2
    assert counted.inference_stats.success.ns > 0
    everything = client.get_inference_statistics(headers=key(house)).model_stats
    assert {one.name for one in everything} >= {f"echo-{dtype.value.lower()}" for dtype in Dtype}
    index = client.get_model_repository_index(headers=key(house)).models
    assert {(one.name, one.state) for one in index} >= {("echo-int8", "READY")}


def test_a_model_is_unloaded_and_loaded_again(
    house: Installation, client: triton.InferenceServerClient, tmp_path: Path
) -> None:
    file = tmp_path / "echo.onnx"
    file.write_bytes(onnx_identity(np_to_onnx(Dtype.FP32)))
    with house.client() as modelkeep:
        modelkeep.push(file, "comes-and-goes")
    client.unload_model("comes-and-goes", headers=key(house))
    with pytest.raises(InferenceServerException) as refused:
        client.infer("comes-and-goes", [tensor(triton, sample(Dtype.FP32), Dtype.FP32)], headers=key(house))
    assert refused.value.status() == "StatusCode.NOT_FOUND"
    client.load_model("comes-and-goes", headers=key(house))
    assert client.is_model_ready("comes-and-goes", headers=key(house))
    for name in ("no-such", "../../../api/v1/keys"):
        with pytest.raises(InferenceServerException) as refused:
            client.load_model(name, headers=key(house))
        assert refused.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as refused:
        client.unload_model("comes-and-goes")
    assert refused.value.status() == "StatusCode.UNAUTHENTICATED"


# ---- processes


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two server processes on one port."""
    environment = {"MODELKEEP_SERVER__GRPC_PORT": str(free_port()), "MODELKEEP_SERVER__PROCESSES": "2"}
    with installed(tmp_path_factory.mktemp("pair") / "data", **environment) as installation:
        yield installation


def test_the_banner_names_the_address(pair: Installation) -> None:
    assert f"over gRPC at {address(pair)}" in pair.log.read_text()


def _callers(process: psutil.Process, port: int) -> set[int]:
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr and one.laddr.port == port}


def _channel_of(pair: Installation, process: psutil.Process) -> grpc.Channel:
    """A channel whose connection this process has accepted."""
    for _attempt in range(100):
        before = _callers(process, pair.grpc_port)
        channel = grpc.insecure_channel(address(pair), options=(("grpc.use_local_subchannel_pool", 1),))
        grpc.channel_ready_future(channel).result(10)
        if _callers(process, pair.grpc_port) - before:
            return channel
        channel.close()
    raise AssertionError("a hundred connections, and all went to the other process")


def _live(channel: grpc.Channel) -> bytes:
    return channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=10)


def test_both_processes_answer_and_a_killed_one_takes_its_own_callers_alone(pair: Installation) -> None:
    victim, other = (pair.role(name) for name in ("server-1", "server-2"))
    assert victim is not None
    assert other is not None
    theirs, ours = _channel_of(pair, victim), _channel_of(pair, other)
    stream = ours.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(()), metadata=tuple(key(pair).items()))
    assert list(stream) == []
    watch = ours.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    assert next(watch)
    assert _live(theirs)
    victim.send_signal(signal.SIGKILL)
    for _ in range(50):
        assert _live(ours)
    eventually(lambda: pair.role("server-1") not in {None, victim}, "the server is started again")
    again = pair.role("server-1")
    assert again is not None
    eventually(lambda: _answers(theirs), "its callers are answered again")
    _channel_of(pair, again).close()
    assert watch.is_active()
    for channel in (theirs, ours):
        channel.close()


def _answers(channel: grpc.Channel) -> bool:
    try:
        return _live(channel) is not None
    except grpc.RpcError:
        return False


def test_a_port_that_is_taken_is_refused_at_once(pair: Installation, tmp_path: Path) -> None:
    second = Installation(tmp_path / "data", MODELKEEP_SERVER__GRPC_PORT=str(pair.grpc_port)).start()
    assert second._process is not None
    assert second._process.wait(30) != 0
    assert f"Port {pair.grpc_port} on 127.0.0.1 is in use by another program. Choose another with --grpc-port." in " ".join(
        second.log.read_text().split()
    )


# ---- TLS


def _certificate(folder: Path, name: str, issuer: tuple | None = None) -> tuple:
    """A certificate and its key, in files; signed by `issuer`, or by itself as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return built, key


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Path]]:
    """An installation whose gRPC port has TLS, and wants a certificate of its callers."""
    folder = tmp_path_factory.mktemp("tls")
    authority = _certificate(folder, "authority")
    for name in ("server", "caller"):
        _certificate(folder, name, authority)
    _certificate(folder, "stranger")
    environment = {
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(folder / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(folder / "server.key"),
        "MODELKEEP_SERVER__TLS_CLIENT_CA": str(folder / "authority.pem"),
        "MODELKEEP_SERVER__TLS_CLIENT": "required",
    }
    pair = str(folder / "caller.pem"), str(folder / "caller.key")
    with installed(folder / "data", authority=str(folder / "authority.pem"), certificate=pair, **environment) as installation:
        file = folder / "echo.onnx"
        file.write_bytes(onnx_identity(np_to_onnx(Dtype.FP32)))
        with installation.client() as client:
            client.push(file, "echo-fp32")
        yield installation, folder


def _sealed_client(house: Installation, folder: Path, name: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(
        address(house),
        ssl=True,
        root_certificates=str(folder / "authority.pem"),
        private_key=str(folder / f"{name}.key"),
        certificate_chain=str(folder / f"{name}.pem"),
    )


def test_a_caller_with_a_certificate_is_answered_over_tls(sealed: tuple[Installation, Path]) -> None:
    house, folder = sealed
    array = sample(Dtype.FP32)
    with _sealed_client(house, folder, "caller") as client:
        assert client.is_server_ready()
        answer = client.infer("echo-fp32", [tensor(triton, array, Dtype.FP32)], headers=key(house))
    assert answer.as_numpy("y").tobytes() == array.tobytes()


async def test_the_client_of_asyncio_is_answered_over_tls(sealed: tuple[Installation, Path]) -> None:
    house, folder = sealed
    files = (folder / "authority.pem", folder / "caller.key", folder / "caller.pem")
    creds = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    async with triton_aio.InferenceServerClient(address(house), creds=creds) as client:
        answer = await client.infer(
            "echo-fp32", [tensor(triton_aio, np.ones((1, 2), np.float32), Dtype.FP32)], headers=key(house)
        )
    assert answer.as_numpy("y").tolist() == [[1.0, 1.0]]


def test_nobody_else_is(sealed: tuple[Installation, Path]) -> None:
    house, folder = sealed
    with _sealed_client(house, folder, "stranger") as client, pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=3)
    with triton.InferenceServerClient(address(house)) as client, pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=3)
    log = house.log.read_text()
    assert "PRIVATE KEY" not in log
    assert house.key not in log


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("server.pem", "caller.key", "key values mismatch"),
        ("server.pem", "", "needs both"),
        ("nowhere.pem", "server.key", "No such file"),
        ("server.key", "server.key", "cannot be used"),
    ],
)
def test_what_is_no_certificate_with_its_key_is_refused_at_the_start(
    sealed: tuple[Installation, Path], tmp_path: Path, certificate: str, key: str, said: str
) -> None:
    _house, folder = sealed
    environment = {
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(folder / certificate),
        "MODELKEEP_SERVER__TLS_KEY": str(folder / key) if key else "",
    }
    wrong = Installation(tmp_path / "data", **environment).start()
    assert wrong._process is not None
    assert wrong._process.wait(30) != 0
    assert said in " ".join(wrong.log.read_text().split())


# ---- the end


def test_an_installation_with_callers_ends_without_waiting_for_them(tmp_path: Path) -> None:
    environment = {"MODELKEEP_SERVER__GRPC_PORT": str(free_port()), "MODELKEEP_SERVER__DRAIN_S": "600"}
    with installed(tmp_path / "data", **environment) as installation:
        with grpc.insecure_channel(address(installation)) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            assert next(watch)
            assert installation.stop(60) == 0
            told = []
            with pytest.raises(grpc.RpcError) as ended:
                told.extend(watch)
        assert told == [b"\x08\x02"]
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "Traceback" not in installation.log.read_text()
