"""Logging in through a browser: what comes to the port that is open for it, and what is pasted."""

import io
import webbrowser

import httpx
import pytest

from fixtures.standin_people import CODE
from modelkeep.app.cli import browser_login


@pytest.fixture
def keyless(command, monkeypatch):
    monkeypatch.delenv("MODELKEEP_API_KEY")
    return command


@pytest.fixture
def browser(standin, monkeypatch):
    """A browser that logs in at the address, and then asks at the port what `asks` says: path, query and host."""

    class Browser:
        def __init__(self):
            self.asks = [("/", {"code": CODE}, None)]
            self.answers = []
            self.address = ""

        def open(self, address):
            self.address = address
            query = httpx.URL(address).params
            standin.people.challenge = query["challenge"]
            port = int(query["port"])
            for path, said, host in self.asks:
                given = {"state": query["state"], **said}
                headers = {"host": host or f"127.0.0.1:{port}"}
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", params=given, headers=headers, trust_env=False)
                self.answers.append(answer)

    made = Browser()
    monkeypatch.setattr(webbrowser, "open", made.open)
    return made


def test_a_browser_on_this_machine_brings_the_code(keyless, browser, standin, home):
    done = keyless("login", "--provider", "sso")
    assert (done.code, done.out) == (0, f"You are ada at {standin.url}.\n")
    assert browser.address.startswith(f"{standin.url}/api/v1/auth/terminal/oidc/sso/login?challenge=")
    assert browser.address in done.err, "where no browser opens, it is opened by hand"
    (answer,) = browser.answers
    assert (answer.status_code, answer.headers["referrer-policy"]) == (200, "no-referrer")
    assert CODE not in answer.text + done.out + done.err
    assert keyless("whoami").code == 0
    (file,) = home.glob("modelkeep/logins/*.json")
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_others_bring_to_the_port_is_nobodys(keyless, browser):
    theirs = {"code": "mkl_" + "x" * 46}
    browser.asks = [
        ("/", theirs | {"state": "another"}, None),
        ("/", theirs | {"state": ""}, None),
        ("/other", theirs, None),
        ("/", theirs, "evil.test"),  # a page whose name leads to this machine
        ("/", {}, None),
        ("/", {"code": CODE}, None),
    ]
    assert keyless("login", "--provider", "sso").code == 0
    assert [one.status_code for one in browser.answers] == [404] * 5 + [200]


def test_a_refusal_ends_the_wait_with_its_code(keyless, browser, home):
    browser.asks = [("/", {"error": "not_admitted"}, None)]
    done = keyless("login", "--provider", "sso")
    assert (done.code, "not_admitted" in done.err) == (5, True)
    browser.asks = [("/", {"code": "mkl_" + "x" * 46}, None)]
    done = keyless("login", "--provider", "sso")
    assert (done.code, "sign_on_code_refused" in done.err) == (5, True)
    assert list(home.glob("modelkeep/logins/*.json")) == []


def test_the_wait_for_a_browser_ends(keyless, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda _address: False)
    monkeypatch.setattr(browser_login, "_PATIENCE_S", 0.0)
    done = keyless("login", "--provider", "sso")
    assert (done.code, "nobody_came_back" in done.err) == (6, True)


def test_without_a_browser_here_the_code_is_pasted(keyless, standin, monkeypatch):
    class Typist(io.StringIO):
        """Opens the address that the command shows, and pastes what the browser shows."""

        def readline(self):
            return f"{CODE} \n"

    def begin(self, provider, *, port=0):
        begun = original(self, provider, port=port)
        standin.people.challenge = httpx.URL(begun.address).params["challenge"]
        assert "port" not in begun.address
        return begun

    from modelkeep.client import Client

    original = Client.begin_login
    monkeypatch.setattr(Client, "begin_login", begin)
    monkeypatch.setattr("sys.stdin", Typist())
    monkeypatch.setattr(webbrowser, "open", lambda _address: pytest.fail("there is none"))
    done = keyless("login", "--provider", "sso", "--no-browser", "--password-stdin")
    assert (done.code, CODE in done.out + done.err) == (0, False)


def test_who_one_is_an_openid_provider_says(keyless, browser):
    done = keyless("login", "ada", "--provider", "sso")
    assert (done.code, browser.address) == (2, "")
