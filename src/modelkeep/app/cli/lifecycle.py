"""Commands about the life of models and versions: deprecate, trash, hold, purge, what happened, and lineage."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.models import MAYBE, MaybeNumber, Number, Reason
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, ModelName, Url
from modelkeep.app.cli.screen import Cell, Screen, file_size, when

if TYPE_CHECKING:
    from modelkeep.client import Erasure

_TRASHED = "`modelkeep trash {}` puts it there."


def deprecate(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    reason: Reason,
    sunset: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="The day, in UTC, from which it will answer no longer."),
    ] = None,
    successor: Annotated[int | None, typer.Option(min=1, metavar="N", help="The version to take instead.")] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="What callers should know.")] = "",
    undo: Annotated[bool, typer.Option("--undo", metavar="", help="Take the deprecation back.")] = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say that a model, or one of its versions, should not be used any more. Its answers tell it by headers."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name, interrupted=_maybe(name, number)) as client:
        if undo:
            done = client.revive(name, version=number, reason=reason)
        else:
            day = sunset.replace(tzinfo=UTC) if sunset else None
            done = client.deprecate(name, reason=reason, version=number, sunset=day, note=note, successor=successor)
    told = "is not deprecated any more" if undo else "is deprecated"
    screen.result(done.raw, lambda: screen.say(f"{_named(name, number)} {told}."))


def trash(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Put a model, or one of its versions, into the trash, where it can be restored until it is purged."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name, interrupted=_maybe(name, number)) as client:
        done = client.trash(name, version=number, reason=reason)
    back = f"modelkeep restore {name}{f' {number}' if number else ''}"
    screen.result(done.raw, lambda: screen.say(f"{_named(name, number)} is in the trash. `{back}` takes it back."))


def hold(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    reason: Reason,
    release: Annotated[bool, typer.Option("--release", metavar="", help="Take the hold away.")] = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Put a legal hold on a model, or one of its versions: nothing of it is trashed or purged."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name, interrupted=_maybe(name, number)) as client:
        act = client.release if release else client.hold
        done = act(name, version=number, reason=reason)
    told = "is on hold no more" if release else "is on legal hold"
    screen.result(done.raw, lambda: screen.say(f"{_named(name, number)} {told}."))


def purge(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask: it does not come back.")] = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Remove for good what is in the trash. It does not come back."""
    screen = Screen(as_json=as_json)
    if not yes:
        typer.confirm(f"{_named(name, number)} does not come back. Purge it?", abort=True)
    it = f"{name} {number}" if number else name
    with (
        connected(url, key, model=name, interrupted="It may be done already: `modelkeep erasures` tells.") as client,
        refined("not_trashed", _TRASHED.format(it)),
    ):
        found = client.purge(name, version=number, reason=reason)
    told = f"{_named(name, number)} is being purged. `modelkeep erasures` shows when its files are gone."
    screen.result([one.raw for one in found], lambda: screen.say(told))


def erasures(
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List what was purged: which versions, by whom, and how many bytes are gone."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.erasures(limit=limit)
    columns = ("model", "version", "asked by", "asked", "before", "after", "done", "reason")
    rows = [_row(one) for one in found]
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="Nothing was purged."))


def changes(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show what happened in the life of a model, or of one of its versions: who did what, when, and why."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.changes(name, version=number, limit=limit)
    rows: list[list[Cell]] = [[one.change, one.before, one.after, when(one.at), one.by, one.reason] for one in found]
    columns = ("change", "from", "to", "at", "by", "reason")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="Nothing happened to it."))


def lineage(
    name: ModelName,
    number: Number,
    *,
    depth: Annotated[int, typer.Option(min=1, max=50, metavar="N", help="How many steps to go, either way.")] = 10,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show where a version came from, and what came of it."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.lineage(name, number, depth=depth)
    rows = [
        *(_related(one, -1) for one in reversed(found.ancestors)),
        _related(found.version, 0),
        *(_related(one, 1) for one in found.descendants),
    ]
    columns = ("steps", "model", "version", "life", "created", "by", "trained by")
    screen.result(found.raw, lambda: screen.table(columns, rows))


def _related(one: Mapping[str, Any], sign: int) -> list[Cell]:
    trained = (one.get("training") or {}).get("job", "")
    steps = sign * int(one["steps"])
    return [steps, one["model"], one["number"], one["life"], when(one["created_at"]), one["created_by"], trained]


def _row(one: "Erasure") -> list[Cell]:
    before, after = (None if size is None else file_size(size) for size in (one.bytes_before, one.bytes_after))
    return [one.model, one.version, one.asked_by, when(one.asked_at), before, after, when(one.finished_at), one.reason]


def _named(name: str, number: int | None) -> str:
    return f"{name} version {number}" if number else name


def _maybe(name: str, number: int | None) -> str:
    return MAYBE.format(f"changes {name}{f' {number}' if number else ''}")
