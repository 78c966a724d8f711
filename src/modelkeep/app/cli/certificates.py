"""Commands that make certificates for TLS, where there is no authority to ask for them."""

import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from modelkeep.app.cli.installed import need_server
from modelkeep.app.cli.options import AsJson
from modelkeep.app.cli.screen import Screen
from modelkeep.contracts.errors import Invalid

certificates = typer.Typer(
    help="Make certificates for TLS: an authority of your own, and what it signs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_ALWAYS = ("localhost", "127.0.0.1", "::1")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Folder = Annotated[Path, typer.Option(metavar="DIR", help="Folder that keeps them, and the authority.")]
Days = Annotated[int, typer.Option(min=1, max=3650, metavar="DAYS", help="Days until it expires.")]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace one that is there. The authority stays.")]
_FOLDER = Path(".modelkeep/tls")
_DAYS = 397  # the longest that browsers and Apple's systems take


@certificates.command(epilog="Example:  modelkeep certificates make --host models.example.org --host 10.0.0.5")
def make(
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name or address that clients call it by; may be repeated. This machine is always."),
    ] = None,
    folder: Folder = _FOLDER,
    days: Days = _DAYS,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make the server's certificate, and the authority that signs it where there is none yet."""
    authority = _authority(folder)
    pair = authority.sign_server((*(host or [socket.gethostname()]), *_ALWAYS), days=days, force=force)
    _show(as_json, authority.file, pair, "[server]\ntls_certificate = {0}\ntls_key = {1}")


@certificates.command(epilog="Example:  modelkeep certificates client nightly-scoring")
def client(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the client, for the certificate and its files.")],
    *,
    folder: Folder = _FOLDER,
    days: Days = _DAYS,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a client's certificate, for servers that ask for one (server.tls_client)."""
    if not _CLIENT.fullmatch(name):
        raise Invalid("A client's name has letters, digits, dots, dashes and underscores, 63 of them at most.")
    authority = _authority(folder)
    pair = authority.sign_client(name, days=days, force=force)
    _show(as_json, authority.file, pair, "MODELKEEP_CLIENT_CERTIFICATE={0}\nMODELKEEP_CLIENT_KEY={1}")


def _authority(folder: Path) -> Any:  # noqa: ANN401 - what it is comes with the server, which may not be installed
    need_server("certificates")
    from modelkeep.infra.certificates import Authority

    return Authority(folder.absolute(), datetime.now(UTC))


def _show(as_json: bool, authority: Path, pair: tuple[Path, Path], use: str) -> None:  # noqa: FBT001 - as the option is
    screen = Screen(as_json=as_json)

    def show() -> None:
        screen.say(f"Made {pair[0]} and {pair[1]}. Clients trust {authority}.")
        quote = '"' if use.startswith("[") else ""
        screen.say(use.format(*(f"{quote}{file}{quote}" for file in pair)))

    screen.result({"authority": str(authority), "certificate": str(pair[0]), "key": str(pair[1])}, show)
