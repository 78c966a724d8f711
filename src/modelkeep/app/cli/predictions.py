"""Commands about the history: what was asked, and what was answered."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, file_size, when

if TYPE_CHECKING:
    from modelkeep.client import RecordedPrediction, Side

FILTERS = "Which predictions"
OUTCOMES = ("ok", "rejected", "error", "degraded")
EXAMPLE = "Example:  modelkeep predictions --deployment churn --outcome error --since 2026-01-31"
EXPORT_EXAMPLE = "Example:  modelkeep predictions export churn.parquet --deployment churn"

predictions = typer.Typer(
    help="List predictions of the history, newest first; show or export them.",
    epilog=EXAMPLE,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Deployment = Annotated[str, typer.Option(metavar="NAME", help="Of this deployment.", rich_help_panel=FILTERS)]
Version = Annotated[str, typer.Option(metavar="VERSION", help="By this version: number or id.", rich_help_panel=FILTERS)]
AskedBy = Annotated[
    str, typer.Option("--asked-by", metavar="ID", help="With the key or session of this id.", rich_help_panel=FILTERS)
]
User = Annotated[str, typer.Option(metavar="ID", help="By the person or service of this id.", rich_help_panel=FILTERS)]
Outcome = Annotated[
    str, typer.Option(metavar="OUTCOME", help="That ended so: ok, rejected, error or degraded.", rich_help_panel=FILTERS)
]
Request = Annotated[str, typer.Option(metavar="ID", help="Of the request with this X-Request-ID.", rich_help_panel=FILTERS)]
Since = Annotated[
    str, typer.Option(metavar="TIME", help="From this time on (ISO; UTC without a zone).", rich_help_panel=FILTERS)
]
Until = Annotated[str, typer.Option(metavar="TIME", help="Before this time.", rich_help_panel=FILTERS)]


@predictions.callback(invoke_without_command=True)
def list_predictions(
    context: typer.Context,
    *,
    deployment: Deployment = "",
    version: Version = "",
    asked_by: AskedBy = "",
    user: User = "",
    outcome: Outcome = "",
    request: Request = "",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="NUMBER", help="Most to list.")] = 20,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List predictions of the history, newest first; show or export them."""
    if context.invoked_subcommand is not None:
        return
    screen = Screen(as_json=as_json)
    wanted = _wanted(
        deployment=deployment,
        version=version,
        key=asked_by,
        user=user,
        outcome=outcome,
        request_id=request,
        since=since,
        until=until,
    )
    with connected(url, key) as client:
        found = client.predictions(limit=limit, **wanted)
    rows: list[list[Cell]] = [
        [one.id, when(one.at), one.deployment, one.version, one.outcome, one.code, one.rows, f"{one.total_ms:.2f}"]
        for one in found
    ]
    columns = ("id", "at", "deployment", "version", "outcome", "code", "rows", "ms")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="No such predictions."))


@predictions.command("show")
def show(
    prediction_id: Annotated[
        str, typer.Argument(metavar="ID", help="The prediction's id, as X-Prediction-ID said.", show_default=False)
    ],
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show a prediction with what went in and came out."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key) as client,
        refined(
            "prediction_not_found",
            "It is in the history about a second after its answer, for as long as its deployment keeps it.",
        ),
    ):
        found = client.prediction(prediction_id)
    screen.result(found.raw, lambda: _show(screen, found))


@predictions.command("export", epilog=EXPORT_EXAMPLE)
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Written as Parquet (.parquet) or JSON lines.", show_default=False)
    ],
    *,
    deployment: Deployment = "",
    version: Version = "",
    asked_by: AskedBy = "",
    user: User = "",
    outcome: Outcome = "",
    request: Request = "",
    since: Since = "",
    until: Until = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Write predictions to a file, with what went in and came out, newest first."""
    screen = Screen(as_json=as_json)
    wanted = _wanted(
        deployment=deployment,
        version=version,
        key=asked_by,
        user=user,
        outcome=outcome,
        request_id=request,
        since=since,
        until=until,
    )
    with connected(url, key, interrupted="No file was written.") as client:
        path = client.export_predictions(file, **wanted)
    size = path.stat().st_size
    screen.result({"path": str(path), "size": size}, lambda: screen.say(f"{path} ({file_size(size)})"))


def _wanted(**given: str) -> dict[str, str | None]:
    if given["outcome"] and given["outcome"] not in OUTCOMES:
        raise WrongUse(f"There is no outcome {given['outcome']}.", f"There are {', '.join(OUTCOMES)}.")
    for option in ("since", "until"):
        check_time(option, given[option])
    return {name: value or None for name, value in given.items()}


def check_time(option: str, text: str) -> None:
    """Refuse what is no time; raises `WrongUse`."""
    from datetime import datetime

    if not text:
        return
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        advice = "Write it as 2026-01-31, 2026-01-31T14:00 or 2026-01-31T14:00+01:00."
        raise WrongUse(f"--{option} {text} is no time.", advice) from error


def _show(screen: Screen, one: "RecordedPrediction") -> None:
    screen.facts(
        {
            "id": one.id,
            "at": when(one.at),
            "request": one.request_id,
            "deployment": f"{one.deployment}, version {one.version} ({one.version_id})",
            "asked by": f"{one.user}, {one.key_id}".strip(", "),
            "outcome": f"{one.outcome} {one.code}".strip(),
            "rows": one.rows,
            "took": f"{one.total_ms:.2f} ms, {one.queue_ms:.2f} waiting, {one.run_ms:.2f} running",
            "inputs": _side(one.inputs),
            "outputs": _side(one.outputs),
        }
    )


def _side(side: "Side | None") -> str:
    import json

    if side is None:
        return "not kept"
    if side.value is not None:
        text = json.dumps(side.value, ensure_ascii=False)
    else:
        text = f"{side.content_type}, {len(side.base64) * 3 // 4} bytes" if side.base64 else ""
    return f"{text} ({side.note})".strip() if side.note else text
