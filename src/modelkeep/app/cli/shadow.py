"""`modelkeep shadow`: how a version that is asked beside the promoted one compares with it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.deployments import Name
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Shadow

_MOST_VALUES = 4
_BAR = 40

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
            _percent(one.agreement),
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
            "agreement": _percent(found.agreement),
            "rows": f"{found.rows} compared, {found.differ} differ ({_percent(low)} to {_percent(high)})",
            "requests": f"{found.asked} chosen, {found.requests} compared, {found.requests_differ} differ",
            "dropped": _counts(found.dropped),
            "failed": _counts(found.failed),
            "promoted version": _times(found.primary_ms),
            "shadow": _times(found.shadow_ms),
            "heard of": when(found.at),
        }
    )
    if found.outputs:
        columns = ("output", "compared", "rows", "differ", "half within", "90 % within", "99 % within")
        screen.table(columns, [_output(one) for one in found.outputs])
    for one in found.outputs:
        _distances(screen, one)
        if one["confused"]:
            lines: list[list[Cell]] = [[pair["primary"], pair["shadow"], pair["rows"]] for pair in one["confused"]]
            screen.table((f"{one['name']}: promoted says", "shadow says", "rows"), lines)
    if any(one["differ"] for one in found.slices):
        worst: list[list[Cell]] = [
            [one["column"], one["says"], one["rows"], one["differ"], _percent(one["least"])]
            for one in found.slices
            if one["differ"]
        ]
        screen.table(("column", "rows that are", "rows", "differ", "surely at least"), worst)
    if found.worst:
        screen.table(
            ("prediction", "row", "distance", "promoted says", "shadow says", "asked"), [_row(one) for one in found.worst]
        )


def _output(one: Mapping[str, Any]) -> list[Cell]:
    within = [one["relative"][part] for part in ("p50", "p90", "p99")]
    return [
        one["name"],
        one["kind"],
        one["rows"],
        one["differ"],
        *(None if part is None else _percent(part) for part in within),
    ]


def _distances(screen: Screen, one: Mapping[str, Any]) -> None:
    """Draw how many rows are how far apart."""
    most = max((rows for _bound, rows in one["histogram"]), default=0)
    if len(one["histogram"]) > 1:
        lines: list[list[Cell]] = [
            [
                "equal" if not bound else "beyond" if bound < 0 else f"up to {_percent(bound)}",
                rows,
                "#" * round(_BAR * rows / most),
            ]
            for bound, rows in one["histogram"]
        ]
        screen.table((f"{one['name']}: apart", "rows", ""), lines)


def _row(one: Mapping[str, Any]) -> list[Cell]:
    distance = "" if one["distance"] is None else _percent(one["distance"])
    return [one["prediction"], one["row"], distance, *(_text(one[side]) for side in ("primary", "shadow", "inputs"))]


def _text(values: Mapping[str, Any]) -> str:
    told = [f"{name}={_short(value)}" for name, value in list(values.items())[:_MOST_VALUES]]
    return ", ".join(told) + (", ..." if len(values) > _MOST_VALUES else "")


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(_short(one) for one in value[:_MOST_VALUES])}{', ...' if len(value) > _MOST_VALUES else ''}]"
    return str(value)


def _counts(counts: Mapping[str, int]) -> str | None:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or None


def _times(times: Mapping[str, Any]) -> str | None:
    known = [f"{name} {value:.3g} ms" for name, value in times.items() if value is not None]
    return ", ".join(known) or None


def _percent(part: float | None) -> str | None:
    return None if part is None else f"{100 * part:.4g} %"
