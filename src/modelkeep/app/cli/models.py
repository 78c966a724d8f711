"""Commands about models, their versions, and which of them answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.completion import archived_names, model_names, version_numbers
from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, ModelName, Url
from modelkeep.app.cli.push import facts_of
from modelkeep.app.cli.screen import Cell, Screen, file_size, when

if TYPE_CHECKING:
    from modelkeep.client import Model, Version

Number = Annotated[
    int,
    typer.Argument(metavar="VERSION", min=1, help="Number of the version.", show_default=False, autocompletion=version_numbers),
]
MAYBE = "It may be done already: `modelkeep {}` tells."
MaybeNumber = Annotated[
    int | None,
    typer.Argument(
        metavar="[VERSION]", min=1, help="Number of the version.", show_default=False, autocompletion=version_numbers
    ),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the change.", show_default=False)]
Trashed = Annotated[bool, typer.Option("--trashed", metavar="", help="Show those in the trash instead.")]
MaybeName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Show this model alone.", show_default=False, autocompletion=model_names),
]
ArchivedName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the model.", show_default=False, autocompletion=archived_names)
]


def models(
    name: MaybeName = None,
    *,
    archived: Annotated[bool, typer.Option("--archived", metavar="", help="Show those that were put away.")] = False,
    trashed: Trashed = False,
    search: Annotated[str, typer.Option("--search", metavar="TEXT", help="Show those whose names have this in them.")] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List the models, or show one."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name or "") as client:
        if name is not None:
            model = client.model(name)
            screen.result(model.raw, lambda: _show_model(screen, model))
            return
        found = client.models(archived=archived, trashed=trashed, search=search)
    rows: list[list[Cell]] = [
        [one.name, one.serving_version, one.latest_version, when(one.created_at), one.description] for one in found
    ]
    empty = "No model is called so." if search else "No models yet. `modelkeep push FILE --name NAME` makes one."
    columns = ("name", "serving", "latest", "created", "description")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty=empty))


def versions(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    trashed: Trashed = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List the versions of a model, or show one."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        serving = client.model(name).serving_version
        if number is not None:
            version = client.version(name, number)
            screen.result(version.raw, lambda: _show_version(screen, version, serving))
            return
        found = client.versions(name, trashed=trashed)
    rows: list[list[Cell]] = [
        [one.number, _state(one, serving), one.format, file_size(one.size), when(one.created_at), _about(one)] for one in found
    ]
    empty = f"{name} has no versions yet. `modelkeep push FILE --name {name}` uploads one."
    columns = ("version", "state", "format", "size", "created", "description")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty=empty))


def promote(name: ModelName, number: Number, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Let a version answer the model's predictions. No request is lost."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted=MAYBE.format(f"models {name}")) as client,
        refined("version_not_ready", f"`modelkeep versions {name} {number}` says more."),
    ):
        deployment = client.promote(name, number)
        with screen.waiting("going into service ..."):
            client.wait_serving(name, number)
    before = deployment.previous_version
    back = (
        f" Version {before} did before: `modelkeep promote {name} {before}` goes back." if before and before != number else ""
    )
    screen.result(deployment.raw, lambda: screen.say(f"{name} version {number} answers now.{back}"))


def archive(
    name: ModelName,
    number: MaybeNumber = None,
    *,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Put a model away, or one of its versions. Nothing is lost; a model can be restored."""
    screen = Screen(as_json=as_json)
    look = f"models {name}" if number is None else f"versions {name} {number}"
    with connected(url, key, model=name, interrupted=MAYBE.format(look)) as client:
        done = client.archive(name, version=number, reason=reason)
    what = f"{name} version {number}" if number else name
    back = "" if number else f" `modelkeep restore {name}` takes it back."
    screen.result(done.raw, lambda: screen.say(f"{what} is archived.{back}"))


def restore(
    name: ArchivedName,
    number: MaybeNumber = None,
    *,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Take a model, or one of its versions, back from the archive or the trash."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name, interrupted=MAYBE.format(f"models {name}")) as client:
        done = client.restore(name, version=number, reason=reason)
    screen.result(done.raw, lambda: screen.say(f"{name}{f' version {number}' if number else ''} is back."))


def describe(
    name: ModelName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What there is to know.", show_default=False)],
    *,
    number: Annotated[int | None, typer.Option("--version", min=1, metavar="N", help="Describe this version.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say what a model, or one of its versions, is."""
    screen = Screen(as_json=as_json)
    look = f"models {name}" if number is None else f"versions {name} {number}"
    with connected(url, key, model=name, interrupted=MAYBE.format(look)) as client:
        done = client.describe(name, text, version=number)
    screen.result(done.raw, lambda: screen.say(f"{name}{f' version {number}' if number else ''}: {done.description}"))


def download(
    name: ModelName,
    number: Number,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File to write, or directory to write into.")
    ] = Path(),
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Get the file of a version back, byte for byte."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted="No file was written.") as client,
        screen.transfer(f"Downloading {name} version {number}") as progress,
    ):
        path = client.download(name, number, output, on_progress=progress)
    size = path.stat().st_size
    screen.result({"path": str(path), "size": size}, lambda: screen.say(f"{path} ({file_size(size)})"))


def _show_model(screen: Screen, model: "Model") -> None:
    screen.facts(
        {
            "name": model.name,
            "description": model.description,
            "serving": f"version {model.serving_version}" if model.serving_version else "nothing yet",
            "aliases": ", ".join(f"{alias} = version {number}" for alias, number in sorted(model.aliases.items())),
            "latest": f"version {model.latest_version}" if model.latest_version else "no versions yet",
            "created": when(model.created_at),
            "life": model.life,
            "archived": when(model.archived_at),
            "in the trash": when(model.trashed_at),
            **_notes(model),
        }
    )


def _show_version(screen: Screen, version: "Version", serving: int | None) -> None:
    refused = version.rejection
    screen.facts(
        {
            "version": f"{version.model} {version.number}",
            "state": _state(version, serving),
            "reason": refused.code if refused else None,
            "detail": refused.detail if refused else None,
            "advice": refused.advice if refused else None,
            "description": version.description,
            "file": f"{version.filename} ({version.format}, {file_size(version.size)})",
            "digest": version.digest,
            **facts_of(version),
            "created": when(version.created_at),
            "archived": when(version.archived_at),
            "in the trash": when(version.trashed_at),
            **_notes(version),
            "parent": version.parent_id,
        }
    )
    for warning in (version.report or {}).get("warnings", ()):
        screen.say(f"Note: {warning}")


def _notes(one: "Model | Version") -> dict[str, str | None]:
    """Return what is said of a deprecation, and of a legal hold."""
    said, hold = one.deprecation or {}, one.hold or {}
    parts = [when(said.get("since")), f"until {when(said['sunset'])}" if said.get("sunset") else "", said.get("note", "")]
    parts.append(f"take version {said['successor']}" if said.get("successor") else "")
    return {"deprecated": ", ".join(part for part in parts if part) or None, "on legal hold": hold.get("reason")}


def _state(version: "Version", serving: int | None) -> str:
    if version.trashed_at:
        return version.life
    if version.archived_at:
        return "archived"
    if version.life == "deprecated":
        return f"{'serving' if version.number == serving else version.state}, deprecated"
    return "serving" if version.number == serving else version.state


def _about(version: "Version") -> str:
    return version.rejection.code if version.rejection else version.description
