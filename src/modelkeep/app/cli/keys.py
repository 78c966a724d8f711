"""Commands about who may come in: the first administrator, API keys, and the keys that sign logins."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.asking import Piped, ask_secret
from modelkeep.app.cli.client_certificates import (
    CertificateFiles,
    CertificateNames,
    StandsFor,
    certificate_names,
    shown,
)
from modelkeep.app.cli.connect import connected, did_you_mean, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Key

MAYBE_SET_UP = "If the token is refused now, it was used: start anew with an empty data directory."
MAYBE_MADE = "The key may have been made: `modelkeep keys list` tells, and a key whose secret was not seen is best revoked."
MAYBE_REVOKED = "The key may be revoked already: `modelkeep keys list` tells."
MAYBE_ROTATED = (
    "The key may have a secret that was not seen: then `modelkeep keys list --json` shows until when the present one is good, "
    "and another key is best made in its place before that."
)
MAYBE_PUBLISHED = "A new signing key may be published already: `modelkeep audit list --action signing_key.rotate` tells."
MAYBE_BOUND = "The key may go with them already: `modelkeep keys list` tells."
WHERE_IDS_ARE = "`modelkeep keys list` shows the ids."
KeyId = Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `modelkeep keys list`.", show_default=False)]
WHERE_IT_IS = (
    "Until somebody is set up, `modelkeep serve` prints one when it starts; its data directory has it in `setup-token`."
)

keys = typer.Typer(
    no_args_is_help=True,
    help="List, create, rotate and revoke API keys.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def setup(
    *,
    token: Annotated[str, typer.Option("--token", metavar="TOKEN", help="The one-time token that `modelkeep serve` printed.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the administrator.")] = "admin",
    email: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="With it they can log in, too; their password is asked for.")
    ] = None,
    password_stdin: Piped = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make the first administrator, once, and get an API key."""
    screen = Screen(as_json=as_json)
    password = None if email is None else ask_secret("New password", piped=password_stdin, twice=True)
    with connected(url, "", interrupted=MAYBE_SET_UP) as client, refined("setup_token_invalid", WHERE_IT_IS):
        made = client.setup(token, name=name, email=email, password=password)
    screen.result(made.raw, lambda: _show_secret(screen, made))


@keys.command("list")
def list_keys(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the API keys; their secrets are not known to the server either."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.keys()
    rows: list[list[Cell]] = [
        [
            *(one.id, one.name, ", ".join(one.scopes), when(one.created_at), when(one.expires_at), one.rate),
            shown(one.certificate),
        ]
        for one in found
    ]
    columns = ("id", "name", "scopes", "created", "expires", "rate", "certificates")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="No keys."))


