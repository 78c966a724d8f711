"""Commands about alerts: what somebody has to look at, saying that one does, and that it is over."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Alert

STATES = ("firing", "acknowledged", "resolved")
SEVERITIES = ("page", "ticket", "info")
_MAYBE = "It may be done already: `modelkeep alerts show {}` tells."
_UNKNOWN = "`modelkeep alerts list` shows those that there are."

alerts = typer.Typer(
    no_args_is_help=True,
    help="See what somebody has to look at, say that you do, and that it is over.",
    epilog="Example:  modelkeep alerts list --state firing",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id, from `modelkeep alerts list`.", show_default=False)]


@alerts.command("list", epilog="Example:  modelkeep alerts list --state firing --severity page")
def list_alerts(
    *,
    state: Annotated[str | None, typer.Option(metavar="STATE", help=f"Only those that are {', '.join(STATES)}.")] = None,
    severity: Annotated[str | None, typer.Option(metavar="SEVERITY", help=f"Only {', '.join(SEVERITIES)}.")] = None,
    deployment: Annotated[str | None, typer.Option(metavar="NAME", help="Of this deployment alone.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of this model alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List alerts, the last that was opened first."""
    for what, value, known in (("state", state, STATES), ("severity", severity, SEVERITIES)):
        if value is not None and value not in known:
            raise WrongUse(f"There is no {what} {value}.", f"It is one of: {', '.join(known)}.")
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.alerts(state=state, severity=severity, deployment=deployment, model=model, limit=limit)
    rows: list[list[Cell]] = [
        [one.id, one.severity, one.state, one.title, one.count, when(one.last_at), one.acknowledged_by] for one in found
    ]
    columns = ("id", "severity", "state", "what", "times", "last", "acknowledged by")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="There is no such alert."))


@alerts.command("show", epilog="Example:  modelkeep alerts show alr_01J9Z3K6T2Q8W4V5R7X0Y1B2C9")
def show(alert_id: Id, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show what happened, how often, who looks at it, and what was seen."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client, refined("alert_not_found", _UNKNOWN):
        found = client.alert(alert_id)
    screen.result(found.raw, lambda: _show(screen, found))


@alerts.command("acknowledge", epilog="Example:  modelkeep alerts acknowledge alr_01J9Z3K6... --for 60")
def acknowledge(
    alert_id: Id,
    *,
    for_minutes: Annotated[
        int | None,
        typer.Option("--for", min=1, metavar="MINUTES", help="Then it fires again.", show_default="240"),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="It is kept with the alert.")] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say that you look at it; after a while it fires again."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted=_MAYBE.format(alert_id)) as client,
        refined("alert_not_found", _UNKNOWN),
    ):
        found = client.acknowledge_alert(alert_id, for_minutes=for_minutes, note=note)
    screen.result(found.raw, lambda: screen.say(f"Yours until {when(found.acknowledged_until)}: {found.title}"))


@alerts.command("resolve", epilog="Example:  modelkeep alerts resolve alr_01J9Z3K6... --note 'version 4 has clean rows'")
def resolve(
    alert_id: Id,
    *,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the alert.", show_default=False)],
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say that it is over, and why."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted=_MAYBE.format(alert_id)) as client,
        refined("alert_not_found", _UNKNOWN),
    ):
        found = client.resolve_alert(alert_id, note=note)
    screen.result(found.raw, lambda: screen.say(f"Resolved: {found.title}"))


def _show(screen: Screen, one: "Alert") -> None:
    by = f"{one.acknowledged_by}, until {when(one.acknowledged_until)}" if one.acknowledged_by else None
    over = f"{one.resolved_by}, {when(one.resolved_at)}: {one.resolved_why}" if one.resolved_at else None
    screen.facts(
        {
            "what": one.title,
            "": one.text,
            "severity": one.severity,
            "state": one.state,
            "since": when(one.opened_at),
            "times": f"{one.count}, last {when(one.last_at)}",
            "acknowledged": by,
            "note": one.acknowledged_note,
            "resolved": over,
        }
    )
    rows: list[list[Cell]] = [
        [when(seen["at"]), seen["rollout"], signal, *(_count(numbers, name) for name in _COUNTS)]
        for seen in one.evidence
        for signal, numbers in seen["numbers"].items()
    ]
    screen.table(("at", "rollout", "signal", "bad", "of", "others bad", "of"), rows)


_COUNTS = ("bad", "requests", "others_bad", "others")


def _count(numbers: dict[str, float | None], name: str) -> str:
    value = numbers.get(name)
    return "" if value is None else f"{value:g}"
