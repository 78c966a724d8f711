"""`modelkeep feedback`: telling later whether predictions were right, and what was told."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Feedback

_VERDICTS = ("right", "wrong")
_MAYBE = "It may be told already: send it again, the same counts once."
_UNKNOWN = "`modelkeep predictions` shows those that there are. One that was just made comes within seconds."
_SAID = {
    "accepted": "Taken: {} was {}.",
    "unchanged": "Known already: {} was {}.",
    "parked": "Parked: {} is not in the history yet. It is looked for again for a day, and was {} then.",
}

Id = Annotated[
    str, typer.Argument(metavar="PREDICTION", help="The prediction's id, as X-Prediction-ID said.", show_default=False)
]

feedback = typer.Typer(
    no_args_is_help=True,
    help="Tell whether predictions were right, and see what was told.",
    epilog="Example:  modelkeep feedback send prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4 wrong",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@feedback.command(
    "send", epilog='Example:  modelkeep feedback send prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4 wrong --truth \'{"label": "leaves"}\''
)
def send(
    prediction_id: Id,
    verdict: Annotated[str, typer.Argument(metavar="right|wrong", help="How it was.", show_default=False)],
    *,
    truth: Annotated[str, typer.Option(metavar="JSON", help="What is true.", show_default=False)] = "",
    note: Annotated[str, typer.Option(metavar="TEXT", help="What else there is to say.", show_default=False)] = "",
    at: Annotated[str, typer.Option(metavar="TIME", help="Of which moment this is; now if not said.", show_default=False)] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Tell that a prediction was right or wrong; of several the last holds."""
    _check(verdict)
    screen, known = Screen(as_json=as_json), _read(truth)
    with connected(url, key, interrupted=_MAYBE) as client:
        done = client.feedback(prediction_id, verdict, truth=known, note=note, at=at or None)
    screen.result(done.raw, lambda: screen.say(_SAID.get(done.status, done.status).format(prediction_id, verdict)))


@feedback.command("list", epilog="Example:  modelkeep feedback list --deployment churn --verdict wrong")
def list_feedback(
    *,
    deployment: Annotated[str, typer.Option(metavar="NAME", help="Of this deployment.", show_default=False)] = "",
    version: Annotated[str, typer.Option(metavar="VERSION", help="Of this version: number or id.", show_default=False)] = "",
    verdict: Annotated[str, typer.Option(metavar="right|wrong", help="Those that were so.", show_default=False)] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="NUMBER", help="Most to list.")] = 20,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List what was told of predictions, the newest prediction first."""
    if verdict:
        _check(verdict)
    if version.isdecimal() and not deployment:
        raise WrongUse(f"Version {version} of what?", "Name it with --deployment, or say the version's id.")
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.list_feedback(
            deployment=deployment or None, version=version or None, verdict=verdict or None, limit=limit
        )
    rows: list[list[Cell]] = [
        [one.prediction, one.deployment, one.version, one.verdict, _truth(one), when(one.at), one.by] for one in found
    ]
    columns = ("prediction", "deployment", "version", "verdict", "truth", "at", "by")
    empty = "Nothing such was told." if deployment or version or verdict else "Nothing was told yet."
    _table(screen, found, columns, rows, empty)


@feedback.command("show", epilog="Example:  modelkeep feedback show prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4")
def show(prediction_id: Id, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show all that was told of a prediction; what holds comes first."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client, refined("prediction_not_found", _UNKNOWN):
        found = client.prediction_feedback(prediction_id)
    rows: list[list[Cell]] = [[one.verdict, _truth(one), when(one.at), when(one.told_at), one.by, one.note] for one in found]
    columns = ("verdict", "truth", "at", "told", "by", "note")
    _table(screen, found, columns, rows, "Nothing was told of this prediction.")


def _table(screen: Screen, found: "list[Feedback]", columns: Sequence[str], rows: list[list[Cell]], empty: str) -> None:
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty=empty))


def _truth(one: "Feedback") -> str:
    return "" if one.truth is None else json.dumps(one.truth, ensure_ascii=False)


def _check(verdict: str) -> None:
    if verdict not in _VERDICTS:
        raise WrongUse(f"A prediction was right or wrong, not {verdict!r}.")


def _read(truth: str) -> object:
    """Return what is true, as JSON says it."""
    try:
        return json.loads(truth) if truth else None
    except json.JSONDecodeError as error:
        raise WrongUse(f"--truth is not JSON: {error.msg}.", "A text is in quotes of its own: --truth '\"leaves\"'.") from error
