"""Opens the client for a command, and adds to its errors what a person at a terminal can do about them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelkeep.app.cli.kept import session_of
from modelkeep.app.cli.options import DEFAULT_URL
from modelkeep.app.cli.problems import Interrupted

if TYPE_CHECKING:
    from modelkeep.client import Client, Conflict, ModelkeepError

NO_KEY_SAID = "This needs a login or an API key, and there is neither."
WRONG_KEY_SAID = "The API key was not accepted."
NO_KEY = (
    "`modelkeep login` logs in; or pass --key KEY, or set MODELKEEP_API_KEY. After `make demo`: "
    "`set -a; . .modelkeep/demo.env; set +a`."
)
WRONG_KEY = "Check --key and MODELKEEP_API_KEY: the server at {url} does not know this key, or it was revoked or has expired."
LOGGED_OUT = "not_logged_in"
LOG_IN = "`modelkeep login` begins another session."
ENDED_SAID = "Your session at {url} has ended."
ROLE = "No role of yours allows it: `modelkeep whoami` shows them, and an administrator gives one with `modelkeep access give`."
SCOPE = "The key lacks a scope for this; an administrator makes one with `modelkeep keys create NAME --scope ...`."
UNREACHABLE = "The address comes from --url or MODELKEEP_URL; `modelkeep doctor` looks closer."
DEFAULT_UNREACHABLE = "That is the default address; say another with --url or MODELKEEP_URL. `modelkeep doctor` looks closer."
NOTHING_CHANGED = "Nothing was changed."
ASK = "Have somebody run `modelkeep approvals approve {}`"
ARCHIVED = "`modelkeep restore {model}` takes it back."


trusted: ContextVar[Mapping[str, Any]] = ContextVar("trusted", default=MappingProxyType({}))
"""How commands ask over https: the options of the client that say whom to trust, and what to show."""


@contextmanager
def connected(
    url: str, key: str, *, model: str = "", timeout: float = 60.0, interrupted: str | Callable[[], str] = NOTHING_CHANGED
) -> "Iterator[Client]":
    """Yield a client.

    `model` is the name that the command is about: if there is none such, close ones are named. `interrupted` says what state
    things are in when the command is ended by Ctrl-C.
    """
    from modelkeep.client import Client, Conflict, ModelkeepError, NotAllowed, NotAuthenticated, NotFound, ServerUnreachable

    session = None if key else session_of(url)
    with _standing(interrupted), Client(url, key or None, timeout=timeout, session=session, **trusted.get()) as client:
        try:
            yield client
        except NotAuthenticated as error:
            _say_who(error, client.url, key)
            raise
        except NotAllowed as error:
            raise _with(error, error.hint or (SCOPE if key else ROLE)) from None
        except ServerUnreachable as error:
            raise _with(error, DEFAULT_UNREACHABLE if client.url == DEFAULT_URL else UNREACHABLE) from None
        except NotFound as error:
            if not model:
                raise
            try:
                names = [one.name for one in client.models()]
                archived = [one.name for one in client.models(archived=True) if one.archived_at]
            except ModelkeepError:  # the key may predict and no more: then there is nothing to suggest
                raise error from None
            raise _with(error, _no_such(error.code, model, names, archived)) from None
        except Conflict as error:
            raise _with(error, _conflict(error, model)) from None


def _say_who(error: "ModelkeepError", url: str, key: str) -> None:
    """Put into words what was wrong with the key, or with the login."""
    from modelkeep.client.login import ENDED

    if error.code == ENDED:
        error.message, error.hint = ENDED_SAID.format(url=url), LOG_IN
    elif error.code == "unauthenticated":
        error.message = WRONG_KEY_SAID if key else NO_KEY_SAID
        error.hint = WRONG_KEY.format(url=url) if key else NO_KEY


@contextmanager
def _standing(interrupted: str | Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into an error that says how things stand."""
    try:
        yield
    except KeyboardInterrupt:
        state = interrupted if isinstance(interrupted, str) else interrupted()
        raise Interrupted(f"Interrupted. {state}") from None


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


def _conflict(error: "Conflict", model: str) -> str:
    from modelkeep.client import ApprovalNeeded

    if isinstance(error, ApprovalNeeded):
        return f"{ASK.format(error.approval)}. {error.hint or 'Then repeat this command.'}"
    return ARCHIVED.format(model=model) if error.code == "model_archived" else error.hint


def _no_such(code: str, name: str, names: Sequence[str], archived: Sequence[str]) -> str:
    if name in archived:
        return f"{name} is archived. {ARCHIVED.format(model=name)}"
    if name in names and code == "deployment_not_found":
        return f"No version of {name} answers yet: `modelkeep versions {name}` says why."
    if name in names:
        return f"`modelkeep versions {name}` lists its versions."
    return did_you_mean(name, names) or "`modelkeep models` lists what there is."


def did_you_mean(name: str, names: Sequence[str], write: Callable[[str], str] = str) -> str:
    """Return a question naming what is spelled most like `name`, or nothing."""
    near = get_close_matches(name, names, 3)
    return f"Did you mean {' or '.join(write(one) for one in near)}?" if near else ""
