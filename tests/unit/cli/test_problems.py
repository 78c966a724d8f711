"""What a stranger sees when something is wrong: one or two lines, what to try, and an exit code. Never a traceback."""

import io
import os
import sys

import pytest

from fixtures.standin import READER, Refusal
from modelkeep.app.cli import program


@pytest.fixture
def pushed(command, file):
    assert command("push", file, "--name", "churn").code == 0


def assert_calm(done, code, *words):
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 3
    for word in words:
        assert word in done.err


def test_no_key_says_where_to_put_one(command, monkeypatch):
    monkeypatch.delenv("MODELKEEP_API_KEY")
    assert_calm(command("models"), 5, "--key", "MODELKEEP_API_KEY", "demo.env")


def test_a_wrong_key_says_what_to_check(command):
    assert_calm(command("models", "--key", "mk_wrong"), 5, "does not know this key")
    assert_calm(command("models", "--key", "mk_ö"), 5, "copied whole")


def test_a_key_without_the_scope_says_how_to_get_one(command, file):
    assert_calm(command("push", file, "--name", "churn", "--key", READER), 5, "lacks a scope", "keys create")


def test_a_server_that_is_down_says_how_to_start_it(command, no_server):
    assert_calm(command("models", "--url", no_server), 6, no_server, "modelkeep serve", "--url")


def test_a_wrong_port_says_that_something_else_is_there(command, other_program):
    assert_calm(command("models", "--url", other_program), 6, "not as Modelkeep does", "port")


def test_an_address_that_is_none_is_explained(command):
    assert_calm(command("models", "--url", "http://["), 4, "http://127.0.0.1:8080")


def test_a_busy_server_is_told_apart_from_a_broken_one(command, standin):
    standin.refusal = Refusal(503, "overloaded", "More requests are waiting than may.")
    assert_calm(command("models"), 6, "overloaded")
    standin.refusal = Refusal(500, "internal", "Something went wrong on our side.")
    assert_calm(command("models"), 1, "req_1")


def test_a_missing_file_suggests_its_neighbour(command, file):
    assert_calm(command("push", file.with_name("modle.onnx"), "--name", "churn"), 2, "There is no file", "model.onnx")
    assert_calm(command("push", "/nowhere/model.onnx", "--name", "churn"), 2, "There is no file /nowhere/model.onnx")
    assert_calm(command("push", file, "--name", "churn", "--labels", "nowhere.txt"), 2, "nowhere.txt")
    assert_calm(command("push", file, "--name", "churn", "--preprocess", "nowhere.json"), 2, "nowhere.json")
    assert_calm(command("predict", "churn", "--file", "nowhere.csv"), 2, "nowhere.csv")
    assert_calm(command("predict", "churn", "--image", "nowhere.jpg"), 2, "nowhere.jpg")


def test_a_directory_is_said_to_be_one(command, tmp_path):
    assert_calm(command("push", tmp_path, "--name", "churn"), 4, "holds no file")
    assert_calm(command("predict", "churn", "--file", tmp_path), 2, "is a directory")


def test_an_unknown_suffix_lists_those_that_are_known(command, tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"x")
    assert_calm(command("push", path, "--name", "churn"), 4, ".onnx", "unsupported_format", "--format")


def test_a_name_that_is_none_says_what_names_are_made_of(command, file):
    assert_calm(command("push", file, "--name", "Churn"), 4, "small letters", "invalid_name")


def test_a_misspelt_command_is_recognised(command):
    assert_calm(command("psuh"), 2, "'push'")


def test_a_misspelt_option_is_recognised(command, file):
    assert_calm(command("push", file, "--nmae", "x"), 2, "--name")


def test_an_option_before_the_command_says_where_it_goes(command):
    assert_calm(command("--url=http://x", "models"), 2, "after the command")
    assert "after the command" in command("--json", "models").problem["advice"]


