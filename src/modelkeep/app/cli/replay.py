"""`modelkeep replay`: have the uploaded file answer again, and see whether the answers agree."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli import comparison
from modelkeep.app.cli.completion import model_names
from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import Code, WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Client, Replay

EXAMPLES = """[bold]Examples[/bold]

  modelkeep replay churn --last 200

  modelkeep replay churn@3 --prediction prd_01J...

  modelkeep replay churn rows.csv

  modelkeep replay churn --days 7 --against 4

Exit code 0: all rows agree; 4: some differ; 3: there was nothing to answer again.
"""
_SIDES = ("recorded", "serving", "original")
_MOST_VALUES = 6

Target = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION]",
        help="Name of the model; its serving version, or this.",
        show_default=False,
        autocompletion=model_names,
    ),
]


def replay(
    target: Target,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Rows of your own: .csv, .json or .jsonl.", show_default=False)
    ] = None,
    *,
    last: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="The newest N recorded predictions (100 by default).")
    ] = None,
    prediction: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A recorded prediction; give it several times for several.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, metavar="N", help="Those of the last N days.")] = None,
    against: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Have this version answer the same, and compare both.")
    ] = None,
    rows: Annotated[str | None, typer.Option(metavar="JSON", help="Rows as JSON: lists, records or columns.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended, or return at once.")] = True,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have the uploaded file answer again. Exit code 0: all rows agree; 4: some differ."""
    if sum((last is not None or days is not None, bool(prediction), rows is not None, file is not None)) > 1:
        raise WrongUse("Give one of --last or --days, --prediction, --rows and FILE.")
    name, number = _parsed(target)
    own = _rows(rows, file)
    screen = Screen(as_json=as_json)
    standing = _Standing(name)
    with (
        connected(url, key, model=name, interrupted=standing.sentence) as client,
        refined("version_not_ready", f"`modelkeep versions {name}` says more."),
    ):
        number = number or _number(client, name)
        what: dict[str, Any] = {"last": last, "predictions": prediction or None, "rows": own, "days": days}
        asked = client.replay(name, number, **what, candidate=against, wait=False)
        standing.look = f"modelkeep replays {name}@{number} {asked.id}"
        if not wait:
            screen.result(asked.raw, lambda: screen.say(f"It is {asked.state}: `{standing.look}` tells more."))
            return
        with screen.waiting("waiting ...") as tell:
            told = ""

            def say(one: "Replay") -> None:
                nonlocal told
                news = f"{one.state}, {one.progress} predictions answered again ..." if one.progress else f"{one.state} ..."
                if news != told and not one.settled:
                    tell(news)
                told = news

            done = client.wait_replay(asked.id, on_state=say)
    screen.result(done.raw, lambda: _show(screen, done))
    _leave(done)


