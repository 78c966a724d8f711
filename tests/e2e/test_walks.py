"""The main job, from outside: the real command, real HTTP, real runner processes."""

import base64
import io
import json
import threading
from pathlib import Path

import httpx
import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fixtures.installation import Installation, eventually
from modelkeep.client import Conflict, Invalid, NotAllowed, NotAuthenticated, NotFound, Rejected


@pytest.fixture(scope="module")
def cancer() -> tuple[pd.DataFrame, object]:
    data = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(data.data, data.target)
    return data.data, model


@pytest.fixture(scope="module")
def pushed(house: Installation, cancer: tuple[pd.DataFrame, object]) -> str:
    rows, model = cancer
    with house.client() as client:
        version = client.push(model, "cancer", sample=rows.head(), labels=["malignant", "benign"])
    assert version.number == 1
    return "cancer"


def test_a_pushed_estimator_answers_as_it_did_at_home(
    house: Installation, pushed: str, cancer: tuple[pd.DataFrame, object]
) -> None:
    rows, model = cancer
    with house.client() as client:
        answer = client.predict(pushed, rows.head(20))
    np.testing.assert_allclose(answer.outputs["probabilities"], model.predict_proba(rows.head(20)), rtol=1e-12, atol=1e-12)
    assert list(answer.outputs["label"]) == list(model.predict(rows.head(20)))


def test_rows_records_and_columns_are_the_same_question(
    house: Installation, pushed: str, cancer: tuple[pd.DataFrame, object]
) -> None:
    rows = cancer[0].head(3)
    forms = (rows.to_numpy().tolist(), rows.to_dict("records"), rows.to_dict("list"))
    with house.http() as http:
        answers = [http.post(f"/api/v1/predict/{pushed}", json={"inputs": form}).json() for form in forms]
    assert answers[0]["outputs"] == answers[1]["outputs"] == answers[2]["outputs"]
    assert answers[0]["labels"] == ["malignant"] * 3
    assert answers[0]["version"] == 1
    assert len({answer["id"] for answer in answers}) == 3


def test_a_wrong_value_is_named_by_its_place_and_code_and_is_not_repeated(house: Installation, pushed: str) -> None:
    row = [1.0] * 30
    row[7] = "secret-value"
    with house.http() as http:
        refused = http.post(f"/api/v1/predict/{pushed}", json={"inputs": [row]}, headers={"X-Request-ID": "abc-1"})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["code"] == "invalid_input"
    assert problem["request_id"] == refused.headers["x-request-id"] == "abc-1"
    assert problem["errors"] == [{"path": "inputs[0][7]", "code": "not_a_number", "message": "A number is needed here."}]
    assert "secret-value" not in refused.text


def test_open_inference_answers_the_same(house: Installation, pushed: str, cancer: tuple[pd.DataFrame, object]) -> None:
    rows, model = cancer
    data = rows.head(2).to_numpy()
    with house.http() as http:
        assert http.get("/v2/health/live").json() == {"live": True, "ready": True}
        about = http.get(f"/v2/models/{pushed}").json()
        assert about["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 30]}]
        body = {"id": "ü", "inputs": [{"name": "input", "shape": [2, 30], "datatype": "FP64", "data": data.ravel().tolist()}]}
        answer = http.post(f"/v2/models/{pushed}/infer", json=body).json()
    assert answer["id"] == "ü"
    assert answer["model_version"] == "1"
    scores = next(one for one in answer["outputs"] if one["name"] == "probabilities")
    assert scores["shape"] == [2, 2]
    np.testing.assert_allclose(np.reshape(scores["data"], (2, 2)), model.predict_proba(rows.head(2)), rtol=1e-12, atol=1e-12)
    with house.http() as http:
        refused = http.post(f"/v2/models/{pushed}/infer", content=b"{")
    assert refused.status_code == 400
    assert list(refused.json()) == ["error"]


def test_texts_and_missing_values_are_served(house: Installation) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.preprocessing import OneHotEncoder

    rows = pd.DataFrame({"city": ["Bern", "Basel", None, "Bern"] * 5, "age": [1.0, None, 3.0, 4.0] * 5})
    wide = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]), remainder="passthrough"
    )
    model = make_pipeline(wide, HistGradientBoostingRegressor(min_samples_leaf=1)).fit(rows, np.arange(20.0))
    with house.client() as client:
        client.push(model, "mixed", sample=rows)
        answer = client.predict("mixed", [{"city": "Bern", "age": None}, {"city": None, "age": 3.5}])
    expected = model.predict(pd.DataFrame({"city": ["Bern", None], "age": [None, 3.5]}))
    np.testing.assert_allclose(answer.outputs["value"], expected, atol=1e-12)


