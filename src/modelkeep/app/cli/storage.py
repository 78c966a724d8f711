"""Commands about the files of models at rest: the master keys that seal them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from modelkeep.app.cli.installed import need_server
from modelkeep.app.cli.options import AsJson
from modelkeep.app.cli.screen import Screen
from modelkeep.app.cli.server import Config, Data
from modelkeep.contracts.errors import Invalid

storage = typer.Typer(
    no_args_is_help=True,
    help="Look after the keys that seal model files at rest.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The key's name (default: today's date and the time)")]


class NotSealed(Invalid):
    """No master key is set here: name their file with storage.master_keys_file."""

    code = "storage_not_sealed"


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
    from modelkeep.app import bootstrap, settings
    from modelkeep.app.places import Places
    from modelkeep.infra.envelopes import MasterKeys
    from modelkeep.infra.sealed_store import SealedStore

    loaded = settings.load(config, {} if data is None else {"data": data})
    if not loaded.storage.master_keys_file:
        raise NotSealed
    keys = MasterKeys.read(Path(loaded.storage.master_keys_file))
    store = SealedStore(bootstrap.noting_store(loaded.storage, Places(loaded.data)), keys)
    done = asyncio.run(store.rotate())
    screen = Screen(as_json=as_json)
    document = {"master_key": keys.newest, "rewritten": done.rewritten, "already": done.already}
    screen.result(
        document,
        lambda: screen.say(
            f"{done.rewritten} files are sealed with {keys.newest} now; {done.already} were before. Older keys may be removed."
        ),
    )
