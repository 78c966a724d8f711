"""How the demo gets its key, keeps it, and brings its models to a server."""

import stat

import pytest
from access import NoWayIn, administrator_key, administrator_login, demo_key, read_env, write_whole
from models import DemoModel
from publish import WrongAnswer, check, curl_lines, publish

from fixtures.standin import KEY, TOKEN, running_standin, standin
from modelkeep.client import Client, Prediction

__all__ = ["running_standin", "standin"]


@pytest.fixture
def data(tmp_path):
    write_whole(tmp_path / "setup-token", f"{TOKEN}\n")
    return tmp_path


def test_the_setup_token_becomes_an_administrator_and_a_key_of_the_demo(standin, data):
    assert demo_key(standin.url, data, "") == KEY
    assert [(key["name"], key["scopes"]) for key in standin.keys] == [
        ("demo", ["predict", "models:read", "models:write", "models:code"])
    ]
    assert standin.code_allowed
    assert (data / "admin-key").read_text() == f"{KEY}\n"
    assert stat.S_IMODE((data / "admin-key").stat().st_mode) == 0o600


def test_the_administrator_of_the_demo_can_log_in(standin, data, tmp_path_factory):
    demo_key(standin.url, data, "")
    told = administrator_login(data)
    assert told == {
        "MODELKEEP_ADMIN_EMAIL": standin.login["email"],
        "MODELKEEP_ADMIN_PASSWORD": standin.login["password"],
    }
    assert len(told["MODELKEEP_ADMIN_PASSWORD"]) >= 20
    assert stat.S_IMODE((data / "admin-password").stat().st_mode) == 0o600
    assert administrator_login(tmp_path_factory.mktemp("older")) == {}


def test_a_key_that_still_works_is_kept(standin, data):
    assert demo_key(standin.url, data, KEY) == KEY
    assert standin.keys == []


def test_a_key_that_no_longer_works_is_replaced_by_the_administrator(standin, data):
    write_whole(data / "admin-key", f"{KEY}\n")
    (data / "setup-token").unlink()
    assert demo_key(standin.url, data, "mk_old") == KEY
    assert len(standin.keys) == 1


def test_a_server_that_somebody_else_set_up_is_said_to_be_so(standin, tmp_path):
    write_whole(tmp_path / "admin-key", "mk_other\n")
    with pytest.raises(NoWayIn, match="DATA="):
        administrator_key(standin.url, tmp_path)


def test_an_environment_file_is_written_whole_and_read_back(tmp_path):
    write_whole(tmp_path / "demo.env", "A=1\nB=2=3\n\n")
    assert read_env(tmp_path / "demo.env") == {"A": "1", "B": "2=3"}
    assert [path.name for path in tmp_path.iterdir()] == ["demo.env"]
    assert read_env(tmp_path / "nowhere") == {}


@pytest.fixture
def little_models(tmp_path):
    files = {
        "model.joblib": "weights",
        "labels.txt": "yes\n1\n",
        "sample.csv": "a,b\n1,2.5\n3,4\n",
        "net.onnx": "net",
        "flower.jpg": "x",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    labels = tmp_path / "labels.txt"
    return [
        DemoModel("churn", "Who leaves?", tmp_path / "model.joblib", labels, tmp_path / "sample.csv"),
        DemoModel("photos", "What is it?", tmp_path / "net.onnx", labels, tmp_path / "flower.jpg"),
    ]


def test_models_are_pushed_once(standin, little_models):
    said = []
    with Client(standin.url, KEY) as client:
        publish(client, little_models, said.append)
        publish(client, little_models, said.append)
    assert said == ["Pushing churn ...", "Pushing photos ..."]
    assert len(standin.uploads) == 2
    assert standin.uploads[0]["sample"][0] == "sample.csv"
    assert standin.predictions[0] == {"inputs": [{"a": 1.0, "b": 2.5}]}
    assert standin.predictions[1][0][0] == "flower.jpg"


def test_a_model_that_answers_nonsense_is_noticed(little_models):
    head = {"id": "p", "deployment": "d", "model": "m", "version": 1}
    cat = [[{"label": "cat", "index": 1, "score": 1.0}]]
    with pytest.raises(WrongAnswer, match="'cat'"):
        check(little_models[1], Prediction.read({**head, "predictions": cat}))
    with pytest.raises(WrongAnswer, match="'no'"):
        check(little_models[0], Prediction.read({**head, "outputs": {"label": ["no"]}}))


def test_the_lines_to_paste_ask_both_models(little_models, tmp_path):
    lines = curl_lines("http://127.0.0.1:8080", little_models)
    assert "-d '{\"inputs\": [[1.0, 2.5]]}'" in lines
    assert f"-F file=@{tmp_path / 'flower.jpg'}" in lines
