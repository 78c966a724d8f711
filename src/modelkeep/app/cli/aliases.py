"""Commands about aliases: names that point to versions of a model, and where they have pointed."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.models import Number
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import AliasMove

_MAYBE = "It may be done already: `modelkeep alias list {}` tells."

alias = typer.Typer(
    no_args_is_help=True,
    help="Name versions of a model, and move the names.",
    epilog="Example:  modelkeep alias set churn champion 3",
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as champion.", show_default=False)]
Revision = Annotated[
    int | None,
    typer.Option("--revision", min=0, metavar="N", help="Only if nobody has moved it since this revision; 0: if it is new."),
]


@alias.command("set", epilog="Example:  modelkeep alias set churn champion 3")
def set_alias(
    name: ModelName,
    called: AliasName,
    number: Number,
    *,
    revision: Revision = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have an alias point to a version. No request is lost when it moves."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted=_MAYBE.format(name)) as client,
        refined("stale", f"`modelkeep alias list {name}` tells how it is now."),
        refined("version_not_ready", f"`modelkeep versions {name} {number}` says more."),
    ):
        found = client.set_alias(name, called, number, revision=revision)
        if client.deployment(name).version is not None:
            with screen.waiting("going into service ..."):
                client.wait_alias(name, called, number)
    ask = f"`modelkeep predict {name} --version {found.name}` asks it."
    screen.result(found.raw, lambda: screen.say(f"{name} {found.name} is version {found.version}. {ask}"))


@alias.command("list", epilog="Example:  modelkeep alias list churn")
def list_aliases(name: ModelName, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the aliases of a model."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.aliases(name)
    rows: list[list[Cell]] = [[one.name, one.version, one.revision, when(one.changed_at), one.changed_by] for one in found]
    empty = f"{name} has no aliases yet. `modelkeep alias set {name} champion 1` makes one."
    columns = ("alias", "version", "revision", "changed", "by")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty=empty))


@alias.command("delete", epilog="Example:  modelkeep alias delete churn canary")
def delete(
    name: ModelName,
    called: AliasName,
    *,
    revision: Revision = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Delete an alias. Its history stays."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted=_MAYBE.format(name)) as client,
        refined("stale", f"`modelkeep alias list {name}` tells how it is now."),
        refined("alias_not_found", f"`modelkeep alias list {name}` lists those there are."),
    ):
        client.delete_alias(name, called, revision=revision)
    screen.result({"deleted": called}, lambda: screen.say(f"{name} {called} is no alias any more."))


@alias.command("history", epilog="Example:  modelkeep alias history churn champion")
def history(
    name: ModelName,
    called: AliasName,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N moves.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show where an alias has pointed: who moved it, and when."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name) as client,
        refined("alias_not_found", f"`modelkeep alias list {name}` lists those there are."),
    ):
        moves = client.alias_history(name, called, limit=limit)
    columns = ("revision", "from", "to", "at", "by")
    screen.result([one.raw for one in moves], lambda: screen.table(columns, [_row(one) for one in moves]))


def _row(move: "AliasMove") -> list[Cell]:
    return [move.revision, move.from_version or "-", move.to_version or "deleted", when(move.at), move.by]
