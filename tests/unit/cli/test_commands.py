"""What each command does, and how it says so."""

import hashlib
import io
import json
import ssl

import pytest

from fixtures.authority import Callers
from fixtures.standin import KEY, TOKEN


@pytest.fixture
def pushed(command, file):
    assert command("push", file, "--name", "churn").code == 0


def test_a_push_says_what_became_of_it_and_what_to_do_next(command, file):
    done = command("push", file, "--name", "churn")
    assert done.code == 0
    assert "churn version 1 is ready and answers predictions." in done.out
    assert "scikit-learn 1.9.1 Pipeline" in done.out
    assert "0.5 ms for 1 row, 1.2 ms for 64 rows" in done.out
    assert "Note: It was made with an older version." in done.out
    assert "modelkeep predict churn --file ROWS.csv" in done.out
    assert done.err.splitlines()[0] == "Uploaded model.onnx (7 B): churn version 1."
    assert done.err.splitlines()[-1] == "going into service ..."


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"used": True, "speed": 142.37}, "yes, 142.4 times as fast; the same on 400 rows"),
        ({"used": True, "speed": 0.0}, "yes; the same on 400 rows"),
        ({"used": True}, "yes; the same on 400 rows"),  # a report of before, from a server of before
        ({"used": False, "reason": "It is not faster.", "speed": 0.0}, "no: It is not faster."),
    ],
)
def test_a_version_says_how_much_faster_its_compiled_form_is(command, standin, pushed, seen, words):
    standin.versions["churn"][0]["report"]["compiled"] = {"rows_compared": 400, "reason": "", **seen}
    assert [line.split(maxsplit=1)[1] for line in command("versions", "churn", 1).out.splitlines() if "compiled" in line] == [
        words
    ]


def test_everything_that_goes_with_a_model_is_sent(command, standin, file, tmp_path):
    (tmp_path / "rows.csv").write_text("a\n1\n")
    (tmp_path / "names.txt").write_text("x\ny\n")
    (tmp_path / "spec.json").write_text('{"size": 96}')
    done = command(
        *("push", file, "-n", "photos", "--sample", tmp_path / "rows.csv", "--labels", tmp_path / "names.txt"),
        *("--preprocess", tmp_path / "spec.json", "--format", "onnx", "--description", "first", "--no-wait", "--json"),
    )
    assert done.document["state"] == "received"
    (upload,) = standin.uploads
    assert upload["sample"] == ("rows.csv", b"a\n1\n")
    assert upload["labels"] == ("labels.txt", b"x\ny\n")
    assert (upload["preprocess"], upload["format"], upload["description"]) == ('{"size": 96}', "onnx", "first")


def test_a_later_version_says_how_to_promote_it(command, pushed, file):
    done = command("push", file, "--name", "churn")
    assert "Version 1 still answers. To change that:  modelkeep promote churn 2" in done.out
    done = command("promote", "churn", 2)
    assert done.out == "churn version 2 answers now. Version 1 did before: `modelkeep promote churn 1` goes back.\n"


def test_a_push_may_promote(command, pushed, file):
    assert "version 2 is ready and answers" in command("push", file, "--name", "churn", "--promote").out


def test_rows_come_from_the_command_line_from_files_and_from_a_pipe(command, standin, pushed, tmp_path, monkeypatch):
    files = {
        "rows.csv": "x,y\n1,2.5\n3,\n",
        "rows.json": '{"inputs": [[1, 2]]}',
        "rows.jsonl": "[1, 2]\n[3, 4]\n",
        "rows": "1,2\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert command("predict", "churn", "--rows", '[{"x": 1}]').code == 0
    for name in files:
        assert command("predict", "churn", "--file", tmp_path / name).code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x\ty\n5\tsix\n")))
    assert command("predict", "churn").code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'[["six"]]')))
    assert command("predict", "churn", "--file", "-").code == 0
    assert [one["inputs"] for one in standin.predictions] == [
        [{"x": 1}],
        {"x": [1, 3], "y": [2.5, None]},
        [[1, 2]],
        [[1, 2], [3, 4]],
        [[1, 2]],
        {"x": [5], "y": ["six"]},
        [["six"]],
    ]


