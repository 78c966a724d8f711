"""Commands about the installation's own secret, the site key: replacing it without anybody being logged out."""

import asyncio
from typing import TYPE_CHECKING

import typer

from modelkeep.app.cli.installed import need_server
from modelkeep.app.cli.options import AsJson
from modelkeep.app.cli.screen import Screen
from modelkeep.app.cli.server import Config, Data

if TYPE_CHECKING:
    from modelkeep.app.site_key_work import Carried

secrets = typer.Typer(
    no_args_is_help=True,
    help="Replace the installation's own secret, the site key.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@secrets.command("new-site-key", epilog="Example:  modelkeep secrets new-site-key --data /srv/modelkeep")
def new_site_key(*, data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Have a new site key wait beside the present one. Nothing uses it yet."""
    need_server("secrets")
    from modelkeep.app import settings, site_key_work

    site_key_work.add(settings.load(config, {} if data is None else {"data": data}))
    screen = Screen(as_json=as_json)
    screen.result(
        {"waiting": 1},
        lambda: screen.say(
            "A new site key waits. Copy the file to all machines, restart Modelkeep everywhere, then `modelkeep secrets "
            "rotate-site-key`."
        ),
    )


@secrets.command("rotate-site-key", epilog="Example:  modelkeep secrets rotate-site-key --data /srv/modelkeep")
def rotate_site_key(*, data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Seal with the site key that waited, and carry over what the one before has sealed. It may be repeated."""
    need_server("secrets")
    from modelkeep.app import settings, site_key_work

    carried = asyncio.run(site_key_work.rotate(settings.load(config, {} if data is None else {"data": data})))
    screen = Screen(as_json=as_json)

    def show() -> None:
        keys = carried.signing_keys
        screen.say(f"{keys.rewritten} signing keys are sealed with the new site key now; {keys.already} were before.")
        screen.say(
            f"{carried.trail.checkpoints} checkpoints of the audit trail are signed with its new key: pin that from now on."
        )
        if keys.lost:
            screen.say(f"{keys.lost} open with no key that is here: `modelkeep keys rotate-signing` makes another.")
        screen.say(
            f"The key from before still opens {carried.answers} answers to repeated writes, for a day at most. Copy the file "
            "to all machines and restart Modelkeep everywhere; a day later, `modelkeep secrets forget-site-key`."
        )

    screen.result(_document(carried), show)


@secrets.command("forget-site-key", epilog="Example:  modelkeep secrets forget-site-key --data /srv/modelkeep")
def forget_site_key(*, data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Forget the site key from before; refused while something is still sealed with it."""
    need_server("secrets")
    from modelkeep.app import settings, site_key_work

    carried = asyncio.run(site_key_work.forget(settings.load(config, {} if data is None else {"data": data})))
    screen = Screen(as_json=as_json)
    screen.result(_document(carried), lambda: screen.say("There is one site key."))


def _document(carried: "Carried") -> dict[str, int]:
    keys = carried.signing_keys
    return {
        "rewritten": keys.rewritten,
        "already": keys.already,
        "lost": keys.lost,
        "checkpoints": carried.trail.checkpoints,
        "subjects": carried.trail.subjects,
        "answers": carried.answers,
    }
