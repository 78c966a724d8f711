"""Somebody works with the commands after a login alone, on a real server: with nothing secret where others could see it."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, installed
from modelkeep.client import Client, NotAuthenticated, SessionFile

PASSWORD = "correct horse battery staple"
NEW = "staple of another kind"
COMMAND = (sys.executable, "-m", "modelkeep.app.cli")
_NUMBERS = itertools.count(1)


@dataclass
class Person:
    """Somebody with a folder of their own, and what they type."""

    house: Installation
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "MODELKEEP_URL": self.house.url, "XDG_CONFIG_HOME": str(self.home)}

    def run(self, *arguments: str, piped: str = "", key: str = "") -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"MODELKEEP_API_KEY": key} if key else {})
        return subprocess.run(
            [*COMMAND, *arguments], input=piped, capture_output=True, text=True, timeout=120, env=environment, cwd=self.home
        )

    def done(self, *arguments: str, piped: str = "", key: str = "") -> str:
        ended = self.run(*arguments, piped=piped, key=key)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def document(self, *arguments: str, key: str = "") -> Any:
        return json.loads(self.done(*arguments, "--json", key=key))

    @property
    def file(self) -> Path:
        return SessionFile.of(self.home / "modelkeep" / "logins", self.house.url).path

    def tokens(self, **changed: object) -> dict[str, Any]:
        """What is kept; with other facts, if any are given."""
        found: dict[str, Any] = json.loads(self.file.read_text()) | changed
        self.file.write_text(json.dumps(found))
        return found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory):
    with installed(tmp_path_factory.mktemp("logins") / "data", MODELKEEP_AUTH__REGISTRATION="invite") as house:
        yield house


@pytest.fixture
def bob(own: Installation, tmp_path: Path) -> Person:
    """A developer whom an administrator has added, and who has a password: everything by the commands."""
    (tmp_path / "home").mkdir()
    person, name = Person(own, tmp_path / "home"), f"bob{next(_NUMBERS)}"
    made = person.document("users", "add", name, "--email", f"{name}@example.org", "--role", "developer", key=own.key)
    token = person.done("users", "reset", made["id"], key=own.key)
    person.done("password", "--link", "--password-stdin", piped=f"{token}{PASSWORD}\n")
    person.done("login", f"{name}@example.org", "--password-stdin", piped=f"{PASSWORD}\n")
    return person


def test_from_a_login_to_a_logout(own: Installation, bob: Person, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype("float32"))))
    assert bob.document("push", str(file), "--name", "bobs")["state"] == "ready"
    assert [one["name"] for one in bob.document("models")] == ["bobs"]
    assert bob.document("predict", "bobs", "--rows", "[[1, 2]]")["outputs"] == {"y": [[1.0, 2.0]]}
    me = bob.document("whoami")
    assert (me["key"], [one["role"] for one in me["roles"]]) == (None, ["developer"])
    assert me["session"] == bob.tokens()["session"]
    before = bob.tokens(expires_at=(datetime.now(UTC) - timedelta(minutes=1)).isoformat())  # as half an hour later
    assert bob.document("models") == bob.document("models")
    after = bob.tokens()
    assert after["session"] == before["session"]
    assert after["refresh_token"] != before["refresh_token"]
    bob.tokens(access_token=f"{after['access_token'][:-4]}AAAA")  # refused, though by its date it is good
    assert [one["name"] for one in bob.document("models")] == ["bobs"]
    assert bob.tokens()["refresh_token"] != after["refresh_token"]
    last = bob.tokens()
    bob.done("logout")
    assert not bob.file.exists()
    refused = bob.run("models")
    assert (refused.returncode, "`modelkeep login` logs in" in refused.stderr) == (5, True)
    bob.file.write_text(json.dumps(last))  # who has kept a copy has nothing
    bob.file.chmod(0o600)
    refused = bob.run("models")
    assert (refused.returncode, "has ended" in refused.stderr) == (5, True)


def test_nothing_secret_is_in_others_reach(bob: Person) -> None:
    assert bob.file.stat().st_mode & 0o777 == 0o600
    waiting = subprocess.Popen(
        [*COMMAND, "login", "bob@example.org", "--password-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=bob.environment,
    )
    seen = psutil.Process(waiting.pid)
    words, environment = seen.cmdline(), seen.environ()
    assert words[-1] == "--password-stdin"  # the control: what stands there is seen
    out, err = waiting.communicate(f"{NEW}\n", timeout=60)
    assert waiting.returncode == 5  # it is not the right one, and is not repeated either
    tokens = bob.tokens()
    shown = [*words, *environment.values(), out, err]
    shown += [
        bob.done(*one) for one in (("whoami",), ("whoami", "--json"), ("sessions", "list"), ("sessions", "list", "--json"))
    ]
    for secret in (NEW, PASSWORD, tokens["access_token"], tokens["refresh_token"]):
        assert not any(secret in one for one in shown)
    assert tokens["session"] in shown[-1]
    bob.file.chmod(0o644)
    assert bob.run("models").returncode == 5
    bob.file.chmod(0o600)
    assert bob.run("models").returncode == 0


def test_who_is_signed_out_logs_in_again(own: Installation, bob: Person) -> None:
    me = bob.document("whoami")
    bob.done("users", "sign-out", me["user"]["id"], key=own.key)
    refused = bob.run("models")
    assert (refused.returncode, "has ended" in refused.stderr) == (5, True)
    bob.done("login", me["user"]["email"], "--password-stdin", piped=f"{PASSWORD}\n")
    bob.done("password", "--password-stdin", piped=f"{PASSWORD}\n{NEW}\n")
    assert bob.document("whoami")["user"] == me["user"]
    bob.done("users", "disable", me["user"]["id"], key=own.key)
    assert bob.run("models").returncode == 5
    assert bob.run("login", me["user"]["email"], "--password-stdin", piped=f"{NEW}\n").returncode == 5


def test_programs_that_share_a_login_do_not_spoil_it(bob: Person) -> None:
    bob.tokens(expires_at=(datetime.now(UTC) - timedelta(minutes=1)).isoformat())
    running = [
        subprocess.Popen([*COMMAND, "whoami", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=bob.environment)
        for _ in range(3)
    ]
    said = [one.communicate(timeout=120) for one in running]
    assert [one.returncode for one in running] == [0, 0, 0], said
    assert {json.loads(out)["session"] for out, _err in said} == {bob.tokens()["session"]}
    assert len(bob.document("sessions", "list")) == 1
    assert "session.reuse" not in {one["action"] for one in bob.document("audit", "list", "-n", "500", key=bob.house.key)}


def test_who_was_invited_registers_and_a_service_gets_a_key(own: Installation, bob: Person) -> None:
    token = bob.done("users", "invite", "--role", "viewer", "--email", "eve@example.org", key=own.key)
    (invitation,) = bob.document("invitations", "list", key=own.key)
    assert (invitation["email"], invitation["role"]) == ("eve@example.org", "viewer")
    bob.done("register", "eve", "eve@example.org", "--password-stdin", piped=f"{token}{PASSWORD}\n")
    assert bob.document("invitations", "list", key=own.key) == []
    bob.done("users", "invite", key=own.key)
    (other,) = bob.document("invitations", "list", key=own.key)
    bob.done("invitations", "withdraw", other["id"], key=own.key)
    robot = bob.document("users", "add", "robot", "--service", "--role", "predictor", key=own.key)
    secret = bob.done("keys", "create", "nightly", "--service", robot["id"], key=own.key).strip()
    assert bob.document("whoami", key=secret)["user"]["name"] == "robot"


def test_the_client_keeps_a_login_in_memory_and_signing_keys_are_rotated(own: Installation, bob: Person) -> None:
    email = bob.document("whoami")["user"]["email"]
    with Client(own.url) as client:
        client.login(email, PASSWORD)
        before = client.me().session
        client.refresh()
        assert client.me().session == before
        bob.done("keys", "rotate-signing", key=own.key)
        assert bob.run("keys", "rotate-signing", key=own.key).returncode == 7  # the one before it does not sign yet
        assert bob.run("keys", "rotate-signing").returncode == 5
        assert client.me().session == before
        client.logout()
        with pytest.raises(NotAuthenticated):
            client.me()
    assert len(bob.document("sessions", "list")) == 1