def test_a_prediction_is_a_table_and_names_its_version(command, pushed):
    done = command("predict", "churn", "--rows", "[[1, 2], [3, 4]]")
    assert done.out.splitlines() == [
        "row\tclass\tlabel\tprobabilities",
        "0\tyes\t1\t[0.25, 0.75]",
        "1\tyes\t1\t[0.25, 0.75]",
    ]
    assert done.err == "churn version 1 · prd_1\n"


def test_outputs_are_asked_for_by_name(command, standin, pushed):
    done = command("predict", "churn", "--rows", "[[1, 2]]", "--output", "probabilities", "--output", "label")
    assert done.out.splitlines() == ["row\tclass\tprobabilities\tlabel", "0\tyes\t[0.25, 0.75]\t1"]
    assert standin.predictions[-1]["outputs"] == ["probabilities", "label"]


def test_pictures_come_back_as_labels(command, standin, pushed, tmp_path, monkeypatch):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    done = command("predict", "churn", "--image", tmp_path / "a.jpg", "--image", tmp_path / "b.jpg", "--top-k", 1)
    assert done.out.splitlines() == ["picture\tlabel\tscore", "a.jpg\tdaisy\t0.9000", "b.jpg\tdaisy\t0.9000"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xd8\xffpiped")))
    assert command("predict", "churn").out.splitlines() == ["label\tscore", "daisy\t0.9000", "bee\t0.0500"]
    assert standin.predictions[-1][0][1] == b"\xff\xd8\xffpiped"


def test_models_and_versions_are_listed_and_shown(command, pushed, file):
    assert command("describe", "churn", "Who leaves?").out == "churn: Who leaves?\n"
    assert command("describe", "churn", "first", "--version", 1).out == "churn version 1: first\n"
    assert command("models").out.splitlines()[0].split("\t") == ["name", "serving", "latest", "created", "description"]
    assert command("models").out.splitlines()[1].startswith("churn\t1\t1\t2026-11-21")
    assert "serving      version 1" in command("models", "churn").out
    assert command("versions", "churn").out.splitlines()[1].startswith("1\tserving\tonnx\t7 B")
    shown = command("versions", "churn", 1).out
    assert "x FP32 [n, 2]" in shown
    assert "memory       12 MB" in shown


def test_the_life_of_a_version_is_told_on_the_line(command, standin, pushed, file):
    command("push", file, "--name", "churn")
    one = "/api/v1/models/churn/versions/2"
    said = command("deprecate", "churn", 2, "--reason", "old", "--sunset", "2027-03-31", "--successor", 1)
    assert said.out == "churn version 2 is deprecated.\n"
    asked = {"reason": "old", "note": "", "sunset": "2027-03-31T00:00:00+00:00", "successor": 1}
    assert standin.lives[-1] == ("PUT", f"{one}/deprecation", asked)
    assert "ready, deprecated" in command("versions", "churn").out.splitlines()[1]
    assert "take version 1" in command("versions", "churn", 2).out
    assert command("deprecate", "churn", 2, "--reason", "no", "--undo").out == "churn version 2 is not deprecated any more.\n"
    assert standin.lives[-1] == ("DELETE", f"{one}/deprecation", {"reason": "no"})
    assert command("hold", "churn", "--reason", "case 7").out == "churn is on legal hold.\n"
    assert "case 7" in command("models", "churn").out
    assert command("hold", "churn", "--reason", "closed", "--release").out == "churn is on hold no more.\n"
    assert "`modelkeep restore churn 2` takes it back" in command("trash", "churn", 2, "--reason", "old").out
    assert standin.lives[-1] == ("DELETE", one, {"reason": "old"})
    assert command("restore", "churn", 2).out == "churn version 2 is back.\n"
    assert "is being purged" in command("purge", "churn", 2, "--reason", "gone", "--yes").out
    assert command("erasures").out.splitlines()[1].startswith("churn\t2\t")
    assert command("changes", "churn", 2).out.splitlines()[1].startswith("trash\tactive\ttrashed")
    shown = command("lineage", "churn", 2).out.splitlines()
    assert [line.split("\t")[0] for line in shown] == ["steps", "-1", "0"]


def test_a_push_says_where_the_version_came_from(command, standin, file, tmp_path):
    (tmp_path / "t.json").write_text('{"job": "ci/7"}')
    command("push", file, "--name", "churn", "--parent", "other/3", "--training", tmp_path / "t.json")
    assert (standin.uploads[-1]["parent"], standin.uploads[-1]["training"]) == ("other/3", '{"job": "ci/7"}')
    for text in ("[]", "{"):
        (tmp_path / "t.json").write_text(text)
        assert command("push", file, "--name", "churn", "--training", tmp_path / "t.json").code == 2


def test_what_is_put_away_can_be_taken_back(command, pushed, file):
    command("push", file, "--name", "churn")
    assert command("archive", "churn", 2).out == "churn version 2 is archived.\n"
    assert "archived" in command("versions", "churn").out.splitlines()[1]
    assert "modelkeep restore churn" in command("archive", "churn").out
    assert command("models", "--archived").out.count("churn") == 1
    assert command("restore", "churn").out == "churn is back.\n"


def test_a_version_is_downloaded(command, pushed, tmp_path):
    done = command("download", "churn", 1, "-o", tmp_path / "copy.onnx")
    assert done.out == f"{tmp_path / 'copy.onnx'} (7 B)\n"
    assert (tmp_path / "copy.onnx").read_bytes() == b"weights"


def test_setup_and_keys_print_the_secret_alone(command, standin):
    done = command("setup", "--token", TOKEN)
    assert done.out == f"{KEY}\n"
    assert "not shown again" in done.err
    done = command("keys", "create", "nightly", "--scope", "predict", "--scope", "models:read", "--expires-in-days", 3)
    assert done.out == f"{KEY}\n"
    assert command("keys", "list").out.splitlines()[1].startswith("key_1\tnightly\tpredict, models:read")
    done = command("keys", "rotate", "key_1", "--keep-days", 14)
    assert done.out == f"{KEY}\n"
    assert "The secret from before is good until " in done.err
    assert command("keys", "end-previous", "key_1").out == "key_1 has one secret.\n"
    assert standin.keys[0]["previous_until"] is None
    assert command("keys", "rotate", "key_1", "--keep-days", 91).code == 2
    assert "good until" not in command("keys", "rotate", "key_1", "--keep-days", 0).err
    assert "`modelkeep keys list` shows the ids" in command("keys", "rotate", "key_none").err
    assert command("keys", "revoke", "key_1").out == "key_1 is revoked.\n"
    assert standin.keys == []


def test_a_key_goes_with_certificates_by_their_files_and_names(command, standin, tmp_path):
    file, _key = Callers(tmp_path).signs("nightly")
    named = ["--certificate", file, "--certificate-name", "spiffe://x/nightly", "--certificate-name", "nightly.example.org"]
    kept = [f"sha256:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read_text())).hexdigest()}", "uri:spiffe://x/nightly"]
    kept.append("dns:nightly.example.org")
    command("keys", "create", "plain")
    command("keys", "create", "nightly", *named, "--stands-for")
    assert "certificate" not in standin.keys[0]
    assert standin.keys[1]["certificate"] == {"names": kept, "stands_for": True}
    plain, nightly = command("keys", "list").out.splitlines()[1:]
    assert nightly.endswith(f"{', '.join(kept)} (in place of its secret)")
    assert "sha256" not in plain
    done = command("keys", "bind", "key_1", "--certificate-name", "uri:urn:x:y")
    assert done.out == "key_1 goes with uri:urn:x:y.\n"
    assert standin.keys[0]["certificate"] == {"names": ["uri:urn:x:y"], "stands_for": False}
    assert "`modelkeep keys list` shows the ids" in command("keys", "bind", "key_none", "--certificate-name", "a").err


def test_a_certificate_that_is_none_is_told_before_anything_is_asked(command, standin, tmp_path):
    file, key = Callers(tmp_path).signs("nightly")
    broken = tmp_path / "broken.pem"
    broken.write_text(file.read_text().replace("MII", "-", 1))
    for wrong in (key, tmp_path / "none.pem", broken):
        done = command("keys", "create", "nightly", "--certificate", wrong)
        assert (done.code, str(wrong) in done.err) == (2, True)
    for arguments in (["create", "nightly", "--stands-for"], ["bind", "key_1"]):
        done = command("keys", *arguments)
        assert (done.code, "Which certificates" in done.err) == (2, True)
    assert standin.keys == []
    assert command("keys", "create", "nightly", "--certificate", file).code == 0


def test_a_site_key_is_replaced_by_commands_and_shown_by_none(command, tmp_path):
    file = tmp_path / "data" / "site.key"
    said = [command("secrets", name, "--data", file.parent) for name in ("new-site-key", "rotate-site-key", "forget-site-key")]
    assert [done.code for done in said] == [0, 0, 0]
    assert "0 signing keys are sealed" in said[1].out
    assert said[2].out == "There is one site key.\n"
    assert command("secrets", "new-site-key", "--data", file.parent, "--json").code == 0
    refused = command("secrets", "forget-site-key", "--data", file.parent)
    assert refused.code != 0
    assert "rotate-site-key" in refused.err
    for line in file.read_text().split():
        assert line not in "".join(done.out + done.err for done in (*said, refused))


def test_a_key_has_a_class_and_networks(command, standin):
    networks = ["10.20.0.0/16", "2001:db8::/48"]
    command("keys", "create", "plant", "--rate", "batch", "--concurrency", 8, *(f"--network={one}" for one in networks))
    (made,) = standin.keys
    assert (made["rate"], made["concurrency"], made["networks"]) == ("batch", 8, networks)
    command("keys", "create", "plain")
    assert (standin.keys[1]["rate"], "networks" in standin.keys[1]) == ("user", False), "a server of before takes it"


def test_json_is_all_there_is_on_stdout(command, file, tmp_path):
    for arguments in (
        ["push", file, "--name", "churn"],
        ["models"],
        ["models", "churn"],
        ["versions", "churn"],
        ["versions", "churn", 1],
        ["promote", "churn", 1],
        ["describe", "churn", "text"],
        ["predict", "churn", "--rows", "[[1]]"],
        ["download", "churn", 1, "-o", tmp_path],
        ["archive", "churn"],
        ["restore", "churn"],
        ["keys", "create", "one"],
        ["keys", "list"],
        ["keys", "rotate", "key_1"],
        ["keys", "bind", "key_1", "--certificate-name", "scoring"],
        ["keys", "end-previous", "key_1"],
        ["keys", "revoke", "key_1"],
        ["setup", "--token", TOKEN],
        ["doctor", "--data", tmp_path],
        ["version"],
    ):
        done = command(*arguments, "--json")
        assert done.code == 0, done.err
        assert done.err == ""
        json.loads(done.out)


def test_options_win_over_the_environment(command, standin, monkeypatch):
    monkeypatch.setenv("MODELKEEP_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MODELKEEP_API_KEY", "mk_wrong")
    assert command("models", "--url", standin.url, "--key", KEY).code == 0


def test_every_command_has_help_with_an_example(command):
    names = ["push", "predict", "models", "versions", "promote", "describe", "download", "archive", "restore", "serve", "setup"]
    for name in [*names, "doctor"]:
        done = command(name, "--help")
        assert done.code == 0
        assert f"modelkeep {name}" in done.out.split("Example")[1], name
    assert "Exit codes" in command("--help").out


def test_the_api_is_described_without_a_server(command, tmp_path):
    done = command("openapi")
    assert (done.code, done.document["openapi"][:3]) == (0, "3.1")
    assert "/api/v1/predict/{deployment}" in done.document["paths"]
    assert command("openapi", "-o", tmp_path / "api.json").out == ""
    assert (tmp_path / "api.json").read_text() == done.out


def test_a_description_that_cannot_be_written_is_said_so(command, tmp_path):
    done = command("openapi", "-o", tmp_path)
    assert done.code == 4
    assert f"{tmp_path} cannot be written: Is a directory." in done.err
