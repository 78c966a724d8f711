"""Commands about the whole: what answers with what, as one file that can be kept in a repository, compared and applied."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Screen

if TYPE_CHECKING:
    from modelkeep.client import Change

APPLY = "modelkeep apply -f keep.yaml"
EXPORT = "modelkeep export -o keep.yaml"
_STDIN = "-"
_SHOWN = 60


def export(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there, not to stdout.", show_default=False)
    ] = None,
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Write down which versions answer where and how, as a file that `modelkeep apply` takes.

    Applied where it came from it changes nothing.
    """
    with connected(url, key) as client:
        document = client.export()
    from modelkeep.app.cli import yaml_text

    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n" if as_json else yaml_text.dump(document)
    if out is None:
        sys.stdout.write(text)
        return
    out.write_text(text)
    Screen(as_json=as_json).news(f"Written to {out}: {len(document['deployments'])} deployments.")


def apply(
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="The file, YAML or JSON; - for stdin.", show_default=False)
    ],
    *,
    plan: Annotated[bool, typer.Option("--plan", metavar="", help="Only show what would be done.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", metavar="", help="Delete aliases and deployments that it does not name, too.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have deployments and aliases be as a file says; with --plan, show what that would change, and change nothing.

    Of what the file names it is the whole truth: settings that are not in it go back to their defaults. What it does not name
    stays as it is. A change that somebody else has made since the plan stops it: apply once more then.
    """
    document = read(file)
    screen = Screen(as_json=as_json)
    done: list[Change] = []

    def standing() -> str:
        return f"{len(done)} changes were made, and the one after them may be: `modelkeep apply` once more does the rest."

    with (
        connected(url, key, interrupted=standing) as client,
        refined("stale", "Somebody changed it meanwhile: look with --plan, and apply once more."),
    ):
        changes = client.compare(document, prune=prune)
        if not as_json:
            _show(screen, changes)
        for change in () if plan else changes:
            client.apply(change)
            done.append(change)
            screen.news(f"done: {_named(change)}")
    if plan and changes and not as_json:
        screen.news("Nothing was changed; without --plan it is.")
    screen.result({"changes": [one.raw for one in changes], "applied": len(done)}, lambda: None)


def read(file: str) -> object:
    """Return the document in a file; raises `WrongUse` for what is none."""
    try:
        text = sys.stdin.read() if file == _STDIN else Path(file).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise WrongUse(f"There is no file {file}.", "`modelkeep export -o keep.yaml` writes one.") from error
    except UnicodeDecodeError as error:
        raise WrongUse(f"{file} is no text.", "YAML or JSON in UTF-8 goes here.") from error
    from modelkeep.app.cli import yaml_text

    try:
        return yaml_text.load(text)
    except ValueError as error:
        raise WrongUse(f"{file} is neither YAML nor JSON: {error}.") from error


def _show(screen: Screen, changes: Sequence["Change"]) -> None:
    if not changes:
        screen.say("Nothing to change: everything is as the file says.")
    for change in changes:
        screen.say(_named(change))
        for path, before, after in change.differences:
            screen.say(f"  {path}: {_short(before)} -> {_short(after)}")


def _named(change: "Change") -> str:
    return f"{change.action} {change.kind} {change.name}"


def _short(value: object) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
