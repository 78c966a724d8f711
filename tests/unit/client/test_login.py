"""A client that has logged in: its tokens go with its requests, are renewed in time, and kept for all that ask as it does."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from fixtures.standin import KEY
from fixtures.standin_people import EMAIL, LINK, PASSWORD
from modelkeep.client import AsyncClient, Client, Invalid, NotAuthenticated, SessionFile

REFRESH = ("POST", "/api/v1/auth/refresh")


@pytest.fixture
def person(standin):
    """Somebody who has logged in, in memory alone."""
    with Client(standin.url, timeout=5) as client:
        client.login(EMAIL, PASSWORD)
        yield client


@pytest.fixture
def kept(standin, tmp_path):
    """A file with the tokens of somebody who has logged in."""
    file = SessionFile.of(tmp_path / "config" / "logins", standin.url)
    with Client(standin.url, timeout=5, session=file) as client:
        client.login(EMAIL, PASSWORD)
    return file


def changed(file, **facts):
    """Write other facts into a file of tokens, as time or somebody would."""
    document = json.loads(file.path.read_text()) | facts
    file.path.write_text(json.dumps(document))
    return document


def long_ago():
    return (datetime.now(UTC) - timedelta(hours=1)).isoformat()


def test_who_logged_in_is_known_without_a_key(standin, person):
    me = person.me()
    assert (me.user.name, me.key, me.session, me.scopes) == ("ada", None, "ses_1", None)
    assert me.roles[0]["role"] == "admin"
    assert person.models() == []
    (session,) = person.sessions()
    assert (session.id, session.this) == ("ses_1", True)
    assert [one.name for one in person.login_providers()] == ["corp", "sso"]
    person.logout()
    with pytest.raises(NotAuthenticated):
        person.me()
    assert standin.requests.count(REFRESH) == 0


def test_a_directory_is_logged_in_to_by_name(standin):
    with Client(standin.url, timeout=5) as client:
        assert client.login("ada", PASSWORD, provider="corp").session == "ses_1"
        assert client.me().session == "ses_1"


def test_a_wrong_password_lets_nobody_in_and_spends_nothing(standin, kept):
    with Client(standin.url, timeout=5, session=kept) as client:
        with pytest.raises(NotAuthenticated) as refused:
            client.login(EMAIL, "another")
        assert refused.value.code == "login_refused"
        assert client.me().session == "ses_1"  # whoever was logged in still is
    assert standin.requests.count(REFRESH) == 0


def test_a_key_counts_more_and_is_not_logged_in_with(standin, kept):
    with Client(standin.url, KEY, timeout=5, session=kept) as client:
        assert client.me().key.id == "key_0"
        with pytest.raises(Invalid) as refused:
            client.login(EMAIL, PASSWORD)
        assert refused.value.code == "api_key_given"


def test_tokens_are_renewed_before_they_end(standin):
    standin.people.life = timedelta(seconds=20)  # within the half minute that a request may be on its way
    with Client(standin.url, timeout=5) as client:
        client.login(EMAIL, PASSWORD)
        standin.people.life = timedelta(minutes=30)
        for _ in range(3):
            client.models()
    assert standin.requests.count(REFRESH) == 1
    assert standin.people.reused == []


def test_tokens_are_renewed_when_one_is_refused_and_the_request_is_done_once_more(standin, person):
    before = standin.requests.count(("GET", "/api/v1/models"))
    standin.people.access = {}
    assert person.models() == []
    assert standin.requests.count(REFRESH) == 1
    assert standin.requests.count(("GET", "/api/v1/models")) == before + 2


def test_streams_and_uploads_are_asked_for_once_more_too(standin, person, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"weights")
    person.push(tmp_path / "model.onnx", "churn")
    line, seen = person._connection, []
    for ask in (
        lambda: line.run(line.server.events("/models/churn/versions/1/events", lambda one: not seen.append(one), silence=5)),
        lambda: person.push(tmp_path / "model.onnx", "churn"),
        lambda: person.wait_ready("churn", 1),
        lambda: person.download("churn", 1, tmp_path / "copy"),
        lambda: person.wait_serving("churn", 1),
    ):
        standin.people.access = {}
        ask()
    assert standin.requests.count(REFRESH) == 5
    assert seen[0]["state"] == "ready"
    assert (tmp_path / "copy").read_bytes() == b"weights"


def test_a_server_that_refuses_every_token_is_not_asked_for_ever(standin, person):
    class Refusing(dict):
        def __contains__(self, _token):
            return False

        def __iter__(self):
            return iter(())

    standin.people.access = Refusing()
    with pytest.raises(NotAuthenticated):
        person.models()
    assert standin.requests.count(REFRESH) == 1
    assert standin.requests.count(("GET", "/api/v1/models")) == 2


def test_a_session_that_has_ended_is_said_to_have_and_is_forgotten(standin, kept):
    standin.people.end()
    with Client(standin.url, timeout=5, session=kept) as client:
        with pytest.raises(NotAuthenticated) as ended:
            client.models()
        assert ended.value.code == "refresh_refused"
        assert kept.read() is None
        with pytest.raises(NotAuthenticated) as nobody:
            client.models()
        assert nobody.value.code == "unauthenticated"
    assert standin.requests.count(REFRESH) == 1


def test_a_logout_of_a_session_that_has_ended_forgets_it(standin, kept):
    standin.people.end()
    with Client(standin.url, timeout=5, session=kept) as client:
        client.logout()
    assert kept.read() is None


def test_new_tokens_can_be_asked_for(standin, person):
    person.refresh()
    assert standin.requests.count(REFRESH) == 1
    with Client(standin.url, timeout=5) as nobody, pytest.raises(NotAuthenticated):
        nobody.refresh()


def test_what_is_public_needs_no_session_and_spends_none(standin, kept):
    changed(kept, expires_at=long_ago())
    with Client(standin.url, timeout=5, session=kept) as client:
        client.health()
        client.readiness()
        client.set_password(LINK, PASSWORD)
        assert client.register("bob", "bob@example.org", PASSWORD, token=LINK).name == "bob"
    assert standin.requests.count(REFRESH) == 0


async def test_awaited_it_is_the_same(standin):
    standin.people.life = timedelta(seconds=20)
    async with AsyncClient(standin.url, timeout=5) as client:
        await client.login(EMAIL, PASSWORD)
        standin.people.life = timedelta(minutes=30)
        assert await asyncio.gather(*(client.models() for _ in range(8))) == [[]] * 8
        standin.people.access = {}
        await asyncio.gather(*(client.models() for _ in range(8)))
        await client.logout()
        with pytest.raises(NotAuthenticated):
            await client.me()
    assert standin.people.reused == []
    assert standin.requests.count(REFRESH) == 2


# ---- the file


def test_the_file_is_for_its_owner_alone_and_has_a_folder_that_is(kept):
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(one.name for one in kept.path.parent.iterdir()) == [kept.path.name, f"{kept.path.name}.lock"]
    assert {one.stat().st_mode & 0o077 for one in kept.path.parent.iterdir()} == {0}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_read_or_write_is_not_used(standin, kept, mode):
    with Client(standin.url, timeout=5, session=kept) as client:
        client.models()  # the control: as it was written, it is
    kept.path.chmod(mode)
    before = len(standin.requests)
    with Client(standin.url, timeout=5, session=kept) as client, pytest.raises(NotAuthenticated) as refused:
        client.models()
    assert refused.value.code == "session_file_exposed"
    assert len(standin.requests) == before  # nor is anything asked with it
    with Client(standin.url, timeout=5, session=kept) as client:
        client.login(EMAIL, PASSWORD)
        client.models()
    assert kept.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_not_used(standin, kept):
    os.chown(kept.path, 65534, -1)
    with pytest.raises(NotAuthenticated) as refused:
        kept.read()
    assert refused.value.code == "session_file_exposed"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"access_token": "a", "refresh_token": "b", "expires_at": "soon"}'])
def test_a_file_that_is_no_login_is_said_to_be_none(kept, text):
    kept.path.write_text(text)
    with pytest.raises(Invalid) as refused:
        kept.read()
    assert refused.value.code == "session_file_unreadable"
    assert str(kept.path) in refused.value.message


def test_each_address_has_a_file_of_its_own(tmp_path):
    urls = ("http://a:1", "https://a:1", "http://a:2", "http://b:1", "http://a:1/keep")
    assert len({SessionFile.of(tmp_path, url).path for url in urls}) == len(urls)
    same = ("http://a:1", "http://a:1/", "a:1", "http://A:1", "http://ada:secret@a:1")
    assert {SessionFile.of(tmp_path, url).path for url in same} == {SessionFile.of(tmp_path, urls[0]).path}
    assert SessionFile.of(tmp_path, "http://h/../../etc").path.parent == tmp_path
    with pytest.raises(Invalid):
        SessionFile.of(tmp_path, "http://")


def test_a_login_that_another_program_made_later_is_taken_up(standin, tmp_path):
    file = SessionFile(tmp_path / "ada.json")
    with Client(standin.url, timeout=5, session=file) as one, Client(standin.url, timeout=5, session=file) as other:
        with pytest.raises(NotAuthenticated):
            one.models()
        other.login(EMAIL, PASSWORD)
        assert one.models() == []


def test_looking_for_a_login_makes_no_file(standin, tmp_path):
    (tmp_path / "file").touch()
    for folder in ("none", "file"):
        with Client(standin.url, timeout=5, session=SessionFile(tmp_path / folder / "x.json")) as client:
            with pytest.raises(NotAuthenticated):
                client.models()
            client.health()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_refused_before_a_token_is_spent(standin, kept, monkeypatch):
    changed(kept, expires_at=long_ago())

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with Client(standin.url, timeout=5, session=kept) as client, pytest.raises(Invalid) as refused:
        client.models()
    assert refused.value.code == "file_unwritable"
    assert standin.requests.count(REFRESH) == 0


def test_many_threads_renew_once(standin, kept):
    changed(kept, expires_at=long_ago())
    start, answers = threading.Barrier(8), []

    def ask():
        with Client(standin.url, timeout=5, session=kept) as client:
            start.wait()
            answers.append(client.models())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert answers == [[]] * 8
    assert standin.requests.count(REFRESH) == 1
    assert standin.people.reused == []


def test_many_processes_renew_once_and_none_spoils_the_session(standin, kept):
    changed(kept, expires_at=long_ago())
    program = (
        "import sys; from modelkeep.client import Client, SessionFile; sys.stdin.readline();"
        "client = Client(sys.argv[1], timeout=20, session=SessionFile(sys.argv[2])); print(client.me().session)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, standin.url, kept.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for one in running:
        one.stdin.write("go\n")
        one.stdin.flush()
    assert [one.communicate(timeout=60)[0] for one in running] == ["ses_1\n"] * 4
    assert standin.requests.count(REFRESH) == 1
    assert standin.people.reused == []


def test_the_control_two_who_do_not_share_the_file_spoil_it(standin, kept, tmp_path):
    """What the lock is for: each with a copy, the second refresh is a theft."""
    copy = SessionFile(tmp_path / "copy.json")
    changed(kept, expires_at=long_ago())
    copy.path.write_text(kept.path.read_text())
    copy.path.chmod(0o600)
    with Client(standin.url, timeout=5, session=kept) as one, Client(standin.url, timeout=5, session=copy) as other:
        one.models()
        with pytest.raises(NotAuthenticated):
            other.models()
        with pytest.raises(NotAuthenticated):
            one.models()
    assert len(standin.people.reused) == 2


def test_what_another_program_got_is_taken_up(standin, kept):
    with Client(standin.url, timeout=5, session=kept) as one, Client(standin.url, timeout=5, session=kept) as other:
        one.models()
        standin.people.access = {}
        other.models()
        one.models()
        assert standin.requests.count(REFRESH) == 1
        other.logout()
        with pytest.raises(NotAuthenticated):
            one.models()
    assert standin.people.reused == []


_PRESSED = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from modelkeep.client.identity import Tokens
from modelkeep.client.login import Login
from modelkeep.client.session_file import SessionFile

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may have had it ignored
file = SessionFile(Path(sys.argv[1]))

def tokens(name):
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    return Tokens.read({"access_token": name, "refresh_token": f"r-{name}", "expires_at": ends})

def refresh(token):
    assert token == "r-old"
    os.kill(os.getpid(), signal.SIGINT)  # somebody presses it while the answer is on its way
    return tokens("new")

with file.held():
    file.write(tokens("old"))
try:
    Login(file, refresh).renew("old")
except KeyboardInterrupt:
    print(file.read().access_token)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_does_not_lose_what_a_spent_token_got(tmp_path):
    """In a process of its own: the signal would else be for whatever runs the tests."""
    ran = subprocess.run(
        [sys.executable, "-c", _PRESSED, str(tmp_path / "one.json")], capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("new\n", "")


def test_no_token_is_shown(person):
    tokens = person.login(EMAIL, PASSWORD)
    for shown in (repr(tokens), tokens._repr_html_(), repr(person), repr(person.me())):
        assert tokens.access_token not in shown
        assert tokens.refresh_token not in shown
