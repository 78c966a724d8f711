"""Aliases: names that point to versions of a model, by which predictions can be asked."""

from functools import partial

from modelkeep.client.errors import NotAllowed
from modelkeep.client.results import Alias, AliasMove, Listing
from modelkeep.client.server import Server, growing, if_match, model_path, part, until
from modelkeep.client.steps import Steps


def aliases(server: Server, name: str) -> Steps[list[Alias]]:
    """Return the aliases of a model, by name."""
    return Listing(Alias.read(one) for one in (yield from server.get(_path(name)))["items"])


def set_alias(server: Server, name: str, alias: str, version: int, *, revision: int | None = None) -> Steps[Alias]:
    """Have `alias` point to a ready version of a model; it is made where it is new. No request is lost when it moves.

    With `revision`, only if it was not changed since that one (0: only if it is new); otherwise `Stale` is raised.
    """
    path, body = _path(name, alias), {"version": version}
    return Alias.read((yield from server.document("PUT", path, body, headers=if_match(revision))))


def wait_alias(server: Server, name: str, alias: str, version: int, *, timeout: float = 60.0) -> Steps[None]:
    """Wait until predictions by `alias` are answered by `version`; raises `TimedOut` when it does not come to that.

    A key that may not predict cannot see it, and waits for nothing.
    """

    def late(_answers: object) -> str:
        return f"{name} {alias} points to version {version}, but is not answered by it after {timeout:g} s."

    look = partial(_answers_by, server, name, alias, version)
    yield from until(look, bool, late, timeout=timeout, pauses=growing(0.02, 0.5))


def delete_alias(server: Server, name: str, alias: str, *, revision: int | None = None) -> Steps[None]:
    """Delete an alias; its history stays. `revision` as in `set_alias`."""
    yield from server.document("DELETE", _path(name, alias), headers=if_match(revision))


def alias_history(server: Server, name: str, alias: str, *, limit: int = 50) -> Steps[list[AliasMove]]:
    """Return the newest moves of an alias: who had it point from where to where, and when."""
    return Listing((yield from server.items(f"{_path(name, alias)}/history", AliasMove.read, most=limit)))


def _answers_by(server: Server, name: str, alias: str, version: int) -> Steps[bool]:
    try:
        found = yield from server.answering(name, alias)
    except NotAllowed:
        return True
    return found is not None and found["version"] == version


def _path(name: str, alias: str | None = None) -> str:
    path = f"{model_path(name)}/aliases"
    return path if alias is None else f"{path}/{part(alias)}"
