"""`modelkeep shadow`: how a version that is asked beside the promoted one compares with it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli import comparison
from modelkeep.app.cli.comparison import percent
from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.deployments import Name
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Shadow

shadow = typer.Typer(
    no_args_is_help=True,
    help="See how a shadow's answers compare with the promoted version's.",
    epilog="Example:  modelkeep shadow show churn",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@shadow.command("show", epilog="Example:  modelkeep shadow show churn --version 4")
def show(
    name: Name,
    *,
    version: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of this version; else the one asked now.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show how the answers compare: agreement, distances, slices, times, and the rows that are farthest apart."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key) as client,
        refined("shadow_not_seen", f"`modelkeep shadow list {name}` lists those that were seen."),
    ):
        found = client.shadow(name, version)
    screen.result(found.raw, lambda: _show(screen, name, found))


@shadow.command("list", epilog="Example:  modelkeep shadow list churn")
def list_shadows(name: Name, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the shadows that a deployment has had, the one last heard of first."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.shadows(name)
    lines: list[list[Cell]] = [
        [
            one.version,
            one.primary,
            "now" if one.active else when(one.at),
            one.requests,
            one.rows,
            one.differ,
            percent(one.agreement),
        ]
        for one in found
    ]
    columns = ("version", "beside", "heard of", "requests", "rows", "differ", "agreement")
    screen.result([one.raw for one in found], lambda: screen.table(columns, lines, empty=f"{name} has had no shadow yet."))


def _show(screen: Screen, name: str, found: "Shadow") -> None:
    asked = "is asked" if found.active else "was asked"
    screen.say(
        f"{name}: version {found.version} {asked} beside version {found.primary}, for {found.share:g} % of the requests."
    )
    low, high = (found.disagreement[0], found.disagreement[1]) if found.disagreement else (0.0, 1.0)
    screen.facts(
        {
            "agreement": percent(found.agreement),
            "rows": f"{found.rows} compared, {found.differ} differ ({percent(low)} to {percent(high)})",
            "requests": f"{found.asked} chosen, {found.requests} compared, {found.requests_differ} differ",
            "dropped": _counts(found.dropped),
            "failed": _counts(found.failed),
            "heard of": when(found.at),
        }
    )
    comparison.show(screen, found.raw, names=("promoted", "shadow"))


def _counts(counts: Mapping[str, int]) -> str | None:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or None
