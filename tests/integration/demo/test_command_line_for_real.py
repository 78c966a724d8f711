"""A stranger's first half hour: the command line, the real server, the demo's models and some broken ones."""

import json
import subprocess
import sys

import pytest

from fixtures.installation import installed


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("stranger") / "data") as house:
        yield house


@pytest.fixture(scope="module")
def modelkeep(house, tmp_path_factory):
    """Runs the real command with the address and key in its environment."""
    folder = tmp_path_factory.mktemp("here")

    def run(*arguments, **options):
        command = [sys.executable, "-m", "modelkeep.app.cli", *map(str, arguments)]
        environment = {"MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture(scope="module")
def tumours(modelkeep, demo_models):
    model = demo_models["breast-cancer"]
    done = modelkeep("push", model.artifact, "--name", "tumours", "--sample", model.sample, "--labels", model.labels)
    assert done.returncode == 0, done.stderr
    assert "tumours version 1 is ready and answers predictions." in done.stdout
    return model


def test_a_table_is_answered_row_by_row_from_a_file_and_from_a_pipe(modelkeep, tumours):
    from_file = modelkeep("predict", "tumours", "--file", tumours.sample)
    assert from_file.returncode == 0, from_file.stderr
    lines = from_file.stdout.splitlines()
    assert len(lines) == 21
    assert {line.split("\t")[1] for line in lines[1:]} == {"benign", "malignant"}
    piped = modelkeep("predict", "tumours", "--json", input=tumours.sample.read_text())
    answer = json.loads(piped.stdout)
    assert [line.split("\t")[1] for line in lines[1:]] == answer["outputs"]["label"]


def test_an_output_is_asked_for_alone(modelkeep, tumours):
    done = modelkeep("predict", "tumours", "--file", tumours.sample, "--output", "label", "--json")
    assert json.loads(done.stdout)["outputs"].keys() == {"label"}
    wrong = modelkeep("predict", "tumours", "--file", tumours.sample, "--output", "labels")
    assert wrong.returncode == 4
    assert "outputs.labels" in wrong.stderr
    assert "it has label, probabilities" in wrong.stderr


def test_rows_that_do_not_fit_name_the_column_and_its_code(modelkeep, tumours):
    done = modelkeep("predict", "tumours", "--rows", '[{"mean radius": "large"}]')
    assert done.returncode == 4
    assert done.stdout == ""
    assert "mean " in done.stderr
    assert "missing_column" in done.stderr


def test_a_picture_gets_its_name_back(modelkeep, demo_models):
    model = demo_models["imagenet"]
    pushed = modelkeep("push", model.artifact, "-n", "photos", "--labels", model.labels, "--preprocess", model.preprocess)
    assert pushed.returncode == 0, pushed.stderr
    done = modelkeep("predict", "photos", "--image", model.sample, "--top-k", 1)
    assert done.stdout.splitlines()[1].startswith("daisy\t")


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        ("cut.joblib", lambda data: data[: len(data) // 2], "artifact_truncated"),
        ("text.onnx", lambda _data: b"I am a text, not a model.", "content_unrecognised"),
        ("other.onnx", lambda data: data, "format_mismatch"),
    ],
)
def test_a_broken_model_is_rejected_with_its_reason_and_advice(modelkeep, tumours, tmp_path, name, make, code):
    path = tmp_path / name
    path.write_bytes(make(tumours.artifact.read_bytes()))
    done = modelkeep("push", path, "--name", "broken")
    assert done.returncode == 4
    assert f"was rejected: {code}." in done.stderr
    problem = json.loads(modelkeep("push", path, "--name", "broken", "--json").stderr)
    assert problem["code"] == code
    assert problem["advice"]


def test_a_key_for_one_purpose_does_no_more(modelkeep, tumours):
    made = modelkeep("keys", "create", "reader", "--scope", "predict")
    assert made.returncode == 0, made.stderr
    refused = modelkeep("push", tumours.artifact, "--name", "other", "--key", made.stdout.strip())
    assert refused.returncode == 5
    assert "keys create" in refused.stderr


def test_a_second_version_waits_until_it_is_promoted_and_can_be_fetched(modelkeep, tumours, tmp_path):
    again = modelkeep("push", tumours.artifact, "--name", "tumours", "--sample", tumours.sample)
    assert "Version 1 still answers" in again.stdout
    assert modelkeep("promote", "tumours", 2).stdout.startswith("tumours version 2 answers now.")
    assert json.loads(modelkeep("models", "tumours", "--json").stdout)["serving_version"] == 2
    assert modelkeep("archive", "tumours", 2).returncode == 7
    assert modelkeep("promote", "tumours", 1).returncode == 0
    assert modelkeep("download", "tumours", 2, "-o", tmp_path / "copy").returncode == 0
    assert (tmp_path / "copy").read_bytes() == tumours.artifact.read_bytes()


def test_the_doctor_finds_the_server_sound(modelkeep, house):
    done = modelkeep("doctor", "--data", house.data, "--json")
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert found[f"server {house.url}"]["status"] == "ok"
    assert found["database"]["status"] == "ok"
    assert "admin" in found["api key"]["detail"]