def test_promotion_moves_traffic_and_loses_no_request(house: Installation) -> None:
    with house.client() as client:
        for _ in range(2):
            client.push(_constant(len(client.versions("swap")) + 1 if _ else 1), "swap", sample=[[0.0]])
        assert client.predict("swap", [[0.0]]).version == 1
        answers: list[int] = []
        faults: list[Exception] = []
        stop = threading.Event()

        def load() -> None:
            with house.client() as mine:
                while not stop.is_set():
                    try:
                        answer = mine.predict("swap", [[0.0]])
                        assert answer.outputs["value"][0] == answer.version
                        answers.append(answer.version)
                    except Exception as fault:
                        faults.append(fault)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in (2, 1, 2, 1, 2):
            client.promote("swap", number)
            eventually(lambda number=number: answers and answers[-1] == number, f"version {number} answers")
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert set(answers) == {1, 2}


def _constant(value: int) -> object:
    from sklearn.dummy import DummyRegressor

    return DummyRegressor(strategy="constant", constant=float(value)).fit([[0.0]], [0.0])


def test_no_route_but_health_answers_without_a_key(house: Installation, pushed: str) -> None:
    with httpx.Client(base_url=house.url) as http:
        for path in ("/health", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert http.get(path).status_code == 200, path
            assert pushed not in http.get(path).text
        closed = (
            "/docs",
            "/redoc",
            "/openapi.json",
            "/metrics",
            "/info",
            "/v2",
            f"/v2/models/{pushed}",
            f"/v2/models/{pushed}/ready",
        )
        closed += (
            "/api/v1/models",
            "/api/v1/deployments",
            "/api/v1/keys",
            "/api/v1/me",
            f"/api/v1/models/{pushed}/versions/1/artifact",
        )
        for path in closed:
            assert http.get(path).status_code == 401, path
        assert http.post(f"/api/v1/predict/{pushed}", json={"inputs": [[0.0] * 30]}).status_code == 401
        assert http.post(f"/v2/models/{pushed}/infer", json={}).json().keys() == {"error"}


def test_a_key_may_do_what_its_scopes_say_and_nothing_once_revoked(
    house: Installation, pushed: str, cancer: tuple[pd.DataFrame, object]
) -> None:
    rows = cancer[0].head(1)
    with house.client() as admin:
        key = admin.create_key("caller", ["predict"], rate="unlimited")
        with type(admin)(house.url, key.secret) as caller:
            eventually(lambda: _answers(caller, pushed, rows), "the new key predicts")
            with pytest.raises(NotAllowed):
                caller.promote(pushed, 1)
            with pytest.raises(NotAllowed):
                caller.create_key("more", ["predict"])
            admin.revoke_key(key.id)
            eventually(lambda: not _answers(caller, pushed, rows), "the revoked key does not predict")
            with pytest.raises(NotAuthenticated):
                caller.me()


def _answers(client: object, name: str, rows: pd.DataFrame) -> bool:
    try:
        client.predict(name, rows)  # type: ignore[attr-defined]
    except NotAuthenticated:
        return False
    return True


def test_an_archived_model_answers_no_more_until_it_is_restored(house: Installation) -> None:
    with house.client() as client:
        client.push(_constant(7), "shelf", sample=[[0.0]])
        client.archive("shelf")
        eventually(lambda: not _found(client, "shelf"), "archived")
        client.restore("shelf")
        eventually(lambda: _found(client, "shelf"), "restored")
        with pytest.raises(Conflict):
            client.archive("shelf", version=1)


def _found(client: object, name: str) -> bool:
    try:
        client.predict(name, [[0.0]])  # type: ignore[attr-defined]
    except NotFound:
        return False
    return True


@pytest.fixture(scope="module")
def colours(house: Installation) -> str:
    """A picture model whose classes are the mean red, green and blue."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    mean = helper.make_node("ReduceMean", ["image", "axes"], ["scores"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(
        [mean],
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = house.data.parent / "colours.onnx"
    onnx.save(model, path)
    spec = {"size": 32, "crop": 1.0, "mean": [0, 0, 0], "std": [255, 255, 255], "activation": "none"}
    with house.client() as client:
        client.push(path, "colours", labels=["red", "green", "blue"], preprocess=spec)
    return "colours"


def _picture(colour: tuple[int, int, int], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (80, 40), colour).save(file, kind)
    return file.getvalue()


def test_a_picture_is_classified_however_it_is_sent(house: Installation, colours: str) -> None:
    green = _picture((0, 255, 0))
    path = f"/api/v1/predict/{colours}"
    with house.http() as http:
        answers = [
            http.post(path, files={"file": ("green.png", green)}, data={"top_k": "2"}),
            http.post(path, content=green, headers={"content-type": "image/png"}, params={"top_k": "2"}),
            http.post(path, json={"inputs": [base64.b64encode(green).decode()], "top_k": 2}),
        ]
        two = http.post(path, files=[("file", ("a.png", green)), ("file", ("b.jpg", _picture((255, 0, 0), "JPEG")))])
        flat = http.post("/predict", params={"model": colours}, files={"file": ("green.png", green)}, data={"top_k": "1"})
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert [[one["label"] for one in row] for row in answer.json()["predictions"]] == [["green", "red"]]
        assert answer.json()["predictions"][0][0]["score"] == pytest.approx(1.0)
    assert [row[0]["label"] for row in two.json()["predictions"]] == ["green", "red"]
    assert flat.json()["predictions"] == [{"label": "green", "index": 1, "score": pytest.approx(1.0)}]


def test_a_broken_picture_is_named_and_the_others_of_the_run_are_answered(house: Installation, colours: str) -> None:
    path = f"/api/v1/predict/{colours}"
    with house.http() as http:
        refused = http.post(path, files=[("file", ("a.png", _picture((1, 2, 3)))), ("file", ("b.png", b"\x89PNG nothing"))])
        answered = http.post(path, files={"file": ("a.png", _picture((0, 0, 255)))})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["path"] == "inputs[1]"
    assert refused.json()["errors"][0]["code"] == "bad_image"
    assert answered.json()["predictions"][0][0]["label"] == "blue"


def test_info_describes_what_answers(house: Installation, pushed: str) -> None:
    with house.http() as http:
        info = http.get("/info", params={"model": pushed}).json()
        everything = http.get("/info").json()
    assert info["version"] == 1
    assert info["framework"] == "scikit-learn"
    assert info["classes"] == ["malignant", "benign"]
    assert pushed in {one["model"] for one in everything["models"]}


def test_every_format_of_an_estimator_is_served(house: Installation, tmp_path: Path) -> None:
    import pickle

    import skops.io

    model = LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1])
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    joblib.dump(model, tmp_path / "m.joblib", compress=3)
    skops.io.dump(model, tmp_path / "m.skops")
    with house.client() as client:
        for suffix in ("pkl", "joblib", "skops"):
            version = client.push(tmp_path / f"m.{suffix}", f"format-{suffix}")
            assert version.state == "ready"
            assert client.predict(f"format-{suffix}", [[1.0, 1.0]]).outputs["label"][0] == 1


def test_the_report_says_how_fast_and_how_large(house: Installation, pushed: str) -> None:
    with house.http() as http:
        report = http.get(f"/api/v1/models/{pushed}/versions/1").json()["report"]
    assert report["framework_version"] == sklearn.__version__
    assert report["deterministic"] is True
    assert report["latency_ms"].keys() == {"1", "64"}
    assert 0 < report["latency_ms"]["1"] < 1000
    assert report["sample"] == "given"


def test_events_tell_of_each_state_and_end(house: Installation, tmp_path: Path) -> None:
    joblib.dump(_constant(1), tmp_path / "m.joblib")
    with house.http() as http:
        http.post("/api/v1/models", json={"name": "told"})
        with (tmp_path / "m.joblib").open("rb") as file:
            accepted = http.post("/api/v1/models/told/versions", files={"file": ("m.joblib", file)})
        assert accepted.status_code == 202
        assert accepted.headers["location"] == "/api/v1/models/told/versions/1"
        with http.stream("GET", accepted.headers["location"] + "/events") as stream:
            states = [json.loads(line[5:])["state"] for line in stream.iter_lines() if line.startswith("data:")]
    assert states[-1] == "ready"
    assert sorted(states, key=["received", "validating", "ready"].index) == states


def test_an_artifact_comes_back_byte_for_byte(house: Installation, pushed: str, tmp_path: Path) -> None:
    import skops.io

    with house.client() as client:
        path = client.download(pushed, 1, tmp_path)
    restored = skops.io.load(path)
    assert restored.predict(pd.DataFrame(np.ones((1, 30)), columns=load_breast_cancer().feature_names)).shape == (1,)


def test_the_metrics_count_what_was_answered(house: Installation, pushed: str, cancer: tuple[pd.DataFrame, object]) -> None:
    labels = {"deployment": pushed, "outcome": "ok", "version": "1"}

    def count() -> float:
        with house.http() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return sum(one.value for one in samples if one.name == "modelkeep_predictions_total" and one.labels == labels)

    before = count()
    with house.client() as client:
        for _ in range(3):
            client.predict(pushed, cancer[0].head(2))
    assert count() == before + 3


def test_the_metrics_say_how_far_the_history_is(house: Installation) -> None:
    def lag() -> list[float]:
        with house.http() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return [one.value for one in samples if one.name == "modelkeep_prediction_log_lag_seconds"]

    eventually(lambda: lag() == [0.0], "the loading of the history")


def test_the_server_process_holds_no_database_credential(house: Installation) -> None:
    server = house.role("server")
    assert server is not None
    assert not any(name.startswith("MODELKEEP") for name in server.environ())
    opened = {Path(file.path).name for file in server.open_files()}
    assert not any(name.startswith("modelkeep.db") for name in opened)
    api = house.role("api")
    assert api is not None
    assert any(Path(file.path).name.startswith("modelkeep.db") for file in api.open_files())


def test_unknown_things_are_not_found_with_their_own_codes(house: Installation, pushed: str) -> None:
    with house.http() as http:
        codes = {
            path: http.request(method, path, json=body).json().get("code")
            for method, path, body in (
                ("POST", "/api/v1/predict/nothing", {"inputs": [[1]]}),
                ("POST", f"/api/v1/predict/{pushed}", {"inputs": [[1]], "version": 99}),
                ("GET", "/api/v1/models/nothing", None),
                ("GET", f"/api/v1/models/{pushed}/versions/99", None),
            )
        }
    assert list(codes.values()) == ["deployment_not_found", "version_not_served", "model_not_found", "version_not_found"]


def test_a_thousand_rows_and_fifty_callers_each_get_their_own(
    house: Installation, pushed: str, cancer: tuple[pd.DataFrame, object]
) -> None:
    rows, model = cancer
    expected = model.predict_proba(rows)
    faults: list[str] = []

    def call(start: int) -> None:
        with house.client() as client:
            for at in range(start, start + 5):
                part = rows.iloc[at : at + 3]
                answer = client.predict(pushed, part)
                if not np.allclose(answer.outputs["probabilities"], expected[at : at + 3]):
                    faults.append(f"row {at}")

    threads = [threading.Thread(target=call, args=(at * 7,)) for at in range(50)]
    for thread in threads:
        thread.start()
    with house.client() as client:
        whole = client.predict(pushed, pd.concat([rows, rows]).head(1000))
    for thread in threads:
        thread.join()
    assert faults == []
    np.testing.assert_allclose(whole.outputs["probabilities"], np.concatenate([expected, expected])[:1000], atol=1e-12)


def test_the_caller_may_name_a_shorter_deadline(house: Installation, tmp_path: Path) -> None:
    (tmp_path / "slow.echo").write_text(json.dumps({"echo": 1, "run_s": 0.5}))
    with house.client() as client, house.http() as http:
        client.push(tmp_path / "slow.echo", "slow")
        row = {"inputs": [[0.0, 0.0]]}
        late = http.post("/api/v1/predict/slow", json=row, headers={"X-Request-Timeout": "0.1"})
        assert late.status_code == 504
        assert late.json()["code"] == "deadline_exceeded"
        assert http.post("/api/v1/predict/slow", json=row).status_code == 200


def test_a_rejected_version_tells_its_uploader_what_to_change(house: Installation, tmp_path: Path) -> None:
    (tmp_path / "wrong.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    with house.client() as client:
        with pytest.raises(Rejected) as rejected:
            client.push(tmp_path / "wrong.onnx", "refused")
        assert rejected.value.version.rejection.code == "content_unrecognised"
        with pytest.raises(Invalid):
            client.push(tmp_path / "wrong.onnx", "Not A Name")
        with pytest.raises(NotFound):
            client.predict("refused", [[1.0]])