def test_missing_arguments_say_where_to_look(command, file):
    assert_calm(command("push"), 2, "FILE", "modelkeep push --help")
    assert_calm(command("push", file), 2, "--name")
    assert_calm(command("promote", "churn", "two"), 2, "a whole number is expected")


def test_no_command_at_all_shows_what_there_is(command):
    done = command()
    assert done.code == 2
    assert "push" in done.out
    assert done.err == ""


def test_a_misspelt_model_is_recognised(command, pushed):
    for arguments in (
        ["predict", "chrun", "--rows", "[[1]]"],
        ["models", "chrun"],
        ["versions", "chrun"],
        ["promote", "chrun", 1],
    ):
        assert_calm(command(*arguments), 3, "Did you mean churn?")
    assert_calm(command("models", "photos"), 3, "`modelkeep models` lists what there is.")
    assert_calm(command("versions", "churn", 7), 3, "no version 7", "`modelkeep versions churn`")


def test_a_rejected_model_prints_code_detail_and_advice(command, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"broken")
    done = command("push", path, "--name", "churn")
    assert done.code == 4
    for word in ("churn version 1 was rejected: artifact_truncated", "It ends after 12 bytes.", "Save the model again"):
        assert word in done.err
    assert "advice" in command("versions", "churn", 1).out
    done = command("push", path, "--name", "churn", "--json")
    assert (done.code, done.out) == (4, "")
    assert done.problem["code"] == "artifact_truncated"
    assert done.problem["version"]["number"] == 2


def test_rows_that_do_not_fit_are_named_by_path_and_code(command, pushed):
    done = command("predict", "churn", "--rows", '[[1, "a"]]')
    assert done.err == "modelkeep: inputs[0][1]: Text where a number is needed. [invalid_input, not_a_number, req_1]\n"
    assert done.code == 4
    problem = command("predict", "churn", "--rows", '[[1, "a"]]', "--json").problem
    assert problem["fields"] == [{"path": "inputs[0][1]", "code": "not_a_number", "message": "Text where a number is needed."}]
    assert (problem["status"], problem["request_id"]) == (400, "req_1")


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("rows.json", b"[[1, 2]", "not JSON"),
        ("rows.jsonl", b"[1]\n[2\n", "line 2"),
        ("rows.csv", b"a,b\n1\n", "line 2, has 1 value;"),
        ("rows.csv", b"a,b\n", "no rows"),
        ("rows.csv", b"", "empty"),
        ("rows", b"  \n", "empty"),
        ("rows", b"\x00\xff\xfe", "neither text nor a picture"),
    ],
)
def test_a_file_of_rows_that_cannot_be_read_says_why(command, pushed, tmp_path, name, data, word):
    (tmp_path / name).write_bytes(data)
    assert_calm(command("predict", "churn", "--file", tmp_path / name), 2, word)


def test_of_many_fields_at_fault_the_first_are_shown(command, standin):
    fields = [{"path": f"inputs[{row}]", "code": "column_count", "message": "Has 1 value."} for row in range(9)]
    standin.refusal = Refusal(400, "invalid_input", "inputs[0]: Has 1 value.", fields)
    done = command("models")
    assert done.err.splitlines() == [
        "modelkeep: inputs[0]: Has 1 value. [invalid_input, column_count, req_1]",
        "  inputs[1]: Has 1 value. [column_count]",
        "  inputs[2]: Has 1 value. [column_count]",
        "  inputs[3]: Has 1 value. [column_count]",
        "  and 5 more",
    ]


def test_rows_that_are_not_json_show_what_rows_look_like(command, pushed):
    assert_calm(command("predict", "churn", "--rows", "1, 2"), 2, "not JSON", "[[1, 2.5], [3, 4]]")


def test_two_sources_of_rows_are_one_too_many(command):
    assert_calm(command("predict", "churn", "--rows", "[[1]]", "--image", "a.jpg"), 2, "one of")


