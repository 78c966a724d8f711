"""What tritonclient, unchanged, asks of the Open Inference Protocol over HTTP, and what it makes of the answers."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.http.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

from fixtures.installation import Installation, eventually
from fixtures.limits import TEXTS, at_its_limits
from modelkeep.contracts.signature import Dtype


class Asker:
    """A client and the header with its key, which tritonclient takes with each call."""

    def __init__(self, house: Installation, key: str | None = None) -> None:
        self._key = house.key if key is None else key
        self.client = triton.InferenceServerClient(house.url.removeprefix("http://"))

    @property
    def headers(self) -> dict[str, str]:
        """New ones for each call: tritonclient adds to those it is given, and what it adds holds for that call alone."""
        return {"X-API-Key": self._key}

    def infer(self, model: str, array: np.ndarray, *, binary: bool = True, **options: object) -> triton.InferResult:
        options.setdefault("outputs", [triton.InferRequestedOutput("y", binary_data=binary)])
        return self.client.infer(model, [given(array, binary=binary)], headers=self.headers, **options)


def given(array: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    dtype = "BYTES" if array.dtype == object else {dtype.numpy: dtype.value for dtype in Dtype}[array.dtype.name]
    tensor = triton.InferInput("x", list(array.shape), dtype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.fixture
def ask(house: Installation) -> Iterator[Asker]:
    asker = Asker(house)
    yield asker
    asker.client.close()


@pytest.mark.parametrize("dtype", list(Dtype))
def test_every_datatype_goes_both_ways_in_binary_and_in_json(ask: Asker, echoes: dict[Dtype, str], dtype: Dtype) -> None:
    array = at_its_limits(dtype)
    sent = np.array([text.encode() for text in TEXTS], dtype=object).reshape(2, 2) if dtype is Dtype.BYTES else array
    answer = ask.infer(echoes[dtype], sent).as_numpy("y")
    assert answer.tolist() == sent.tolist()
    assert dtype is Dtype.BYTES or answer.tobytes() == array.tobytes()
    if dtype is not Dtype.FP16:  # tritonclient sends no FP16 in JSON
        answer = ask.infer(echoes[dtype], array, binary=False).as_numpy("y")
        assert answer.tolist() == array.tolist()


def test_nan_and_infinity_are_numbers_in_binary(ask: Asker, echoes: dict[Dtype, str]) -> None:
    array = np.array([[np.nan, np.inf], [-np.inf, 1.5]], np.float32)
    assert ask.infer(echoes[Dtype.FP32], array).as_numpy("y").tobytes() == array.tobytes()


def test_without_named_outputs_all_come_in_binary(ask: Asker, echoes: dict[Dtype, str]) -> None:
    answer = ask.infer(echoes[Dtype.INT64], np.array([[1, 2]]), outputs=None)
    assert answer.get_output("y")["parameters"] == {"binary_data_size": 16}
    assert answer.as_numpy("y").tolist() == [[1, 2]]


@pytest.mark.parametrize("request_id", ["42", "za\u017c\u00f3\u0142\u0107 \U0001f600", 'a "quoted" \n id'])
def test_the_id_and_the_version_come_back(ask: Asker, echoes: dict[Dtype, str], request_id: str) -> None:
    body = ask.infer(echoes[Dtype.INT64], np.array([[1, 2]]), request_id=request_id, model_version="1").get_response()
    assert (body["id"], body["model_version"]) == (request_id, "1")


def test_classes_are_ranked(ask: Asker, echoes: dict[Dtype, str]) -> None:
    array = np.array([[0.25, 0.75], [3, -1]], np.float32)
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    answer = ask.infer(echoes[Dtype.FP32], array, outputs=outputs).as_numpy("y")
    assert answer.tolist() == [[b"0.75:1", b"0.25:0"], [b"3.0:0", b"-1.0:1"]]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_bodies_are_compressed_both_ways(ask: Asker, echoes: dict[Dtype, str], coding: str, binary: bool) -> None:
    array = np.arange(100_000).reshape(-1, 2)
    options = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
    answer = ask.infer(echoes[Dtype.INT64], array, binary=binary, **options)
    assert np.array_equal(answer.as_numpy("y"), array)


def test_a_timeout_in_microseconds_is_the_deadline(ask: Asker, echoes: dict[Dtype, str]) -> None:
    rows = np.zeros((200_000, 2))  # which nobody answers within the tick by which a deadline may be late
    with pytest.raises(InferenceServerException, match="deadline") as refused:
        ask.infer(echoes[Dtype.FP64], rows, binary=False, timeout=1)
    assert refused.value.status() == "504"


def test_server_and_models_describe_themselves(ask: Asker, echoes: dict[Dtype, str]) -> None:
    client, model, headers = ask.client, echoes[Dtype.UINT8], ask.headers
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model, headers=headers)
    assert client.is_model_ready(model, "1", headers=headers)
    assert not client.is_model_ready("nobody", headers=headers)
    assert "binary_tensor_data" in client.get_server_metadata(headers=headers)["extensions"]
    metadata = client.get_model_metadata(model, headers=headers)
    assert metadata["inputs"] == [{"name": "x", "datatype": "UINT8", "shape": [-1, 2]}]
    config = client.get_model_config(model, headers=headers)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_UINT8", "dims": [2]}]
    assert config["max_batch_size"] >= 1


def test_statistics_count_requests_rows_and_runs(ask: Asker, echoes: dict[Dtype, str]) -> None:
    model = echoes[Dtype.UINT16]

    def counts() -> dict:
        (found,) = ask.client.get_inference_statistics(model, headers=ask.headers)["model_stats"]
        return found

    before = counts()
    for _ in range(3):
        ask.infer(model, np.ones((5, 2), np.uint16))
    with pytest.raises(InferenceServerException):
        ask.infer(model, np.ones((5, 3), np.uint16))
    after = counts()
    assert after["inference_count"] - before["inference_count"] == 15
    assert after["execution_count"] - before["execution_count"] == 3
    stats = after["inference_stats"]
    assert stats["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert stats["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert 0 < stats["compute_infer"]["ns"] < stats["success"]["ns"]
    everything = ask.client.get_inference_statistics(headers=ask.headers)["model_stats"]
    assert {*echoes.values()} <= {one["name"] for one in everything}


def test_statistics_tell_what_was_found_in_the_cache(house: Installation, ask: Asker, echoes: dict[Dtype, str]) -> None:
    model = echoes[Dtype.UINT32]

    def counts() -> dict:
        (found,) = ask.client.get_inference_statistics(model, headers=ask.headers)["model_stats"]
        return found

    before = counts()
    assert before["inference_stats"]["cache_hit"] == before["inference_stats"]["cache_miss"] == {"count": 0, "ns": 0}
    with house.client() as client:
        client.configure(model, {"cache": {"mode": "on"}})

        def looked_up() -> bool:
            ask.infer(model, np.zeros((1, 2), np.uint32))
            return counts()["inference_stats"]["cache_miss"]["count"] > 0

        eventually(looked_up, "answers are kept")
        for _ in range(4):
            ask.infer(model, np.full((3, 2), 7, np.uint32))
        after = counts()
        client.configure(model, {"cache": {"mode": "off"}})
    stats = after["inference_stats"]
    assert stats["cache_hit"]["count"] >= 3
    assert stats["cache_miss"]["count"] >= 1
    assert stats["cache_hit"]["ns"] > 0
    assert stats["cache_miss"]["ns"] > 0
    assert stats["compute_infer"]["count"] == stats["success"]["count"] - stats["cache_hit"]["count"]


def test_a_model_is_unloaded_and_loaded_again(ask: Asker, echoes: dict[Dtype, str]) -> None:
    client, model, headers = ask.client, echoes[Dtype.INT16], ask.headers
    row = {"name": model, "version": "1", "state": "READY", "reason": ""}
    assert row in client.get_model_repository_index(headers=headers)
    client.unload_model(model, headers=headers)
    assert not client.is_model_ready(model, headers=headers)
    assert row not in client.get_model_repository_index(headers=headers)
    with pytest.raises(InferenceServerException) as refused:
        ask.infer(model, np.ones((1, 2), np.int16))
    assert refused.value.status() == "404"
    client.load_model(model, headers=headers)
    assert client.is_model_ready(model, headers=headers)
    assert ask.infer(model, np.ones((1, 2), np.int16)).as_numpy("y").tolist() == [[1, 1]]


def test_errors_are_read_with_their_status(house: Installation, ask: Asker, echoes: dict[Dtype, str]) -> None:
    model, array = echoes[Dtype.INT64], np.array([[1, 2]])
    stranger = Asker(house, "nobody")
    cases = {
        "401": lambda: stranger.infer(model, array),
        "404": lambda: ask.infer("nobody", array),
        "400": lambda: ask.infer(model, np.array([["x", "y"]], dtype=object)),
    }
    for status, call in cases.items():
        with pytest.raises(InferenceServerException) as refused:
            call()
        assert refused.value.status() == status
        assert refused.value.message()
    for change in (ask.client.load_model, ask.client.unload_model):
        with pytest.raises(InferenceServerException) as refused:
            change("nobody", headers=ask.headers)
        assert refused.value.status() == "404"
        with pytest.raises(InferenceServerException) as refused:
            change(model, headers=stranger.headers)
        assert refused.value.status() == "401"
    stranger.client.close()


async def test_the_asyncio_client_asks_the_same(house: Installation, echoes: dict[Dtype, str]) -> None:
    headers = {"X-API-Key": house.key}
    array = np.arange(6.0).reshape(3, 2)
    async with AsyncClient(house.url.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        for binary in (False, True):
            for coding in (None, "gzip", "deflate"):
                answer = await client.infer(
                    echoes[Dtype.FP64],
                    [given(array, binary=binary)],
                    headers=dict(headers),
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                assert answer.as_numpy("y").tolist() == array.tolist()
        assert await client.get_model_repository_index(headers=headers)
        assert await client.get_inference_statistics(headers=headers)


def test_the_history_shows_what_went_in_and_out_in_binary(house: Installation, ask: Asker, echoes: dict[Dtype, str]) -> None:
    answer = ask.infer(echoes[Dtype.FP32], np.array([[1, 2]], np.float32))
    prediction = answer.get_response()["parameters"]["prediction_id"]
    with house.client() as client:
        eventually(lambda: client.predictions(id=prediction), "the prediction in the history")
        found = client.prediction(prediction)
    for side in (found.inputs, found.outputs):
        assert side.base64
        assert side.content_type.startswith("application/octet-stream; inference-header-content-length=")
    assert found.inputs.value["inputs"][0]["parameters"]["binary_data_size"] == 8
    assert found.outputs.value["outputs"][0]["name"] == "y"
