"""Uploading through the client: what is sent, how often, and what comes of it."""

import json

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from fixtures.standin import READER
from modelkeep.client import Client, Invalid, NotAllowed, Rejected, ServerUnreachable, TimedOut


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def test_a_file_is_pushed_and_answers_when_push_returns(client, standin, file):
    version = client.push(file, "churn", description="first")
    assert (version.model, version.number, version.state) == ("churn", 1, "ready")
    assert standin.files[version.id] == file.read_bytes()
    assert standin.models["churn"]["serving_version"] == 1
    assert version.report["framework"] == "scikit-learn"


def test_an_upload_says_its_length_and_goes_out_in_pieces(client, standin, file):
    seen = []
    client.push(file, "churn", wait=False, on_progress=lambda done, total: seen.append((done, total)))
    size = file.stat().st_size
    assert int(standin.uploads[0]["length"]) > size
    assert seen[-1] == (size, size)
    assert len({done for done, _ in seen}) > 4
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_states_are_told_as_they_come(client, standin, file):
    standin.validation = 0.2
    states = []
    client.push(file, "churn", on_state=lambda version: states.append(version.state))
    assert states == ["received", "ready"]


def test_a_refused_version_raises_with_advice(client, tmp_path):
    path = tmp_path / "model.joblib"
    path.write_bytes(b"broken")
    with pytest.raises(Rejected, match="Save the model again") as caught:
        client.push(path, "churn")
    assert caught.value.code == "artifact_truncated"
    assert caught.value.detail == "It ends after 12 bytes."
    assert caught.value.version.number == 1


def test_a_push_that_need_not_wait_returns_what_was_stored(client, file):
    version = client.push(file, "churn", wait=False)
    assert version.state == "received"


def test_a_version_that_is_never_validated_times_out(client, standin, file):
    standin.validation = 60
    version = client.push(file, "churn", wait=False)
    with pytest.raises(TimedOut, match="still received"):
        client.wait_ready("churn", version.number, timeout=0)


def test_a_later_version_answers_when_it_is_promoted_with_the_push(client, standin, file):
    client.push(file, "churn")
    client.push(file, "churn")
    assert client.deployment("churn").version == 1
    client.push(file, "churn", promote=True)
    assert client.deployment("churn").version == 3


def test_a_lost_connection_is_retried_once_and_counts_once(client, standin, file):
    standin.lose_uploads = 1
    version = client.push(file, "churn")
    assert version.number == 1
    assert len(standin.uploads) == 2
    assert len({upload["key"] for upload in standin.uploads}) == 1
    assert len(client.versions("churn")) == 1


def test_a_connection_that_keeps_breaking_is_told(client, standin, file):
    standin.lose_uploads = 9
    with pytest.raises(ServerUnreachable) as caught:
        client.push(file, "churn")
    assert caught.value.code == "connection_lost"
    assert len(standin.uploads) == 2


def test_two_pushes_are_two_versions(client, standin, file):
    client.push(file, "churn")
    assert client.push(file, "churn").number == 2
    assert len({upload["key"] for upload in standin.uploads}) == 2


def test_an_estimator_travels_with_its_sample_as_csv(client, standin, tmp_path):
    frame = pd.DataFrame({"age": [20, 30, 40, 50], "plan": [0.5, 1.5, 2.5, None]}).fillna(0)
    estimator = LogisticRegression().fit(frame, [0, 0, 1, 1])
    client.push(estimator, "churn", sample=frame, labels=["stays", "leaves"], format="joblib")
    upload = standin.uploads[0]
    copy = tmp_path / "copy.joblib"
    copy.write_bytes(upload["data"])
    assert (joblib.load(copy).predict(frame) == estimator.predict(frame)).all()
    assert upload["sample"] == ("sample.csv", b"age,plan\n20,0.5\n30,1.5\n40,2.5\n50,0.0\n")
    assert upload["labels"] == ("labels.txt", b"stays\nleaves\n")


def test_a_sample_of_lists_or_an_array_travels_as_json_rows(client, standin, file):
    client.push(file, "churn", sample=np.array([[1.0, np.nan], [2.5, 3.0]]), wait=False)
    name, data = standin.uploads[0]["sample"]
    assert name == "sample.json"
    assert json.loads(data) == [[1.0, None], [2.5, 3.0]]


def test_of_a_whole_training_set_only_a_sample_travels(client, standin, file):
    client.push(file, "churn", sample=np.zeros((10_000, 3)), wait=False)
    client.push(file, "churn", sample=pd.DataFrame({"a": range(10_000)}), wait=False)
    assert len(json.loads(standin.uploads[0]["sample"][1])) == 256
    assert len(standin.uploads[1]["sample"][1].splitlines()) == 257


@pytest.mark.parametrize(
    ("given", "sent"),
    [("imagenet", "imagenet"), ({"size": 224}, '{"size": 224}'), ('{"size": 96}', '{"size": 96}')],
)
def test_preprocessing_is_a_name_or_fields(client, standin, file, given, sent):
    client.push(file, "photos", preprocess=given, wait=False)
    assert standin.uploads[0]["preprocess"] == sent


def test_preprocessing_labels_and_sample_may_be_files(client, standin, file, tmp_path):
    for name, text in {"spec.json": '{"size": 1}', "names.txt": "a\nb\n", "rows.csv": "x\n1\n"}.items():
        (tmp_path / name).write_text(text)
    paths = {"preprocess": tmp_path / "spec.json", "labels": tmp_path / "names.txt", "sample": tmp_path / "rows.csv"}
    client.push(file, "photos", format="onnx", wait=False, **paths)
    upload = standin.uploads[0]
    assert upload["preprocess"] == '{"size": 1}'
    assert upload["labels"] == ("labels.txt", b"a\nb\n")
    assert upload["sample"] == ("rows.csv", b"x\n1\n")
    assert upload["format"] == "onnx"


@pytest.mark.parametrize(
    ("model", "code"),
    [("nowhere.onnx", "file_missing"), ([1, 2], "not_a_model")],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_sent(client, standin, model, code):
    with pytest.raises(Invalid) as caught:
        client.push(model, "churn")
    assert caught.value.code == code
    assert standin.requests == []


def test_a_file_that_goes_with_the_model_and_is_missing_is_named(client, file):
    with pytest.raises(Invalid, match=r"names\.txt"):
        client.push(file, "churn", labels="names.txt")


def test_a_key_that_may_not_upload_is_told_before_the_file_is_sent(standin, file):
    with Client(standin.url, READER) as reader, pytest.raises(NotAllowed):
        reader.push(file, "churn")
    assert standin.uploads == []


def test_a_version_that_is_ready_but_not_in_service_times_out(client, standin, file):
    client.push(file, "churn")
    standin.ready = False
    with pytest.raises(TimedOut, match="does not answer"):
        client.wait_serving("churn", 1, timeout=0.1)


def test_hooks_go_along(client, standin, file, tmp_path):
    hooks = tmp_path / "around.py"
    hooks.write_bytes(b"def postprocess(outputs):\r\n    return outputs\r\n")
    client.push(file, "churn", hooks=hooks)
    client.push(file, "churn", hooks=str(hooks))
    assert [one["hooks"] for one in standin.uploads] == [("hooks.py", hooks.read_bytes())] * 2
    assert [one.get("hooks") for one in standin.planned] == [True, True]
    with pytest.raises(Invalid, match="cannot be read"):
        client.push(file, "churn", hooks=tmp_path / "nothing.py")
    client.push(file, "churn")
    assert "hooks" not in standin.uploads[-1]
    assert "hooks" not in standin.planned[-1]
