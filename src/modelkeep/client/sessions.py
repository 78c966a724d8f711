"""Logging in and out, one's own sessions and password, and the keys that sign sessions."""

import base64
import hashlib
import secrets
from functools import partial
from urllib.parse import urlencode

from modelkeep.client.errors import Invalid, NotAuthenticated, NotFound
from modelkeep.client.identity import BrowserLogin, Me, Provider, Session, Tokens, User
from modelkeep.client.login import ENDED, Login
from modelkeep.client.results import Listing
from modelkeep.client.server import API, Server, part
from modelkeep.client.steps import Steps, Work


def login(server: Server, name: str, password: str, *, provider: str | None = None) -> Steps[Tokens]:
    """Log in with an e-mail address and a password, or with a name that the directory `provider` knows, and go on so.

    The tokens go with every request from now on, and are renewed as they end. For a client without an API key.
    """
    holder = _holder(server)
    path, field = ("/auth/login", "email") if provider is None else (f"/auth/ldap/{part(provider)}/login", "login")
    body = {field: name, "password": password}
    tokens = Tokens.read((yield from server.document("POST", path, body, anonymous=True)))
    yield Work(partial(holder.keep, tokens))
    return tokens


def begin_login(server: Server, provider: str, *, port: int = 0) -> Steps[BrowserLogin]:
    """Begin a login in a browser by the OpenID provider of this name; nothing has happened until somebody opens its address.

    `port` is where a program on the browser's machine waits for the code; without one, the browser shows it, to be pasted.
    """
    found = {one.name: one.kind for one in (yield from login_providers(server))}
    if found.get(provider) != "oidc":
        raise NotFound("There is no OpenID provider of this name here.", code="identity_provider_not_found")
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {"challenge": challenge} | ({"port": port, "state": state} if port else {})
    address = f"{server.url}{API}/auth/terminal/oidc/{part(provider)}/login?{urlencode(query)}"
    return BrowserLogin(address, state, verifier)


def finish_login(server: Server, begun: BrowserLogin, code: str) -> Steps[Tokens]:
    """Log in with the code that a browser came back with, and go on so, as `login` does; a code is good once, for minutes."""
    holder = _holder(server)
    body = {"code": code, "verifier": begun.verifier}
    tokens = Tokens.read((yield from server.document("POST", "/auth/terminal/tokens", body, anonymous=True)))
    yield Work(partial(holder.keep, tokens))
    return tokens


def refresh(server: Server) -> Steps[None]:
    """Take new tokens now; without this, they are renewed as they end."""
    holder = _holder(server)
    if not (yield Work(holder.renew)) or not (yield Work(partial(holder.renew, holder.access_token))):
        raise NotAuthenticated("Nobody is logged in.")


def exchanged(server: Server, refresh_token: str) -> Steps[Tokens]:
    """Return the tokens that a refresh token gets; it is used up with that."""
    body = {"refresh_token": refresh_token}
    return Tokens.read((yield from server.document("POST", "/auth/refresh", body, anonymous=True)))


def logout(server: Server, *, everywhere: bool = False) -> Steps[None]:
    """End this session, or with `everywhere` all of yours, and forget its tokens; they open nothing from now on."""
    try:
        yield from server.document("POST", "/auth/logout-all" if everywhere else "/auth/logout")
    except NotAuthenticated as error:
        if error.code != ENDED or everywhere:
            raise
    if server.login is not None:
        yield Work(partial(server.login.keep, None))


def me(server: Server) -> Steps[Me]:
    """Return who asks: the user, by which key or session, and their roles."""
    return Me.read((yield from server.get("/me")))


def rename_me(server: Server, display_name: str) -> Steps[User]:
    """Change the name that people read of you."""
    return User.read((yield from server.document("PATCH", "/me", {"display_name": display_name})))


def change_password(server: Server, old: str, new: str) -> Steps[None]:
    """Take another password; your other sessions end."""
    yield from server.document("POST", "/me/password", {"old": old, "new": new})


def sessions(server: Server) -> Steps[list[Session]]:
    """Return your sessions that go on, newest first."""
    return Listing(Session.read(one) for one in (yield from server.get("/me/sessions"))["items"])


def end_session(server: Server, session_id: str) -> Steps[None]:
    """End one of your sessions."""
    yield from server.document("DELETE", f"/me/sessions/{part(session_id)}")


def login_providers(server: Server) -> Steps[list[Provider]]:
    """Return the ways to log in beside an e-mail address and a password; needs no key."""
    found = yield from server.document("GET", "/auth/providers", anonymous=True)
    return Listing(Provider.read(one) for one in found["items"])


def rotate_signing_key(server: Server) -> Steps[str]:
    """Publish a new key that signs access tokens, and return from when on it does; nobody is logged out."""
    return str((yield from server.document("POST", "/auth/signing-keys"))["signs_from"])


def _holder(server: Server) -> Login:
    if server.login is None:
        raise Invalid("This client asks with an API key; make one without to log in.", code="api_key_given")
    return server.login
