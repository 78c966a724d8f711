"""What Tab offers, by the protocol that shells speak, and by bash itself."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.standin import KEY

COMMAND = Path(sys.executable).with_name("modelkeep")


@pytest.fixture
def environment(standin):
    """What a shell has, with the stand-in as its server, which has two models."""
    for name in ("churn", "cats"):
        standin.models[name] = {"name": name, "archived_at": None}
        standin.deployments[name] = {"name": name}
    standin.models["old"] = {"name": "old", "archived_at": "2026-11-21T10:00:00Z"}
    standin.versions["churn"] = [{"model": "churn", "number": number, "state": "ready"} for number in (12, 2, 1)]
    return {"PATH": os.environ["PATH"], "MODELKEEP_URL": standin.url, "MODELKEEP_API_KEY": KEY}


def offered(environment, line, shell="bash"):
    """Return what is offered for a line, whose last word is being typed."""
    words = line.split(" ")
    asked = (
        {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        if shell == "bash"
        else {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    asked["_MODELKEEP_COMPLETE"] = f"complete_{shell}"
    program = [sys.executable, "-m", "modelkeep.app.cli"]
    done = subprocess.run(program, env=environment | asked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("modelkeep promote c", {"churn", "cats"}),
        ("modelkeep promote ch", {"churn"}),
        ("modelkeep promote churn ", {"12", "2", "1"}),
        ("modelkeep versions churn 1", {"12", "1"}),
        ("modelkeep restore ", {"old"}),
        ("modelkeep deployments show c", {"churn", "cats"}),
        ("modelkeep push net.onnx --name ca", {"cats"}),
        ("modelkeep replay ch", {"churn"}),
        ("modelkeep mod", {"models"}),
        ("modelkeep models --ar", {"--archived"}),
    ],
)
def test_names_come_from_the_server_and_commands_from_here(environment, line, words):
    assert set(offered(environment, line)) - {""} == words


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_offered_the_same(environment, shell):
    shown = "\n".join(offered(environment, "modelkeep promote c", shell))
    assert "churn" in shown
    assert "cats" in shown


def test_an_address_on_the_line_counts_more(environment, no_server):
    assert offered(environment, f"modelkeep promote --url {no_server} c") == ["", ""]


def test_where_nobody_answers_nothing_is_offered_and_nothing_said(environment, no_server):
    assert offered(environment | {"MODELKEEP_URL": no_server}, "modelkeep promote c") == ["", ""]
    assert offered(environment | {"MODELKEEP_API_KEY": "mk_wrong"}, "modelkeep promote c") == ["", ""]
    assert offered(environment | {"MODELKEEP_URL": "no address"}, "modelkeep promote c") == ["", ""]


def test_a_server_that_is_slow_does_not_hold_up_the_shell(environment):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert offered(environment | {"MODELKEEP_URL": url}, "modelkeep promote c") == ["", ""]
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["c$(reboot)", "c`x`", "c;x", "c x", "c\x1b[2J", "c'", "-c", "c\nd"])
def test_no_name_is_handed_to_a_shell_that_it_would_read_as_more(environment, standin, name):
    standin.models[name] = {"name": name, "archived_at": None}
    assert set(offered(environment, "modelkeep promote c")) - {""} == {"churn", "cats"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(environment, shell):
    done = subprocess.run(
        [sys.executable, "-m", "modelkeep.app.cli"],
        env=environment | {"_MODELKEEP_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "_MODELKEEP_COMPLETE" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None or not COMMAND.exists(), reason="bash and the installed command are needed")
def test_bash_itself_completes_with_what_the_command_prints(environment, tmp_path):
    path = f"{COMMAND.parent}:{environment['PATH']}"
    home = environment | {"HOME": str(tmp_path), "PATH": path}
    shown = subprocess.run(
        ["bash", "--norc", "-c", "modelkeep --show-completion; exit $?"], env=home, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    script = f"""
{shown.stdout}
COMP_WORDS=(modelkeep promote ch); COMP_CWORD=2
_modelkeep_completion modelkeep
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p modelkeep
"""
    done = subprocess.run(["bash", "--norc", "-c", script], env=home, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[0] == "churn", done.stderr
    assert "_modelkeep_completion" in done.stdout.splitlines()[1]
    made = subprocess.run(
        ["bash", "--norc", "-c", "modelkeep --install-completion; exit $?"],
        env=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    assert "modelkeep" in (tmp_path / ".bashrc").read_text()
