"""The demo's way in: a key that may do everything with models, kept in `demo.env`.

At the very first start the server leaves a one-time setup token in its data directory. The administrator's key made with it
goes into `admin-key` beside it, and the password into `admin-password`, for this user alone, so that nothing is lost when
`demo.env` is.
"""

import os
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile

from modelkeep.client import Client, NotAuthenticated

ADMIN_EMAIL = "admin@demo.invalid"
SCOPES = ("predict", "models:read", "models:write", "models:code")


class NoWayIn(RuntimeError):
    """The server is set up already, and none of its keys is known here."""


def demo_key(url: str, data: Path, known: str) -> str:
    """Return a key for the demo: `known`, from an earlier run, while it works, else a new one."""
    if known and works(url, known):
        return known
    with Client(url, administrator_key(url, data)) as client:
        client.allow_code(reason="The demo serves a forest saved with joblib, which it has trained itself.")
        made = client.create_key("demo", SCOPES, rate="unlimited")
    return str(made.secret)


def administrator_key(url: str, data: Path) -> str:
    """Return the administrator's key, made with the setup token if there is none yet."""
    kept = data / "admin-key"
    if kept.exists():
        key = kept.read_text(encoding="ascii").strip()
        if works(url, key):
            return key
    token = data / "setup-token"
    if not token.exists():
        raise NoWayIn(f"{data} was set up by somebody else: name another with DATA=..., or put a key into {data / 'demo.env'}.")
    password = secrets.token_urlsafe(18)
    with Client(url) as client:
        made = client.setup(token.read_text(encoding="ascii").strip(), email=ADMIN_EMAIL, password=password)
    write_whole(kept, f"{made.secret}\n")
    write_whole(data / "admin-password", f"{password}\n")
    return str(made.secret)


def administrator_login(data: Path) -> dict[str, str]:
    """Return what the administrator logs in with, for `demo.env`; nothing where the demo was set up before people could."""
    kept = data / "admin-password"
    if not kept.exists():
        return {}
    password = kept.read_text(encoding="ascii").strip()
    return {"MODELKEEP_ADMIN_EMAIL": ADMIN_EMAIL, "MODELKEEP_ADMIN_PASSWORD": password}


def works(url: str, key: str) -> bool:
    """Whether the server knows the key."""
    with Client(url, key) as client:
        try:
            client.me()
        except NotAuthenticated:
            return False
    return True


def read_env(path: Path) -> dict[str, str]:
    """Return the names and values of an environment file; empty where there is none."""
    if not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: value for name, equals, value in lines if equals}


def write_whole(path: Path, text: str) -> None:
    """Write a file for this user alone, so that a reader sees all of it or the one before."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:  # its mode is 0600
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
