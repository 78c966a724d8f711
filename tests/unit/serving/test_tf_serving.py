"""TensorFlow Serving's REST API and KServe's V1 through the whole door, down to a runner's socket and back."""

import base64
import json
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.sandbox import control

PREDICT = "/v1/models/m:predict"
SCALARS = Signature((TensorSpec("x", Dtype.FP32, (-1,)),), (TensorSpec("y", Dtype.FP32, (-1,)),))
CLASSES = Signature(
    (TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),),
    (
        TensorSpec("label", Dtype.BYTES, (-1,)),
        TensorSpec("probabilities", Dtype.FP32, (-1, 3), classes=("cat", "dog", "owl")),
    ),
)
TABLE = Signature(
    (TensorSpec("age", Dtype.INT64, (-1,)), TensorSpec("name", Dtype.BYTES, (-1, 1), nullable=True)),
    (
        TensorSpec("said", Dtype.BYTES, (-1,)),
        TensorSpec("next_bytes", Dtype.BYTES, (-1,)),
        TensorSpec("age", Dtype.INT64, (-1,)),
    ),
)
NESTED = Signature(
    (TensorSpec("ids", Dtype.INT64, (-1, -1)), TensorSpec("grid", Dtype.FP32, (-1, 2, 2))),
    (TensorSpec("total", Dtype.FP64, (-1, 1)), TensorSpec("grid", Dtype.FP32, (-1, 2, 2))),
)


def half_plus_three(inputs: dict) -> dict:
    return {"y": inputs["x"] / 2 + 3}


def classify(inputs: dict) -> dict:
    """The class is the first column; its probability is 0.5."""
    at = inputs["input"][:, 0].astype(np.int64)
    label = np.array(["cat", "dog", "owl"], dtype=object)[at]
    return {"label": label, "probabilities": np.where(np.arange(3) == at[:, None], 0.5, 0.25).astype(np.float32)}


def greet(inputs: dict) -> dict:
    names = [one.decode() if isinstance(one, bytes) else one for one in inputs["name"].reshape(-1).tolist()]
    said = np.empty(len(names), dtype=object)
    said[:] = names
    following = np.empty(len(names), dtype=object)
    following[:] = [bytes([age % 256]) for age in inputs["age"].tolist()]
    return {"said": said, "next_bytes": following, "age": inputs["age"]}


def add_up(inputs: dict) -> dict:
    return {"total": inputs["ids"].sum(axis=1, keepdims=True).astype(np.float64), "grid": inputs["grid"]}