@keys.command("create", epilog="Example:  modelkeep keys create nightly-batch --scope predict --expires-in-days 90")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.", show_default=False)],
    *,
    scope: Annotated[
        list[str],
        typer.Option(
            metavar="SCOPE",
            help="predict, models:read, models:write, models:code, deployments:write, predictions:read, audit:read, "
            "metrics:read or admin; several times for several.",
        ),
    ] = ["predict"],  # noqa: B006 - typer reads the default and never changes it
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, metavar="DAYS", help="End of its life; without, it has none.")
    ] = None,
    rate: Annotated[
        str,
        typer.Option(metavar="RATE", help="user (all of one's keys share it), 100/min, a class, or unlimited."),
    ] = "user",
    concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most predictions under way at once; without, any number.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Good for this model alone; several times for several.")
    ] = None,
    network: Annotated[
        list[str],
        typer.Option(metavar="CIDR", help="Network from which alone the key is good; several times for several."),
    ] = [],  # noqa: B006 - as above
    certificate: CertificateFiles = [],  # noqa: B006 - as above
    certificate_name: CertificateNames = [],  # noqa: B006 - as above
    stands_for: StandsFor = False,
    service: Annotated[
        str | None, typer.Option(metavar="ID", help="For this service, from `modelkeep users list`; without, your own.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Make an API key. Its secret is shown this once."""
    from modelkeep.contracts.access import Scope

    _check_scopes(scope, [one.value for one in Scope])
    if not name.strip():
        raise WrongUse("The key needs a name.", "Say what it is for: `modelkeep keys create nightly-batch`.")
    names = certificate_names(certificate, certificate_name, needed=stands_for)
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_MADE) as client:
        made = client.create_key(
            name,
            scope,
            expires_in_days=expires_in_days,
            rate=rate,
            concurrency=concurrency,
            models=model,
            networks=network,
            certificates=names,
            stands_for=stands_for,
            service=service,
        )
    screen.result(made.raw, lambda: _show_secret(screen, made))


@keys.command("revoke")
def revoke_key(
    key_id: KeyId,
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Make an API key worthless at once."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_REVOKED) as client, refined("key_not_found", WHERE_IDS_ARE):
        client.revoke_key(key_id)
    screen.result({"id": key_id, "revoked": True}, lambda: screen.say(f"{key_id} is revoked."))


@keys.command("rotate", epilog="Example:  modelkeep keys rotate key_01J... --keep-days 14")
def rotate_key(
    key_id: KeyId,
    *,
    keep_days: Annotated[int, typer.Option(min=0, max=90, metavar="DAYS", help="How long the present secret stays good.")] = 7,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Give an API key another secret, shown this once. The present one opens the same for some days."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_ROTATED) as client, refined("key_not_found", WHERE_IDS_ARE):
        made = client.rotate_key(key_id, keep_days=keep_days)

    def show() -> None:
        _show_secret(screen, made)
        if made.previous_until:
            screen.news(f"The secret from before is good until {when(made.previous_until)}.")

    screen.result(made.raw, show)


@keys.command("bind", epilog="Example:  modelkeep keys bind key_01J... --certificate-name spiffe://example.org/scoring")
def bind_key(
    key_id: KeyId,
    *,
    certificate: CertificateFiles = [],  # noqa: B006 - typer reads the default and never changes it
    certificate_name: CertificateNames = [],  # noqa: B006 - as above
    stands_for: StandsFor = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have an API key go with these client certificates alone, in place of those that it goes with."""
    names = certificate_names(certificate, certificate_name, needed=True)
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_BOUND) as client, refined("key_not_found", WHERE_IDS_ARE):
        bound = client.bind_key(key_id, names, stands_for=stands_for)
    screen.result(bound.raw, lambda: screen.say(f"{key_id} goes with {shown(bound.certificate)}."))


@keys.command("end-previous")
def end_previous(key_id: KeyId, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """End the secret that an API key had before it was rotated."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_REVOKED) as client, refined("key_not_found", WHERE_IDS_ARE):
        client.end_previous_secret(key_id)
    screen.result({"id": key_id, "previous": "ended"}, lambda: screen.say(f"{key_id} has one secret."))


@keys.command("rotate-signing", epilog="Example:  modelkeep keys rotate-signing")
def rotate_signing(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Have logins signed with a new key; nobody is logged out by that."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_PUBLISHED) as client:
        signs_from = client.rotate_signing_key()
    screen.result(
        {"signs_from": signs_from},
        lambda: screen.say(
            f"A new signing key is published. It signs from {when(signs_from)} on; what the old one signed stays good."
        ),
    )


def _check_scopes(scopes: list[str], known: list[str]) -> None:
    for scope in scopes:
        if scope not in known:
            near = did_you_mean(scope, known)
            raise WrongUse(
                f"There is no scope {scope}.", f"{near} There are {', '.join(known)}; --scope once for each.".strip()
            )


def _show_secret(screen: Screen, made: "Key") -> None:
    """The secret alone on stdout, so that it can be caught in a variable; the words around it on stderr."""
    screen.news(f"API key {made.name!r} ({', '.join(made.scopes)}). Keep it now: it is not shown again.")
    screen.say(made.secret or "")
    screen.news("Use it:  export MODELKEEP_API_KEY=...  or  --key ...")