def test_nothing_to_predict_on_says_what_to_give(command, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert_calm(command("predict", "churn"), 2, "--rows, --file or --image")


def test_an_empty_pipe_says_what_else_to_give(command, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert_calm(command("predict", "churn"), 2, "stdin is empty", "--rows, --file or --image")


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_what_is_no_time_is_told_with_how_a_time_is_written(command, option):
    assert_calm(command("predictions", option, "yesterday"), 2, f"{option} yesterday is no time", "2026-01-31T14:00+01:00")
    assert_calm(command("predictions", "export", "all.jsonl", option, "2026-31-01"), 2, "is no time")


def test_the_help_of_a_switch_asks_for_no_value(command):
    switches = [line for line in command("push", "--help").out.splitlines() if "--promote" in line or "--json" in line]
    assert len(switches) >= 2
    assert not [line for line in switches if "bool" in line.lower()]


def test_what_clashes_exits_with_its_own_code(command, pushed):
    assert_calm(command("promote", "churn", 9), 7, "version_not_ready")
    assert_calm(command("archive", "churn", 1), 7, "promote another first")


def test_an_invalid_token_says_so(command):
    assert_calm(command("setup", "--token", "mks_wrong"), 5, "setup_token_invalid")


def test_promotion_of_what_is_not_ready_yet_is_not_waited_for_twice(command, file):
    assert_calm(command("push", file, "--name", "churn", "--promote", "--no-wait"), 2, "--no-wait")


def test_problems_are_json_when_json_is_wanted(command, no_server, file):
    assert command("models", "--url", no_server, "--json").problem["code"] == "server_unreachable"
    assert command("models", "nowhere", "--json").problem["status"] == 404
    assert command("psuh", "--json").problem["code"] == "usage"


def test_a_fault_of_our_own_is_told_in_words(command, monkeypatch):
    def fails(*_, **__):
        raise KeyError("nowhere")

    monkeypatch.setattr("modelkeep.client.Client.models", fails)
    assert_calm(command("models"), 1, "in modelkeep itself", "KeyError", "report")


def test_a_file_system_that_refuses_is_told_in_words(command, monkeypatch):
    def fails(*_):
        raise PermissionError(13, "Permission denied", "rows.csv")

    monkeypatch.setattr("pathlib.Path.read_bytes", fails)
    assert_calm(command("predict", "churn", "--file", "rows.csv"), 1, "rows.csv: Permission denied.")


INTERRUPTED = "modelkeep: Interrupted. "


def interrupts(monkeypatch, method):
    """Let Ctrl-C come while the client does `method`."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"modelkeep.client.Client.{method}", interrupted)


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("models", ["models"], "Nothing was changed."),
        ("push", ["push", "FILE", "--name", "churn"], "Nothing was uploaded."),
        ("wait_ready", ["push", "FILE", "--name", "churn"],
         "churn version 2 is kept and goes on being validated: `modelkeep versions churn 2`."),
        ("wait_ready", ["push", "FILE", "--name", "churn", "--promote"],
         "churn version 2 is kept and goes on being validated, but is not promoted: `modelkeep versions churn 2`, then "),
        ("wait_serving", ["push", "FILE", "--name", "churn", "--promote"],
         "churn version 2 is kept and ready; whether it answers: `modelkeep models churn`."),
        ("promote", ["promote", "churn", 1], "It may be done already: `modelkeep models churn` tells."),
        ("archive", ["archive", "churn", 1], "It may be done already: `modelkeep versions churn 1` tells."),
        ("predict", ["predict", "churn", "--rows", "[[1]]"], "No answer came yet."),
        ("download", ["download", "churn", 1], "No file was written."),
        ("create_key", ["keys", "create", "k"], "The key may have been made: "),
    ],
)  # fmt: skip
def test_an_interrupt_says_in_one_sentence_how_things_stand(command, pushed, file, monkeypatch, method, arguments, said):
    interrupts(monkeypatch, method)
    words = [file if one == "FILE" else one for one in arguments]
    done = command(*words)
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1].startswith(INTERRUPTED + said)


def test_an_interrupt_before_the_command_does_anything_is_told_too(command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("modelkeep.app.cli.predict._inputs", interrupted)
    done = command("predict", "churn")
    assert (done.code, done.err.strip()) == (130, INTERRUPTED + "Nothing was changed.")


def test_an_interrupt_after_the_last_byte_does_not_claim_that_nothing_was_uploaded(command, file, monkeypatch):
    def interrupted(*_, on_progress, **__):
        on_progress(7, 7)
        raise KeyboardInterrupt

    monkeypatch.setattr("modelkeep.client.Client.push", interrupted)
    done = command("push", file, "--name", "churn", "--json")
    assert done.code == 130
    assert done.problem["code"] == "interrupted"
    assert "`modelkeep versions churn` tells whether it is kept" in done.problem["message"]


def test_a_scope_that_is_none_names_those_there_are(command):
    done = command("keys", "create", "k", "--scope", "predct")
    assert_calm(done, 2, "There is no scope predct.", "Did you mean predict?", "models:read", "metrics:read", "admin")
    assert_calm(command("keys", "create", ""), 2, "needs a name")


def test_what_is_no_number_is_told_in_plain_words(command):
    assert_calm(command("versions", "churn", "two"), 2, "'VERSION': a whole number is expected")
    assert_calm(command("versions", "churn", 0), 2, "'VERSION': 1 is the least")
    assert_calm(command("serve", "--port", 70000), 2, "'--port': 65535 is the most")


def test_empty_rows_are_not_taken_from_elsewhere(command):
    assert_calm(command("predict", "churn", "--rows", ""), 2, "--rows is not JSON")


def test_settings_that_are_wrong_do_not_start_a_server(command, tmp_path):
    (tmp_path / "modelkeep.toml").write_text("[server]\nprot = 1\n")
    assert_calm(command("serve", "--config", tmp_path / "modelkeep.toml"), 4, "server.prot", "server.port")
    assert_calm(command("serve", "--config", tmp_path / "nowhere.toml"), 4, "nowhere.toml")


def test_main_exits_with_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["modelkeep", "version"])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 0


def test_what_a_command_cannot_do_without_is_written_out(command):
    assert_calm(command("push"), 2, "Usage: modelkeep push FILE --name NAME")
    assert_calm(command("keys", "revoke"), 2, "Usage: modelkeep keys revoke ID")


def test_the_usual_way_to_ask_for_a_version_leads_to_ours(command):
    assert_calm(command("--version"), 2, "`modelkeep version` prints it")


def test_a_wrong_setup_token_is_not_answered_with_advice_on_keys(command):
    done = command("setup", "--token", "mks_wrong")
    assert_calm(done, 5, "setup-token")
    assert "--key" not in done.err


def test_a_data_directory_that_cannot_be_made_is_named_before_anything_starts(command, tmp_path):
    (tmp_path / "taken").write_text("a file")
    assert_calm(command("serve", "--data", tmp_path / "taken"), 4, "there is a file of that name", "--data")
    assert_calm(command("serve", "--data", "/proc/modelkeep"), 4, "cannot be made", "MODELKEEP_DATA")


def test_a_database_file_that_cannot_be_opened_is_named_before_anything_starts(command, tmp_path, monkeypatch):
    locked = tmp_path / "locked.db"
    locked.touch(0o400)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and allowed(path, mode))  # root may always
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "none/kept.db", f"there is no directory {tmp_path}/none"),
        (locked, "cannot be written"),
    ):
        monkeypatch.setenv("MODELKEEP_DATABASE__URL", f"sqlite:///{path}")
        assert_calm(command("serve", "--data", tmp_path / "data"), 4, said, "database.url")


def test_a_directory_is_no_picture(command, tmp_path):
    assert_calm(command("predict", "churn", "--image", tmp_path), 2, "is a directory")
