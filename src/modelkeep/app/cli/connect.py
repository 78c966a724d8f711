"""Opens the client for a command, and adds to its errors what a person at a terminal can do about them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelkeep.client import Client, ModelkeepError

NO_KEY = "Pass --key KEY or set MODELKEEP_API_KEY. After `make demo`: `set -a; . .modelkeep/demo.env; set +a`."
WRONG_KEY = "Check --key and MODELKEEP_API_KEY: the server at {url} does not know this key, or it was revoked or has expired."
SCOPE = "The key lacks a scope for this; an administrator makes one with `modelkeep keys create NAME --scope ...`."
UNREACHABLE = "The address comes from --url or MODELKEEP_URL; `modelkeep doctor` looks closer."


@contextmanager
def connected(url: str, key: str, *, model: str = "", timeout: float = 60.0) -> "Iterator[Client]":
    """Yield a client. `model` is the name that the command is about: if there is none such, close ones are named."""
    from modelkeep.client import Client, ModelkeepError, NotAllowed, NotAuthenticated, NotFound, ServerUnreachable

    with Client(url, key or None, timeout=timeout) as client:
        try:
            yield client
        except NotAuthenticated as error:
            raise _with(error, WRONG_KEY.format(url=client.url) if key else NO_KEY) from None
        except NotAllowed as error:
            raise _with(error, SCOPE) from None
        except ServerUnreachable as error:
            raise _with(error, UNREACHABLE) from None
        except NotFound as error:
            if not model:
                raise
            try:
                names = [one.name for one in client.models()]
            except ModelkeepError:  # the key may predict and no more: then there is nothing to suggest
                raise error from None
            raise _with(error, _no_such(model, names)) from None


@contextmanager
def refined(code: str, hint: str) -> "Iterator[None]":
    """Add `hint` to an error with this code."""
    from modelkeep.client import ModelkeepError

    try:
        yield
    except ModelkeepError as error:
        if error.code == code:
            error.hint = hint
        raise


def _with(error: "ModelkeepError", hint: str) -> "ModelkeepError":
    error.hint = hint
    return error


def _no_such(name: str, names: Sequence[str]) -> str:
    if name in names:
        return f"`modelkeep versions {name}` lists its versions."
    return did_you_mean(name, names) or "`modelkeep models` lists what there is."


def did_you_mean(name: str, names: Sequence[str], write: Callable[[str], str] = str) -> str:
    """Return a question naming what is spelled most like `name`, or nothing."""
    near = get_close_matches(name, names, 3)
    return f"Did you mean {' or '.join(write(one) for one in near)}?" if near else ""
