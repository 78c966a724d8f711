"""Logging in through a browser: the command sends somebody there, and gets a code back.

It comes over a port of this machine that is open for that alone (RFC 8252), or is pasted. Only this process can use it: it
keeps the verifier that the login was begun with (PKCE), and that never leaves it but for the server.
"""

import secrets
import threading
import time
import webbrowser
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from modelkeep.app.cli.asking import ask_secret
from modelkeep.app.cli.screen import Screen

if TYPE_CHECKING:
    from modelkeep.client import Client, Tokens

_PATIENCE_S: Final = 600.0
_QUIET_S: Final = 5.0
_PAGE: Final = b"<!doctype html><title>Modelkeep</title><p>Go back to the terminal: it says how this ended.</p>"
_HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
OPEN: Final = "Open this address in a browser on this machine, and log in there:"
OPEN_ANYWHERE: Final = "Open this address in a browser, log in there, and paste the code that it shows at the end:"
ELSEWHERE: Final = "Is the browser on another machine? Ctrl-C, and once more with --no-browser."
NOBODY_CAME: Final = "Nobody came back from the browser within ten minutes."
REFUSED: Final = "Nobody was logged in."


def log_in(client: "Client", provider: str, screen: Screen, *, browser: bool, piped: bool) -> "Tokens":
    """Log in by an OpenID provider, in a browser of this machine, or of any where there is no `browser` here."""
    if browser:
        with _Listening() as listening:
            begun = client.begin_login(provider, port=listening.port)
            screen.news(f"{OPEN}\n\n  {begun.address}\n\n{ELSEWHERE}")
            threading.Thread(target=webbrowser.open, args=(begun.address,), daemon=True).start()  # some wait for its end
            code = listening.code(begun.state)
    else:
        begun = client.begin_login(provider)
        screen.news(f"{OPEN_ANYWHERE}\n\n  {begun.address}\n")
        code = ask_secret("Code", piped=piped)
    return client.finish_login(begun, code.strip())


class _Listening(TCPServer):
    """A port of this machine, for one browser that comes back."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CameBack)
        self.port = int(self.server_address[1])
        self.state = ""
        self.came: dict[str, str] = {}

    def code(self, state: str) -> str:
        """Return what the browser brings with this `state`; others are told that nothing is here."""
        from modelkeep.client import NotAuthenticated, TimedOut

        self.state, ends = state, time.monotonic() + _PATIENCE_S
        while not self.came:
            self.timeout = ends - time.monotonic()
            if self.timeout <= 0:
                raise TimedOut(NOBODY_CAME, code="nobody_came_back")
            self.handle_request()
        if "code" not in self.came:
            raise NotAuthenticated(REFUSED, code=self.came["error"])
        return self.came["code"]


class _CameBack(BaseHTTPRequestHandler):
    """One request to that port: nobody's, unless it knows the login's `state` and names this very address."""

    server: _Listening
    timeout = _QUIET_S

    def do_GET(self) -> None:
        """Take what a browser brings."""
        asked = urlsplit(self.path)
        said = {name: values[0] for name, values in parse_qs(asked.query).items()}
        here = self.headers.get("host") == f"127.0.0.1:{self.server.port}" and asked.path == "/"
        known = secrets.compare_digest(said.get("state", "").encode(), self.server.state.encode())
        if not (here and known and said.keys() & {"code", "error"}):
            self.send_error(404)
            return
        self.server.came = said
        self.send_response(200)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Say nothing: the code stands in the request's first line."""