def replays(
    target: Target,
    replay_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this one.", show_default=False)] = None,
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List what was answered again by the uploaded file, newest first, or show one."""
    name, number = _parsed(target)
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name) as client,
        refined("replay_not_found", f"`modelkeep replays {target}` lists those that are kept."),
    ):
        if replay_id is not None:
            one = client.replay_result(replay_id)
            screen.result(one.raw, lambda: _show(screen, one))
            return
        number = number or _number(client, name)
        found = client.replays(name, number)
    lines: list[list[Cell]] = [
        [one.id, when(one.created_at), one.created_by, one.state, *_counts(one), (one.failure or {}).get("code")]
        for one in found
    ]
    columns = ("id", "at", "by", "state", "rows", "equal", "code")
    empty = f"Nothing of {name} version {number} was answered again yet. `modelkeep replay {name}@{number}` does."
    screen.result([one.raw for one in found], lambda: screen.table(columns, lines, empty=empty))


class _Standing:
    """How things stand when somebody ends the command."""

    def __init__(self, name: str) -> None:
        self.look = ""
        self._name = name

    def sentence(self) -> str:
        """Return what was done until now."""
        if not self.look:
            return f"It may have been asked for: `modelkeep replays {self._name}` tells."
        return f"The replay goes on: `{self.look}` tells."


def _parsed(target: str) -> tuple[str, int | None]:
    name, at, number = target.partition("@")
    if at and not (number.isascii() and number.isdigit() and 0 < int(number) < 1 << 31):
        raise WrongUse(f"{target!r} names no version.", "Write it as NAME or NAME@VERSION, such as churn@3.")
    return name, int(number) if at else None


def _number(client: "Client", name: str) -> int:
    """Return the number of the version that serves, or of the newest."""
    model = client.model(name)
    number = model.serving_version or model.latest_version
    if number is None:
        raise WrongUse(f"{name} has no versions yet.", f"`modelkeep push FILE --name {name}` uploads one.")
    return number


def _rows(text: str | None, file: Path | None) -> Any:  # noqa: ANN401 - rows, or bytes of a picture
    from modelkeep.app.cli.rows import STDIN, from_bytes, from_file, from_text

    if text is not None:
        return from_text(text, "--rows")
    if file is None:
        return None
    return from_bytes(sys.stdin.buffer.read(), STDIN) if str(file) == "-" else from_file(file)


def _counts(one: "Replay") -> tuple[Cell, Cell]:
    return (one.summary["rows"], one.summary["rows_equal"]) if one.summary else (None, None)


def _show(screen: Screen, one: "Replay") -> None:
    what = f"{one.model} version {one.version}"
    summary, details = one.summary, one.details or {}
    if one.failure:
        screen.say(f"Nothing came of it: {one.failure['message']} [{one.failure['code']}]")
    elif summary is None:
        screen.say(f"The replay of {what} is {one.state}.")
    else:
        rows, equal = summary["rows"], summary["rows_equal"]
        verdict = f"all {rows} rows agree" if one.agrees else f"{rows - equal} of {rows} rows differ"
        beside = summary.get("candidate")
        if beside:
            screen.say(f"{what} and version {beside['version']}: {verdict}.")
            passed = ", ".join(f"{count} {reason}" for reason, count in summary["skipped"].items())
            screen.facts({"predictions": f"{summary['replayed']} of {summary['predictions']}", "skipped": passed})
            comparison.show(screen, beside | {"worst": details.get("worst") or ()}, names=("replayed", "candidate"))
        else:
            screen.say(f"{what}: {verdict}.")
            screen.facts(_facts(summary))
    if details.get("differing"):
        screen.table(("prediction", "row", "output", *_SIDES), list(_lines(details["differing"])))
    if details.get("forgotten"):
        screen.news(f"{details['forgotten']} rows are no longer shown: their predictions have left the history.")
    passed_over = details.get("skipped") or ()
    for told in passed_over[:_MOST_VALUES]:
        screen.news(f"Skipped {told['id']}: {told['reason']}{', ' + told['detail'] if told['detail'] else ''}")
    if len(passed_over) > _MOST_VALUES:
        screen.news(f"and {len(passed_over) - _MOST_VALUES} more; --json lists them.")


def _facts(summary: Mapping[str, Any]) -> dict[str, Cell]:
    serving, original = summary["serving"], summary["original"]
    same = serving == original
    skipped = ", ".join(f"{count} {reason}" for reason, count in summary["skipped"].items())
    return {
        "original": _file(original),
        "serving": "the same file" if same else _file(serving),
        "predictions": f"{summary['replayed']} of {summary['predictions']}" if summary["predictions"] else None,
        "skipped": skipped,
        "recorded and serving": _compared(summary["recorded_serving"]),
        "serving and original": None if same else _compared(summary["serving_original"]),
        "recorded and original": None if same else _compared(summary["recorded_original"]),
        "not answered": f"{summary['rows_refused']} rows" if summary["rows_refused"] else None,
        **_rule(summary),
    }


def _file(one: Mapping[str, Any]) -> str:
    return f"{one['format']} by {one['runner']}, {one['precision']}, {one['digest'][:12]}"


def _rule(summary: Mapping[str, Any]) -> dict[str, Cell]:
    """Return by what rule answers were the same, in words."""
    if summary["compared"] == "classes":
        accepted = "it serves within the accuracy budget of the version, so numbers differ"
        return {"compared": f"best classes, and what is no number: {accepted}"}
    of = "the largest number of the row" if summary["compared"] == "numbers_by_row" else "the number"
    return {"tolerance": f"{summary['absolute_tolerance']:g} + {summary['relative_tolerance']:g} x {of}"}


def _compared(pair: Mapping[str, Any]) -> str:
    if not pair["rows"]:
        return "nothing to compare"
    gap = f"; largest difference {pair['largest_difference']:.3g}"
    return f"{pair['differ']} of {pair['rows']} rows differ{gap}" if pair["differ"] else f"{pair['rows']} rows agree{gap}"


def _lines(differing: list[Mapping[str, Any]]) -> Iterator[list[Cell]]:
    """Yield a line for each output whose answers are not all the same, and one for what is no output."""
    for row in differing:
        sides = [row[side] or {"outputs": {}, "error": "", "note": ""} for side in _SIDES]
        names = list(dict.fromkeys(name for side in sides for name in side["outputs"]))
        told = {name: {_text(side["outputs"][name]) for side in sides if name in side["outputs"]} for name in names}
        apart = [name for name in names if len(told[name]) > 1] or names
        hidden = [f"{name} (hidden by policy)" for name in row["hidden"]]
        for name in [*apart, *hidden] or [""]:
            values: list[Cell] = [_cell(side, name) for side in sides]
            yield [row["prediction"], row["row"], name, *values]


def _cell(side: Mapping[str, Any], name: str) -> str:
    if side["error"]:
        return str(side["error"])
    return _text(side["outputs"][name]) if name in side["outputs"] else str(side["note"])


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list):
        return f"[{', '.join(_text(one) for one in value[:_MOST_VALUES])}{', ...' if len(value) > _MOST_VALUES else ''}]"
    return "" if value is None else str(value)


def _leave(done: "Replay") -> None:
    """End the command with the code that says how it came out."""
    if done.agrees:
        return
    if done.failure is None:
        raise typer.Exit(Code.INVALID)
    raise typer.Exit(Code.NOT_FOUND if done.failure["code"] == "nothing_to_replay" else Code.OTHER)
