"""Commands about the files of models at rest: the master keys that seal them, and what nothing uses any more."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from modelkeep.app.cli.installed import need_server
from modelkeep.app.cli.options import AsJson
from modelkeep.app.cli.screen import Screen, file_size
from modelkeep.app.cli.server import Config, Data

storage = typer.Typer(
    no_args_is_help=True,
    help="Look after model files at rest: the keys that seal them, and what is unused.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The key's name (default: today's date and the time)")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")]
Unknown = Annotated[
    bool, typer.Option("--unknown", help="Also what this installation has never stored; in a bucket it may be another's.")
]


@storage.command("new-key", epilog="Example:  modelkeep storage new-key >> /etc/modelkeep/master-keys")
def new_key(*, name: Name = "") -> None:
    """Print a line for the file of master keys. Whoever has it can open what it seals; without it nobody can."""
    need_server("storage")
    from modelkeep.infra.envelopes import new_master_key

    typer.echo(new_master_key(name or f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}"))


@storage.command("rotate-key", epilog="Example:  modelkeep storage rotate-key --data /srv/modelkeep")
def rotate_key(*, data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Seal the keys of all files with the newest master key, beside a running server or without it. It may be repeated.

    No file is written anew. The older master keys open nothing any more afterwards, and may go.
    """
    need_server("storage")
    from modelkeep.app import settings, storage_work

    newest, done = asyncio.run(storage_work.rotate(settings.load(config, {} if data is None else {"data": data})))
    screen = Screen(as_json=as_json)
    document = {"master_key": newest, "rewritten": done.rewritten, "already": done.already}
    screen.result(
        document,
        lambda: screen.say(
            f"{done.rewritten} files are sealed with {newest} now; {done.already} were before. Older keys may be removed."
        ),
    )


@storage.command("collect", epilog="Example:  modelkeep storage collect --dry-run")
def collect(
    *, dry_run: DryRun = False, unknown: Unknown = False, data: Data = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Remove the files that nothing uses any more, as the worker does every hour, and say what is kept.

    A file is unused when no version names it, or rejected versions alone, for storage.keep_unused_days.
    """
    need_server("storage")
    from modelkeep.app import settings, storage_work

    loaded = settings.load(config, {} if data is None else {"data": data})
    found = asyncio.run(storage_work.collect(loaded, dry_run=dry_run, unknown=unknown))
    screen = Screen(as_json=as_json)
    files = [{"digest": one.digest, "bytes": one.size, "why": one.why} for one in found.unused]
    document = {
        "kept": dict(found.kept),
        "unused": files,
        "bytes": found.size,
        "removed": not dry_run,
        "failed": dict(found.failed),
    }

    def show() -> None:
        screen.table(["kind", "bytes"], list(found.kept.items()))
        screen.table(["unused", "bytes", "why"], [(one.digest, one.size, one.why) for one in found.unused])
        done = "would be removed" if dry_run else "were removed"
        screen.say(f"{len(found.unused)} files of {file_size(found.size)} {done}.")
        if found.failed:
            screen.table(["not removed", "why"], list(found.failed.items()))

    screen.result(document, show)
