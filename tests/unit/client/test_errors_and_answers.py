"""Everything else that the client does: answers as values, and errors that say what to do."""

import importlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from fixtures.standin import KEY, READER, TOKEN, Refusal
from modelkeep.client import (
    Client,
    Conflict,
    Invalid,
    Limited,
    ModelkeepError,
    NotAuthenticated,
    NotFound,
    Prediction,
    ServerFailed,
    ServerUnreachable,
    Stale,
    TimedOut,
    TooLarge,
    Unavailable,
)
from modelkeep.client.errors import BY_CODE, error_from
from modelkeep.contracts.errors import all_errors
from modelkeep.infra.problems import STATUS

for _noun in ("audit", "deployments", "models", "predictions", "replays", "safety", "users"):
    importlib.import_module(f"modelkeep.control.{_noun}.service")


@pytest.fixture
def pushed(client, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return client.push(path, "churn")


def test_a_prediction_names_its_version_and_holds_arrays(client, pushed):
    answer = client.predict("churn", np.zeros((3, 2)))
    assert (answer.model, answer.version, answer.id) == ("churn", 1, "prd_1")
    assert isinstance(answer.outputs["label"], np.ndarray)
    assert answer.outputs["probabilities"].shape == (3, 2)
    assert answer.labels == ["yes"] * 3
    assert answer.predictions == []


def test_a_missing_number_in_an_answer_is_nan_and_ragged_rows_stay_lists():
    raw = {"id": "p", "deployment": "d", "model": "m", "version": 1}
    answer = Prediction.read({**raw, "outputs": {"a": [1.5, None], "b": [[1], [1, 2]], "c": ["x", None]}})
    assert np.isnan(answer.outputs["a"][1])
    assert answer.outputs["b"][1] == [1, 2]
    assert answer.outputs["c"][1] is None


def test_pictures_are_sent_as_they_are_and_come_back_as_labels(client, standin, pushed):
    answer = client.predict("churn", [b"\xff\xd8\xffone", b"\xff\xd8\xfftwo"], top_k=1)
    assert [data for _name, data in standin.predictions[-1]] == [b"\xff\xd8\xffone", b"\xff\xd8\xfftwo"]
    assert [[label.label for label in row] for row in answer.predictions] == [["daisy"], ["daisy"]]
    assert answer.predictions[0][0].score == 0.9


def test_top_k_goes_with_rows_too(client, standin, pushed):
    client.predict("churn", [[1, 2]], top_k=3)
    assert standin.predictions[-1] == {"inputs": [[1, 2]], "top_k": 3}


def test_outputs_are_asked_for_by_name(client, standin, pushed):
    answer = client.predict("churn", [[1, 2]], outputs=["probabilities", "label"])
    assert standin.predictions[-1] == {"inputs": [[1, 2]], "outputs": ["probabilities", "label"]}
    assert list(answer.outputs) == ["probabilities", "label"]
    client.predict("churn", [[1, 2]], outputs="label")
    assert standin.predictions[-1]["outputs"] == ["label"]
    client.predict("churn", [[1, 2]], outputs=())
    assert standin.predictions[-1].keys() == {"inputs"}
    answers = client.predict_many("churn", [[1, 2]] * 3, chunk=2, outputs=["label"])
    assert [list(one.outputs) for one in answers] == [["label"], ["label"]]
    assert list(client.predict("churn", b"\xff\xd8\xffone", outputs=["scores", "size"]).outputs) == ["scores", "size"]


def test_a_refused_row_is_named_with_its_path_and_code(client, pushed):
    with pytest.raises(Invalid) as caught:
        client.predict("churn", [[1, "a"]])
    (field,) = caught.value.fields
    assert (field.path, field.code) == ("inputs[0][1]", "not_a_number")
    assert (caught.value.status, caught.value.request_id) == (400, "req_1")


def test_lists_are_read_to_their_end(client, standin):
    for name in "abcde":
        standin.models[name] = {"name": name, "archived_at": None}
    assert [model.name for model in client.models()] == list("abcde")


def test_models_and_versions_are_read_described_put_away_and_taken_back(client, pushed, tmp_path):
    assert client.describe("churn", "who leaves?").description == "who leaves?"
    assert client.model("churn").serving_version == 1
    client.push(b"" or _file(tmp_path), "churn")
    assert client.describe("churn", "better", version=2).description == "better"
    assert [version.number for version in client.versions("churn")] == [2, 1]
    assert client.archive("churn", version=2).archived_at
    assert client.archive("churn").archived_at
    assert client.models() == []
    assert [model.name for model in client.models(archived=True)] == ["churn"]
    assert [[model.name for model in client.models(archived=True, search=part)] for part in ("URN", "%")] == [["churn"], []]
    assert client.restore("churn").archived_at is None


def _file(folder):
    path = folder / "again.onnx"
    path.write_bytes(b"other weights")
    return path


def test_promotion_may_insist_on_the_revision_that_was_seen(client, pushed):
    assert client.promote("churn", 1, revision=1).revision == 2
    with pytest.raises(Stale):
        client.promote("churn", 1, revision=1)
    with pytest.raises(Conflict) as caught:
        client.promote("churn", 9)
    assert caught.value.code == "version_not_ready"
    assert [one.name for one in client.deployments()] == ["churn"]


def test_a_download_is_the_file_that_was_uploaded(client, pushed, tmp_path):
    seen = []
    path = client.download("churn", 1, tmp_path / "copy.onnx", on_progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == b"weights"
    assert seen[-1] == (7, 7)
    folder = tmp_path / "into"
    folder.mkdir()
    assert client.download("churn", 1, folder) == folder / "model.onnx"


def test_a_download_that_differs_leaves_nothing(client, standin, pushed, tmp_path):
    standin.files[pushed.id] = b"changed"
    target = tmp_path / "into" / "copy.onnx"
    target.parent.mkdir()
    with pytest.raises(ServerUnreachable) as caught:
        client.download("churn", 1, target)
    assert caught.value.code == "download_broken"
    assert list(target.parent.iterdir()) == []


def test_a_download_to_nowhere_says_so(client, pushed, tmp_path):
    with pytest.raises(Invalid, match="cannot be written"):
        client.download("churn", 1, tmp_path / "nowhere" / "copy.onnx")


def test_setup_gives_a_key_once_and_its_secret_is_not_printed(standin):
    with Client(standin.url) as client:
        with pytest.raises(NotAuthenticated) as caught:
            client.setup("mks_wrong")
        assert caught.value.code == "setup_token_invalid"
        key = client.setup(TOKEN)
        assert key.secret == KEY
        assert KEY not in repr(key)
        with pytest.raises(Conflict):
            client.setup(TOKEN)


def test_keys_are_made_listed_and_revoked(client):
    made = client.create_key("nightly", ["predict"], expires_in_days=3)
    assert made.secret == KEY
    listed = client.keys()
    assert [(key.name, key.secret) for key in listed] == [("nightly", None)]
    client.revoke_key(made.id)
    assert client.keys() == []
    assert client.me().key.scopes == ["admin"]


def test_the_key_is_in_no_text_of_the_client(standin):
    with Client(standin.url, KEY) as client:
        assert KEY not in repr(client)
        assert KEY not in repr(vars(client._connection))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", Invalid),
        (413, "too_large", TooLarge),
        (418, "teapot", Invalid),
        (404, "a_newer_code", NotFound),
        (429, "rate_limited", Limited),
        (500, "internal", ServerFailed),
        (503, "overloaded", Unavailable),
        (504, "deadline_exceeded", TimedOut),
        (507, "storage_full", Unavailable),
    ],
)
def test_each_kind_of_refusal_has_its_own_class(client, standin, status, code, kind):
    standin.refusal = Refusal(status, code, "No.")
    with pytest.raises(ModelkeepError) as caught:
        client.models()
    assert isinstance(caught.value, kind)
    assert kind in {type(caught.value), *type(caught.value).__bases__}
    assert (caught.value.status, caught.value.code, caught.value.message) == (status, code, "No.")
    assert caught.value.retry_after_s == (7 if status == 429 else None)