def error(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    text: str = answer.json()["error"]
    return text


# ---- as it is published


async def test_the_published_example_works(house) -> None:
    await house.serve("half_plus_three", SCALARS, half_plus_three, number=123)
    status = (await house.client.get("/v1/models/half_plus_three")).json()
    assert status["model_version_status"] == [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
    curl = {"headers": {"content-type": "application/x-www-form-urlencoded"}}
    asked = '{"instances": [1.0,2.0,5.0]}'
    answer = await house.client.post("/v1/models/half_plus_three:predict", content=asked, **curl)
    assert answer.json() == {"predictions": [3.5, 4.0, 5.5]}
    asked = '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}'
    answer = await house.client.post("/v1/models/half_plus_three:regress", content=asked, **curl)
    assert answer.json()["results"] == answer.json()["result"] == [3.5, 4.0]
    answer = await house.client.post("/v1/models/half:predict", content='{"instances": [1.0,5.0]}', **curl)
    assert error(answer, 404)


async def test_columns_are_answered_in_columns(house) -> None:
    await house.serve("m", SCALARS, half_plus_three)
    for form in ({"inputs": [1.0, 2.0]}, {"inputs": {"x": [1.0, 2.0]}, "signature_name": "serving_default"}):
        assert (await house.client.post(PREDICT, json=form)).json() == {"outputs": [3.5, 4.0]}
    await house.serve("n", TABLE, greet)
    answer = await house.client.post("/v1/models/n:predict", json={"inputs": {"age": [7, 8], "name": [["Ada"], [None]]}})
    assert answer.json() == {
        "outputs": {"said": ["Ada", None], "next_bytes": [{"b64": "Bw=="}, {"b64": "CA=="}], "age": [7, 8]}
    }


async def test_several_outputs_are_an_object_a_row_and_bytes_go_both_ways(house) -> None:
    await house.serve("m", TABLE, greet)
    ada = {"b64": base64.b64encode(b"Ada").decode()}
    answer = await house.client.post(PREDICT, json={"instances": [{"age": 255, "name": ada}, {"age": 1, "name": "żó"}]})
    assert answer.json() == {
        "predictions": [
            {"said": "Ada", "next_bytes": {"b64": "/w=="}, "age": 255},
            {"said": "żó", "next_bytes": {"b64": "AQ=="}, "age": 1},
        ]
    }
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-prediction-id"].startswith("prd_")


async def test_versions_and_labels_name_what_must_answer(house) -> None:
    await house.serve("m", SCALARS, half_plus_three, number=7)
    for place in ("/v1/models/m", "/v1/models/m/versions/7"):
        assert (await house.client.get(place)).json()["model_version_status"][0]["version"] == "7"
        assert (await house.client.get(f"{place}/metadata")).json()["model_spec"]["version"] == "7"
        for verb, body in (("predict", {"instances": [1]}), ("regress", {"examples": [{"x": 1}]})):
            assert (await house.client.post(f"{place}:{verb}", json=body)).status_code == 200
            assert (await house.client.post(f"{place}%3A{verb}", json=body)).status_code == 200
    for place in ("/v1/models/m/versions/8", "/v1/models/m/labels/gone", "/v1/models/m/labels/7", "/v1/models/n"):
        error(await house.client.get(place), 404)
        error(await house.client.get(f"{place}/metadata"), 404)
        error(await house.client.post(f"{place}:predict", json={"instances": [1]}), 404)
        error(await house.client.post(f"{place}:explain", json={"instances": [1]}), 404)


async def test_metadata_tells_the_signature_in_tensorflows_words(house) -> None:
    await house.serve("m", TABLE, greet)
    told = (await house.client.get("/v1/models/m/metadata")).json()
    assert told["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    (signature,) = told["metadata"]["signature_def"]["signature_def"].values()
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert {name: one["dtype"] for name, one in signature["inputs"].items()} == {"age": "DT_INT64", "name": "DT_STRING"}
    assert signature["inputs"]["name"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
        "unknown_rank": False,
    }
    assert list(signature["outputs"]) == ["said", "next_bytes", "age"]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (Dtype.BOOL, "DT_BOOL"),
        (Dtype.UINT8, "DT_UINT8"),
        (Dtype.UINT64, "DT_UINT64"),
        (Dtype.INT8, "DT_INT8"),
        (Dtype.FP16, "DT_HALF"),
        (Dtype.FP32, "DT_FLOAT"),
        (Dtype.FP64, "DT_DOUBLE"),
    ],
)
async def test_each_datatype_has_its_tensorflow_name(house, dtype: Dtype, name: str) -> None:
    signature = Signature((TensorSpec("x", dtype, (-1,)),), (TensorSpec("y", dtype, (-1,)),))
    await house.serve("m", signature, lambda inputs: {"y": inputs["x"]})
    told = (await house.client.get("/v1/models/m/metadata")).json()
    assert told["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"]["dtype"] == name


async def test_the_status_answers_kserve_too_and_follows_the_runner(house) -> None:
    async def status() -> tuple[bool, str, str]:
        answer = await house.client.get("/v1/models/m")
        assert (answer.status_code, answer.json()["name"]) == (200, "m")
        (version,) = answer.json()["model_version_status"]
        return answer.json()["ready"], version["state"], version["status"]["error_code"]

    version = await house.serve("m", wait=False)
    assert await status() == (False, "LOADING", "OK")
    await house.connect(version)
    assert await status() == (True, "AVAILABLE", "OK")
    other = await house.serve("n", wait=False)
    house.router.pool.take(control.Held(other, 60, "it ended with status 3, see /src/x.py"), [])
    failing = (await house.client.get("/v1/models/n")).json()
    assert (failing["ready"], failing["model_version_status"][0]["state"]) == (False, "END")
    assert "/src" not in json.dumps(failing)
    assert (await house.client.get("/v1/models")).json() == {"models": ["m", "n"]}


# ---- classify and regress


async def test_classes_come_with_their_names_and_scores_in_the_models_order(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities")
    answer = await house.client.post("/v1/models/m:classify", json={"examples": [{"a": 1, "b": 0}, {"a": [2], "b": 0}]})
    expected = [[["cat", 0.25], ["dog", 0.5], ["owl", 0.25]], [["cat", 0.25], ["dog", 0.25], ["owl", 0.5]]]
    assert answer.json() == {"result": expected, "results": expected}
    await house.serve("n", CLASSES, classify, scores="probabilities", labels=("Katze", "Hund", "Eule"))
    answer = await house.client.post("/v1/models/n:classify", json={"examples": [{"a": 0, "b": 0}]})
    assert answer.json()["result"] == [[["Katze", 0.5], ["Hund", 0.25], ["Eule", 0.25]]]
    answer = await house.client.post("/v1/models/m:predict", json={"instances": [[1, 0]]})
    assert answer.json() == {"predictions": [{"label": "dog", "probabilities": [0.25, 0.5, 0.25]}]}


async def test_classes_without_names_are_called_nothing(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    picture = {"image": {"b64": base64.b64encode(b"aabd").decode()}}
    answer = await house.client.post("/v1/models/m:classify", json={"examples": [picture]})
    assert answer.json()["results"] == [[["", 2.0], ["", 1.0], ["", 0.0], ["", 1.0]]]


async def test_the_context_is_part_of_each_example_and_never_overrides_one(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities")
    body = {"context": {"b": 0}, "examples": [{"a": 0}, {"a": 1}]}
    assert len((await house.client.post("/v1/models/m:classify", json=body)).json()["results"]) == 2
    body["examples"].append({"a": 1, "b": 2})
    assert error(await house.client.post("/v1/models/m:classify", json=body)).startswith("examples[2].b:")


async def test_what_a_model_does_not_answer_is_not_asked_of_it(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities")
    await house.serve("n", SCALARS, half_plus_three)
    await house.serve("o", TABLE, greet)
    assert "one number" in error(await house.client.post("/v1/models/m:regress", json={"examples": [{"a": 0, "b": 0}]}))
    assert "scores" in error(await house.client.post("/v1/models/n:classify", json={"examples": [{"x": 0}]}))
    answer = await house.client.post("/v1/models/o:regress", json={"examples": [{"age": 3, "name": "x"}]})
    assert answer.json()["result"] == [3]


async def test_one_score_a_row_is_a_number_a_row_and_more_are_refused_when_they_come(house) -> None:
    scores = Signature(SCALARS.inputs, (TensorSpec("scores", Dtype.FP32, (-1, -1)),))
    for name, width in (("m", 1), ("n", 2)):
        await house.serve(name, scores, lambda inputs, width=width: {"scores": np.repeat(inputs["x"][:, None], width, axis=1)})
    asked = {"examples": [{"x": 1}, {"x": 2}]}
    assert (await house.client.post("/v1/models/m:regress", json=asked)).json()["result"] == [1.0, 2.0]
    error(await house.client.post("/v1/models/n:regress", json=asked))


async def test_all_of_it_is_closed_without_a_key_that_may_predict(house) -> None:
    await house.serve("m")
    paths = [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/m"),
        ("GET", "/v1/models/m/metadata"),
        ("POST", PREDICT),
        ("GET", "/v1"),
    ]
    for method, path in paths:
        assert error(await house.client.request(method, path, headers={"x-api-key": "read"}), 403)
        answer = await house.client.request(method, path, headers={"x-api-key": "nobody"})
        assert error(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_explanations_are_refused_with_what_is_missing(house) -> None:
    await house.serve("m")
    assert "explain" in error(await house.client.post("/v1/models/m:explain", json={"instances": [[1, 2]]}), 404)


# ---- every form is the same


def rows_of(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Signature]:
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    count = draw(st.integers(1, 4))
    width = draw(st.integers(1, 3))
    ids = st.lists(st.integers(-(2**53), 2**53), min_size=width, max_size=width)
    grids = st.lists(st.lists(floats, min_size=2, max_size=2), min_size=2, max_size=2)
    texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    signature = draw(st.sampled_from([TABLE, NESTED, CLASSES]))
    values = {"age": st.integers(-(2**63), 2**63 - 1), "name": texts, "ids": ids, "grid": grids}
    if signature is CLASSES:
        row = st.fixed_dictionaries({"a": st.sampled_from([0, 1.0, 2]), "b": floats})
    else:
        row = st.fixed_dictionaries({spec.name: values[spec.name] for spec in signature.inputs})
    return draw(st.lists(row, min_size=count, max_size=count)), signature


@pytest.fixture(scope="module")
def same_answers(served_many) -> Any:
    """Ask a door with a model for each signature."""
    return served_many({"table": (TABLE, greet), "nested": (NESTED, add_up), "classes": (CLASSES, classify)})


@settings(max_examples=60)
@given(case=st.composite(rows_of)())
def test_rows_columns_and_native_json_are_answered_alike(same_answers, case: tuple[list[dict[str, Any]], Signature]) -> None:
    rows, signature = case
    name = {id(TABLE): "table", id(NESTED): "nested", id(CLASSES): "classes"}[id(signature)]
    columns = {key: [row[key] for row in rows] for key in rows[0]}

    def ask(path: str, body: dict[str, Any]) -> Any:
        status, _headers, content = same_answers("POST", path, msgspec.json.encode(body))
        assert status == 200, content
        return msgspec.json.decode(content)

    native = ask(f"/api/v1/predict/{name}", {"inputs": columns})["outputs"]
    by_row = ask(f"/v1/models/{name}:predict", {"instances": rows})["predictions"]
    by_column = ask(f"/v1/models/{name}:predict", {"inputs": columns})["outputs"]
    assert by_column == {key: [row[key] for row in by_row] for key in by_column}
    if signature is TABLE:  # whose bytes native JSON tells without their mark
        native["next_bytes"] = by_column["next_bytes"]
    assert msgspec.json.encode(by_column) == msgspec.json.encode(native)


# ---- whatever is sent

HOSTILE = [
    b"",
    b"[" * 1_000_000,
    b'{"instances": ' + b"[" * 1_000_000,
    b'{"instances": [NaN]}',
    b'{"instances": [Infinity]}',
    b'{"instances": [-Infinity]}',
    b'{"instances": [1e999]}',
    b"[1, 2]",
    b'"instances"',
    b"null",
    b"{}",
    b'{"instances": [1], "inputs": [1]}',
    b'{"instances": null}',
    b'{"instances": []}',
    b'{"instances": {}}',
    b'{"instances": {"x": [1]}}',
    b'{"inputs": []}',
    b'{"inputs": {}}',
    b'{"inputs": 1.0}',
    b'{"inputs": {"x": []}}',
    b'{"instances": [[1], [2, 3]]}',
    b'{"instances": [1, [2, 3]]}',
    b'{"instances": [1, {"x": 2}, "x"]}',
    b'{"instances": [{"b64": "AAAA"}]}',
    b'{"instances": [{"x": 1, "y": 2}]}',
    b'{"instances": [true]}',
    b'{"instances": [1], "signature_name": 5}',
    b'{"instances": [1], "signature_name": "other"}',
    b'{"instances": [1]} trailing',
    b'{"instances": [1], "instances": 5}',
    b'\xff{"instances": [1]}',
    b'{"examples": [{"x": "c4nary"}]}',
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: body[:30].decode("latin-1"))
async def test_hostile_bodies_are_refused_in_the_apis_own_shape(house, body: bytes) -> None:
    await house.serve("m", SCALARS, half_plus_three)
    for verb in ("predict", "regress", "classify"):
        text = error(await house.client.post(f"/v1/models/m:{verb}", content=body))
        assert len(text) < 500
        assert "c4nary" not in text
    assert (await house.client.post(PREDICT, json={"instances": [1]})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"examples": 5},
        {"examples": [5]},
        {"examples": []},
        {"examples": None},
        {"examples": [{}]},
        {"examples": [{"x": 1}], "context": 5},
        {"examples": [{"x": 1}], "context": {"y": 1}},
        {"examples": [{"x": [1, 2]}]},
        {"examples": [{"x": {"b64": "AAAA"}}]},
        {"examples": [{"x": 1}], "signature_name": "serving_other"},
        {"instances": [1]},
    ],
    ids=str,
)
async def test_examples_that_are_none_are_refused(house, body: dict[str, Any]) -> None:
    await house.serve("m", SCALARS, half_plus_three)
    error(await house.client.post("/v1/models/m:regress", json=body))


async def test_texts_that_are_no_base64_are_refused_by_their_place(house) -> None:
    await house.serve("m", TABLE, greet)
    for wrong in ("no base64", "YQ", "żó", "YQ==\n"):
        body = {"instances": [{"age": 1, "name": "a"}, {"age": 1, "name": {"b64": wrong}}]}
        assert error(await house.client.post(PREDICT, json=body)) == "instances[1]: Not valid base64."


async def test_answers_that_are_no_numbers_follow_the_deployment(house) -> None:
    house.settings["m"] = DeploymentSettings(not_finite="text")
    house.settings["n"] = DeploymentSettings(not_finite="refuse")
    for name in ("m", "n", "o"):
        await house.serve(name, SCALARS, lambda inputs: {"y": np.where(inputs["x"] > 0, np.inf, -np.inf)})
    for path in ("predict", "regress"):
        body = {"instances": [1, -1]} if path == "predict" else {"examples": [{"x": 1}, {"x": -1}]}
        told = [await house.client.post(f"/v1/models/{name}:{path}", json=body) for name in ("m", "n", "o")]
        assert [one.status_code for one in told] == [200, 500, 200]
        assert next(iter(told[0].json().values())) == ["Infinity", "-Infinity"]
        assert told[1].json().keys() == {"error"}
        assert next(iter(told[2].json().values())) == [None, None]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PREDICT),
        ("PUT", PREDICT),
        ("GET", "/v1/models/m/versions/1:predict"),
        ("POST", "/v1/models/m"),
        ("DELETE", "/v1/models/m"),
        ("POST", "/v1/models/m/metadata"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/m:explain"),
    ],
)
async def test_other_methods_are_told_which_one_is_taken(house, method: str, path: str) -> None:
    await house.serve("m")
    answer = await house.client.request(method, path)
    error(answer, 405)
    assert answer.headers["allow"] in {"GET", "POST"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/models/m:predict:predict",
        "/v1/models/m:",
        "/v1/models/m:Predict",
        "/v1/models:predict",
        "/v1/models/m/versions:predict",
        "/v1/models/m/versions/1/metadata:predict",
        "/v1/models/m/metadata:predict",
        "/v1/models/m:predict/metadata",
        "/v1/models/m/versions/1/labels/x",
        "/v1/models/m/",
        "/v1/models/m/versions/",
        "/v1/models//versions/1",
        "/v1/models/:predict",
        "/v1/chat/completions",
        "/v1/models/m%2Fversions%2F2",
    ],
)
async def test_no_other_path_is_there(house, path: str) -> None:
    await house.serve("m")
    answers = [await house.client.request(method, path, json={"instances": [[1, 2]]}) for method in ("GET", "POST")]
    assert all(one.status_code in {404, 405} for one in answers)
    assert any(one.status_code == 404 for one in answers)
    assert all(one.json().keys() == {"error"} for one in answers)


async def test_the_history_has_these_predictions(house) -> None:
    await house.serve("m", SCALARS, half_plus_three)
    answer = await house.client.post(PREDICT, json={"instances": [1]})
    await house.client.post(PREDICT, json={"instances": ["x"]})
    good, bad = house.records
    assert (good.id, good.dialect, good.outcome, good.outputs) == (
        answer.headers["x-prediction-id"],
        "v1",
        "ok",
        answer.content,
    )
    assert (bad.dialect, bad.outcome, bad.status) == ("v1", "rejected", 400)
