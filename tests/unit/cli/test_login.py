"""Logging in on the command line, and going on as a person: nothing secret is on a screen, a command line or within reach."""

import io
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import typer

from fixtures.standin import KEY, TOKEN
from fixtures.standin_people import EMAIL, LINK, PASSWORD
from modelkeep.app.cli import program

COMMAND = [sys.executable, "-m", "modelkeep.app.cli"]
REFRESH = ("POST", "/api/v1/auth/refresh")
NEW = "staple of another kind"


@pytest.fixture
def piped(monkeypatch):
    """Have these lines be what is piped in."""

    def pipe(*lines):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{one}\n" for one in lines)))

    return pipe


@pytest.fixture
def keyless(command, monkeypatch):
    """Runs a command without an API key in the environment."""
    monkeypatch.delenv("MODELKEEP_API_KEY")
    return command


@pytest.fixture
def person(keyless, piped):
    """Runs a command as somebody who has logged in."""
    piped(PASSWORD)
    assert keyless("login", EMAIL, "--password-stdin").code == 0
    return keyless


def kept(home):
    (file,) = home.glob("modelkeep/logins/*.json")
    return file


def test_who_logs_in_needs_no_key(keyless, piped, standin, home):
    refused = keyless("models")
    assert refused.code == 5
    assert "`modelkeep login` logs in" in refused.err
    piped(PASSWORD)
    done = keyless("login", EMAIL, "--password-stdin")
    assert (done.code, done.out) == (0, f"You are ada at {standin.url}.\n")
    assert "modelkeep logout" in done.err
    assert keyless("models").code == 0
    assert keyless("keys", "list").code == 0
    assert kept(home).stat().st_mode & 0o777 == 0o600
    assert keyless("logout").out == f"Your session has ended at {standin.url}.\n"
    assert keyless("models").code == 5
    assert list(home.glob("modelkeep/logins/*.json")) == []


def test_a_login_as_json_has_no_secret(keyless, piped, standin, home):
    piped(PASSWORD)
    done = keyless("login", EMAIL, "--password-stdin", "--json")
    assert done.document["session"] == "ses_1"
    assert done.document["user"]["name"] == "ada"
    assert datetime.fromisoformat(done.document["ends_at"]) > datetime.now(UTC)
    tokens = json.loads(kept(home).read_text())
    for secret in (PASSWORD, tokens["access_token"], tokens["refresh_token"]):
        assert secret not in done.out + done.err


def test_a_directory_is_logged_in_to_by_its_name(keyless, piped):
    piped(PASSWORD)
    assert keyless("login", "ada", "--provider", "corp", "--password-stdin").code == 0
    assert "session ses_1" in keyless("whoami").out
    piped(PASSWORD)
    done = keyless("login", "ada", "--provider", "crop", "--password-stdin")
    assert (done.code, "There are: corp, sso." in done.err) == (3, True)


def test_a_wrong_password_is_refused_and_leaves_nothing(keyless, piped, home):
    piped("another one entirely")
    done = keyless("login", EMAIL, "--password-stdin")
    assert done.code == 5
    assert "login_refused" in done.err
    assert "another one entirely" not in done.out + done.err
    assert list(home.glob("modelkeep/logins/*.json")) == []


def test_without_a_terminal_nothing_is_asked_for(keyless, piped, standin):
    piped(PASSWORD)
    for arguments in (("login", EMAIL), ("login",), ("password",), ("register", "bob", "bob@example.org")):
        done = keyless(*arguments)
        assert done.code == 2
        assert "--password-stdin" in done.err
    piped()
    done = keyless("login", EMAIL, "--password-stdin")
    assert (done.code, "nothing was given" in done.err) == (2, True)
    assert standin.requests == []


def test_a_key_counts_more_than_a_login(person, monkeypatch, piped):
    assert "session ses_1" in person("whoami").out
    assert "key admin (key_0)" in person("whoami", "--key", KEY).out
    monkeypatch.setenv("MODELKEEP_API_KEY", KEY)
    assert "key admin (key_0)" in person("whoami").out
    piped(PASSWORD)
    assert "MODELKEEP_API_KEY is set, and counts more" in person("login", EMAIL, "--password-stdin").err
    done = person("models", "--key", "mk_wrong")
    assert (done.code, "Check --key and MODELKEEP_API_KEY" in done.err) == (5, True)


def test_who_one_is_says_by_what_with_which_roles_and_until_when(person):
    lines = dict(line.split(maxsplit=1) for line in person("whoami").out.splitlines())
    assert lines["name"] == "ada"
    assert lines["by"] == "session ses_1"
    assert lines["roles"] == "admin on installation (through crew)"
    assert lines["ends"].startswith("2026-11-21")
    assert person("whoami", "--json").document["ends_at"] == "2026-11-21T10:00:00Z"
    by_key = person("whoami", "--key", KEY).out
    assert "scopes" in by_key
    assert "never" in by_key