def fault(status, code, **headers):
    body = {"code": code, "detail": "No.", "request_id": "req_7", "errors": [{"path": "inputs", "code": "x", "message": "y"}]}
    return error_from(httpx.Response(status, json=body, headers={"content-type": "application/problem+json", **headers}))


SERVERS_ERRORS = sorted(all_errors(), key=lambda one: one.__qualname__)


@pytest.mark.parametrize("error", SERVERS_ERRORS, ids=lambda error: error.code)
def test_every_error_of_a_server_has_its_class_here(error):
    found = fault(STATUS[error.kind], error.code, **{"retry-after": "2"})
    alike = fault(STATUS[error.kind], "a_newer_code")
    assert isinstance(found, type(alike))
    assert type(alike) is not ModelkeepError
    assert (found.code, found.status, found.request_id, found.retry_after_s) == (error.code, STATUS[error.kind], "req_7", 2)
    assert (found.fields[0].path, found.fields[0].code) == ("inputs", "x")


def test_every_code_with_a_class_here_is_a_server_s():
    of_this_side = {"timeout", "deadline_exceeded"}
    assert set(BY_CODE) - {error.code for error in SERVERS_ERRORS} <= of_this_side


def test_a_code_does_not_make_an_error_what_its_status_is_not():
    assert type(fault(500, "overloaded")) is ServerFailed
    assert type(fault(503, "server_unreachable")) is Unavailable
    assert type(fault(400, "rejected")) is Invalid


def test_an_unknown_model_and_an_unknown_key_are_told_apart(client, standin):
    with pytest.raises(NotFound):
        client.model("churn")
    with Client(standin.url) as nobody, pytest.raises(NotAuthenticated):
        nobody.models()


