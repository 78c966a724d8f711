"""Rollouts: a new version takes over a deployment step by step, or is taken back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar

from modelkeep.client.results import Listing, _FromDocument
from modelkeep.client.server import Server, if_match, part, until
from modelkeep.client.steps import Steps

_LOOK_EVERY_S = 1.0
_OPEN = frozenset({"running", "paused", "held"})


@dataclass(frozen=True, repr=False)
class Rollout(_FromDocument):
    """A version on its way to take over. `step` counts from 1; `numbers` is what is known of each signal now.

    While it is in the `shadow`, `percent` of the requests are asked of it, too, and it answers nobody.
    """

    id: str
    deployment: str = ""
    state: str = ""
    mode: str = ""
    from_version: int = 0
    version: int = 0
    step: int = 0
    percent: float = 0.0
    shadow: bool = False
    steps: Sequence[Mapping[str, Any]] = ()
    gate: Mapping[str, Any] | None = None
    reason: str = ""
    servers: int = 1
    revision: int = 0
    created_at: str = ""
    created_by: str = ""
    ended_at: str | None = None
    numbers: Mapping[str, Mapping[str, Any]] | None = None
    events: Sequence[Mapping[str, Any]] = ()

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "deployment", "version", "state", "step", "percent", "reason")

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self.state not in _OPEN


def rollouts(server: Server, *, deployment: str | None = None, limit: int = 50) -> Steps[list[Rollout]]:
    """Return the newest rollouts; of one deployment alone where it is named."""
    query = {} if deployment is None else {"deployment": deployment}
    return Listing((yield from server.items("/rollouts", Rollout.read, most=limit, **query)))


def rollout(server: Server, rollout_id: str) -> Steps[Rollout]:
    """Return one rollout: where it stands, what is known, and what has happened."""
    return Rollout.read((yield from server.get(_path(rollout_id))))


def start_rollout(server: Server, /, name: str, version: int, *, revision: int | None = None, **plan: object) -> Steps[Rollout]:
    """Have `version` take over the deployment `name`; with `revision`, only if that was not changed since.

    `plan`: mode ("canary", "evidence", "blue_green"), steps (as "5:10m"), shadow (a first step as "20:10m", in which it is
    asked and answers nobody), signals, alpha, beta, margin, bounds, slow_ms, least, patience_minutes and bake_minutes.
    """
    body = {"deployment": name, "version": version, **plan}
    return Rollout.read((yield from server.document("POST", "/rollouts", body, headers=if_match(revision))))


def pause_rollout(server: Server, rollout_id: str, *, revision: int | None = None) -> Steps[Rollout]:
    """Have a rollout go no further; with `revision`, only if it was not changed since that one."""
    return _acted(server, rollout_id, "pause", None, revision)


def resume_rollout(server: Server, rollout_id: str, *, revision: int | None = None) -> Steps[Rollout]:
    """Have a rollout go on."""
    return _acted(server, rollout_id, "resume", None, revision)


def advance_rollout(server: Server, rollout_id: str, *, revision: int | None = None) -> Steps[Rollout]:
    """Go on to the next step, whatever this one still lacks."""
    return _acted(server, rollout_id, "advance", None, revision)


def promote_rollout(server: Server, rollout_id: str, *, revision: int | None = None) -> Steps[Rollout]:
    """Promote the version now, whatever is still to be shown."""
    return _acted(server, rollout_id, "promote", None, revision)


def roll_back_rollout(server: Server, rollout_id: str, *, reason: str = "", revision: int | None = None) -> Steps[Rollout]:
    """Take the version back at once."""
    return _acted(server, rollout_id, "rollback", {"reason": reason}, revision)


def rollout_evidence(server: Server, rollout_id: str) -> Steps[dict[str, Any]]:
    """Return the evidence of a rollout as it came: what it takes (`needs`), and `points` with what was known at each moment."""
    return dict((yield from server.get(f"{_path(rollout_id)}/evidence")))


def watch_rollout(
    server: Server, rollout_id: str, *, timeout: float = 86400.0, on_state: Callable[[Rollout], None] | None = None
) -> Steps[Rollout]:
    """Look every second until a rollout is over, and return it; raises `TimedOut` when late."""

    def look() -> Steps[Rollout]:
        found = yield from rollout(server, rollout_id)
        if on_state is not None:
            on_state(found)
        return found

    def late(seen: Rollout) -> str:
        return f"The rollout {rollout_id} is still {seen.state} after {timeout:g} s. It goes on by itself."

    return (yield from until(look, lambda seen: seen.over, late, timeout=timeout, pauses=repeat(_LOOK_EVERY_S)))


def _acted(server: Server, rollout_id: str, act: str, body: Mapping[str, Any] | None, revision: int | None) -> Steps[Rollout]:
    path = f"{_path(rollout_id)}/{act}"
    return Rollout.read((yield from server.document("POST", path, body, headers=if_match(revision))))


def _path(rollout_id: str) -> str:
    return f"/rollouts/{part(rollout_id)}"