def test_a_login_goes_on_after_its_access_token_has_ended(person, standin, home):
    file = kept(home)
    tokens = json.loads(file.read_text())
    file.write_text(json.dumps(tokens | {"expires_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}))
    assert person("models").code == 0
    assert json.loads(file.read_text())["refresh_token"] != tokens["refresh_token"]
    assert person("models").code == 0
    assert standin.requests.count(REFRESH) == 1
    assert standin.people.reused == []


def test_a_session_that_ended_elsewhere_is_said_to_have(person, standin, home):
    standin.people.end()
    done = person("models")
    assert done.code == 5
    assert f"Your session at {standin.url} has ended." in done.err
    assert "`modelkeep login` begins another session." in done.err
    assert list(home.glob("modelkeep/logins/*.json")) == []
    done = person("logout")
    assert (done.code, "not_logged_in" in done.err) == (5, True)


def test_a_file_that_others_may_read_is_not_used(person, home):
    kept(home).chmod(0o644)
    done = person("models")
    assert done.code == 5
    assert "session_file_exposed" in done.err
    kept(home).chmod(0o600)
    assert person("models").code == 0


def test_where_no_server_answers_the_login_is_kept(person, home, no_server, standin):
    file = kept(home)
    other = file.with_name(file.name.replace(standin.url.rpartition(":")[2], no_server.rpartition(":")[2]))
    other.write_bytes(file.read_bytes())
    other.chmod(0o600)
    assert person("logout", "--url", no_server).code == 6
    assert other.exists()


def test_all_sessions_end_everywhere(person, standin, home):
    assert person("logout", "--everywhere").out == f"All your sessions have ended at {standin.url}.\n"
    assert ("POST", "/api/v1/auth/logout-all") in standin.requests
    assert list(home.glob("modelkeep/logins/*.json")) == []


def test_ones_sessions_are_listed_and_ended(person):
    line = person("sessions", "list").out.splitlines()[1].split("\t")
    assert (line[0], line[-1]) == ("ses_1", "yes")
    assert person("sessions", "end", "ses_1").out == "ses_1 has ended.\n"
    done = person("sessions", "end", "ses_other")
    assert (done.code, "`modelkeep sessions list` shows the ids." in done.err) == (3, True)


def test_a_password_is_changed_by_who_knows_it_or_has_a_token(person, piped, standin):
    piped("not this one", NEW)
    refused = person("password", "--password-stdin")
    assert (refused.code, "wrong_password" in refused.err) == (5, True)
    piped(PASSWORD, NEW)
    assert person("password", "--password-stdin").out == "The password is changed; your other sessions have ended.\n"
    assert standin.people.password == NEW
    piped(LINK, PASSWORD)
    assert person("password", "--link", "--password-stdin").code == 0
    assert standin.people.password == PASSWORD


def test_who_was_invited_registers(keyless, piped):
    piped(LINK, NEW)
    done = keyless("register", "bob", "bob@example.org", "--password-stdin")
    assert done.out == "bob is registered (usr_1). `modelkeep login bob@example.org` comes in.\n"
    piped("mkl_wrong", NEW)
    assert keyless("register", "eve", "eve@example.org", "--password-stdin").code == 5


def test_the_first_administrator_may_log_in(keyless, piped, standin):
    piped(PASSWORD)
    assert keyless("setup", "--token", TOKEN, "--email", EMAIL, "--password-stdin").code == 0
    assert standin.login == {"email": EMAIL, "password": PASSWORD}


def test_no_command_takes_a_password_or_a_token_of_a_person_as_a_word():
    """Words of a command line are shown to everybody on the machine. The token of the first set-up is used up by it."""

    def options(command, path=()):
        for one in command.params:
            yield path, one
        for name, child in getattr(command, "commands", {}).items():
            yield from options(child, (*path, name))

    found = {
        (" ".join(path), flag)
        for path, one in options(typer.main.get_command(program.app))
        for flag in (*one.opts, one.name or "")
        if any(word in flag for word in ("password", "token", "secret")) and not getattr(one, "is_flag", False)
    }
    assert found == {("setup", "--token"), ("setup", "token")}


def on_a_terminal(arguments, environment, *typed):
    """Run at a terminal and type a line whenever a question is asked; return the code and what was to be seen."""
    ours, theirs = pty.openpty()
    shown, left = b"", list(typed)
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end was closed: Linux says so with EIO
                break
            if left and shown.endswith(b": "):
                os.write(ours, f"{left.pop(0)}\n".encode())
        os.close(ours)
    return process.returncode, shown.decode()


def test_at_a_terminal_what_is_secret_is_asked_for_and_not_shown(standin, home):
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": standin.url, "XDG_CONFIG_HOME": str(home), "TERM": "dumb"}
    code, shown = on_a_terminal(["login"], environment, EMAIL, PASSWORD)
    assert code == 0, shown
    assert f"You are ada at {standin.url}." in shown
    assert EMAIL in shown  # the control: what is typed is seen, where it is not secret
    assert PASSWORD not in shown
    code, shown = on_a_terminal(["password"], environment, PASSWORD, NEW, "not the same")
    assert (code, "That was not the same twice." in shown) == (2, True)
    code, shown = on_a_terminal(["password"], environment, PASSWORD, NEW, NEW)
    assert code == 0, shown
    assert NEW not in shown
    assert standin.people.password == NEW


def test_tab_asks_with_a_login_and_never_spends_what_it_is_renewed_with(person, standin, home):
    standin.models["churn"] = {"name": "churn", "archived_at": None}
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": standin.url, "XDG_CONFIG_HOME": str(home)}
    asked = {"COMP_WORDS": "modelkeep\npromote\nc", "COMP_CWORD": "2", "_MODELKEEP_COMPLETE": "complete_bash"}

    def offered():
        return subprocess.run(COMMAND, env=environment | asked, capture_output=True, text=True, timeout=60).stdout.split()

    assert offered() == ["churn"]
    standin.people.access = {}
    assert offered() == []
    assert standin.requests.count(REFRESH) == 0
    assert person("models").code == 0