def test_a_server_that_is_down_is_named_with_what_to_try(no_server):
    with Client(no_server) as client, pytest.raises(ServerUnreachable, match="Is `modelkeep serve` running") as caught:
        client.models()
    assert no_server in caught.value.message
    assert caught.value.status is None


def test_another_program_on_the_port_is_recognised(other_program):
    with Client(other_program) as client:
        for ask in (client.models, client.health):
            with pytest.raises(ServerUnreachable, match="not as Modelkeep does") as caught:
                ask()
            assert caught.value.code == "not_modelkeep"


@pytest.mark.parametrize(
    ("said", "code"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not_modelkeep"), (b"", "connection_lost")],
    ids=["ssh", "silence"],
)
def test_what_is_no_web_server_is_recognised(said, code):
    server = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection, _peer = server.accept()
            except OSError:
                return  # the test is over: it has shut the socket down
            with connection:
                connection.recv(1000)
                connection.sendall(said)

    thread = threading.Thread(target=answer)
    thread.start()
    with Client(f"http://127.0.0.1:{server.getsockname()[1]}") as client, pytest.raises(ServerUnreachable) as caught:
        client.models()
    assert caught.value.code == code
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    server.close()


def test_a_server_that_never_answers_times_out():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.1) as client,
        pytest.raises(TimedOut),
    ):
        client.models()


def test_https_to_a_plain_server_says_to_use_http(standin):
    with Client(standin.url.replace("http:", "https:")) as client, pytest.raises(ServerUnreachable, match="Use http://"):
        client.models()


def test_an_unknown_host_is_said_to_be_unknown():
    with Client("http://no-such-host.invalid:8080") as client, pytest.raises(ServerUnreachable, match="host name"):
        client.models()


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[", "", "http://host:port"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(Invalid) as caught:
        Client(url)
    assert caught.value.code == "invalid_url"


def test_an_address_may_leave_out_http(standin):
    with Client(f" {standin.url.removeprefix('http://')}/ ", KEY) as client:
        assert client.url == standin.url
        assert client.models() == []


@pytest.mark.parametrize("key", ["mk_ö", "mk_a b", "mk_a\nb"])
def test_a_key_that_was_not_copied_whole_is_said_to_be_so(key):
    with pytest.raises(NotAuthenticated, match="copied whole"):
        Client("http://127.0.0.1:1", key)


def test_no_proxy_of_the_environment_is_used(standin, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Client(standin.url, KEY) as client:
        assert client.models() == []


def test_certificates_that_cannot_be_read_are_named():
    with pytest.raises(Invalid, match=r"nowhere\.pem"):
        Client("https://127.0.0.1:1", verify="nowhere.pem")
    with Client("https://127.0.0.1:1", verify=False) as client:
        assert client.url == "https://127.0.0.1:1"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_is_none_does_not_become_a_path(client, standin, name):
    with pytest.raises(Invalid):
        client.model(name)
    assert standin.requests == []


def test_a_name_with_a_slash_stays_one_part_of_the_path(client, standin):
    with pytest.raises(ModelkeepError):
        client.model("../keys")
    assert standin.requests[0][1] == "/api/v1/models/../keys"  # decoded by the server; on the wire it is %2F


def test_health_needs_no_key(standin):
    with Client(standin.url) as client:
        assert client.health()["status"] == "ok"
        standin.ready = False
        assert client.readiness()["reasons"] == ["models are being loaded"]


def test_a_reader_learns_from_the_control_plane_what_is_served(standin, client, pushed):
    def forbidden(request):
        if request.url.path == "/info":
            body = {"code": "forbidden", "detail": "This key may not do that."}
            return httpx.Response(403, json=body, headers={"content-type": "application/problem+json"})
        return httpx.Response(200, json=standin.deployments["churn"])

    with Client(standin.url, READER) as reader:
        headers = dict(reader._connection._http.headers)
        reader._connection._http = httpx.Client(base_url=standin.url, headers=headers, transport=httpx.MockTransport(forbidden))
        reader.wait_serving("churn", 1, timeout=1)


def test_importing_the_client_imports_httpx_and_no_other_library(tmp_path):
    code = (
        "import sys; import httpx, anyio; before = set(sys.modules); import modelkeep.client;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names;"
        "print(*(name for name in new if not name.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["modelkeep"]


def test_the_client_needs_neither_numpy_nor_the_server(tmp_path):
    code = (
        "import sys; import modelkeep.client;"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        "assert not loaded & {'numpy', 'pandas', 'polars', 'pyarrow', 'joblib', 'msgspec', 'pydantic', 'PIL'}, loaded;"
        "assert not [name for name in sys.modules if name.startswith('modelkeep.') and 'client' not in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert Path(__import__("modelkeep.client").client.__file__).with_name("py.typed").exists()
