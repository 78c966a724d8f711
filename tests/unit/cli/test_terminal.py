"""The command as it really runs: on a terminal, in a pipe, and quickly."""

import json
import os
import pty
import subprocess
import sys
import unicodedata

import pytest

from fixtures.standin import KEY
from modelkeep.app.cli.problems import WrongUse, report
from modelkeep.app.cli.screen import Screen
from modelkeep.contracts.audit_chain import GENESIS
from modelkeep.control.audit.rules import Entry, Head, lines, seal
from modelkeep.infra.clock import utc_now

COMMAND = [sys.executable, "-m", "modelkeep.app.cli"]


@pytest.fixture
def environment(standin):
    inherited = dict(os.environ)
    return {**inherited, "MODELKEEP_URL": standin.url, "MODELKEEP_API_KEY": KEY, "TERM": "xterm-256color", "COLUMNS": "100"}


def on_a_terminal(arguments, environment):
    """Run with a terminal as stdin, stdout and stderr; return the code and what it showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other end was closed: Linux says so with EIO
                break
            if not data:
                break
            shown += data
        os.close(ours)
    return process.returncode, shown.decode()


def test_an_upload_on_a_terminal_shows_a_bar_and_the_states(standin, environment, tmp_path):
    standin.validation = 0.3
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(3_000_000))
    code, shown = on_a_terminal(["push", str(path), "--name", "churn"], environment)
    assert code == 0
    assert "Uploading model.onnx" in shown
    assert "MB" in shown
    assert "received ..." in shown
    assert "churn version 1 is ready and answers predictions." in shown


def test_a_long_trail_is_verified_under_a_bar_and_in_silence_where_json_is_asked_for(environment, tmp_path):
    path, head = tmp_path / "trail.jsonl", Head(0, GENESIS)
    with path.open("wb") as file:
        for number in range(3000):
            entry = Entry(id=f"aud_{number}", at=utc_now(), action="model.create", target_kind="model", before="x" * 500)
            sealed = seal(entry, head, bytes(32))
            head = Head(sealed.seq, sealed.hash)
            file.writelines(lines([sealed], keys=True))
    code, shown = on_a_terminal(["audit", "verify", str(path)], environment)
    assert code == 0
    assert "Verifying the trail" in shown
    assert "MB" in shown
    assert "The trail is whole." in shown
    code, shown = on_a_terminal(["audit", "verify", "--json", str(path)], environment)
    assert (code, json.loads(shown)["whole"], json.loads(shown)["entries"]) == (0, True, 3000)


def test_tables_are_drawn_on_a_terminal(standin, environment, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    subprocess.run([*COMMAND, "push", str(path), "--name", "churn"], env=environment, check=True, capture_output=True)
    code, shown = on_a_terminal(["models"], environment)
    assert code == 0
    assert "churn" in shown
    assert "─" in shown
    assert "\t" not in shown


def test_an_empty_list_on_a_terminal_says_how_to_begin(environment):
    code, shown = on_a_terminal(["models"], environment)
    assert code == 0
    assert "modelkeep push FILE --name NAME" in " ".join(shown.split())


def test_a_reader_that_has_enough_is_no_problem(standin, environment):
    for number in range(300):
        standin.models[f"model-{number}"] = {"name": f"model-{number}", "archived_at": None, "description": "x" * 400}
    line = f"{sys.executable} -m modelkeep.app.cli models | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("name\t")
    assert done.stderr == ""


def test_help_does_not_load_the_client_or_the_server(tmp_path):
    code = (
        "import sys\n"
        "from modelkeep.app.cli import program\n"
        "assert program.run(['--help']) == 0\n"
        "heavy = {'httpx', 'numpy', 'pydantic', 'fastapi', 'sqlalchemy', 'modelkeep.client'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


def test_nothing_that_is_shown_commands_the_terminal(capsys):
    hostile = "fine \x1b]0;pwned\x07\x1b[2J\x9b31m\x08\r\x7f text"
    screen = Screen(as_json=False)
    screen.say(hostile)
    screen.news(hostile)
    screen.table(["name"], [[hostile]])
    screen.facts({"name": hostile})
    report(WrongUse(hostile, hostile), as_json=False)
    shown = "".join(capsys.readouterr())
    assert shown.count("fine") >= 4
    assert not [one for one in shown if unicodedata.category(one) == "Cc" and one not in "\n\t"]
