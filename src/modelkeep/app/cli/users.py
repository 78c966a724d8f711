"""Commands of administrators about people and services: adding, inviting, and letting them in no more."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.access import among
from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import User

_HELP = {"help_option_names": ["-h", "--help"]}
MAYBE = "It may be done already: `modelkeep users list` tells."
MAYBE_MADE = "There may be a token already that was not seen; another one is made like this one, and both end by themselves."
WHERE_IDS_ARE = "`modelkeep users list` shows the ids."

users = typer.Typer(
    no_args_is_help=True, help="List, add and invite people and services; let them in no more.", context_settings=_HELP
)
invitations = typer.Typer(no_args_is_help=True, help="List invitations, and take them back.", context_settings=_HELP)

UserId = Annotated[str, typer.Argument(metavar="ID", help="Id of the user, from `modelkeep users list`.", show_default=False)]
Email = Annotated[str | None, typer.Option("--email", metavar="ADDRESS", help="Their e-mail address.")]
Role = Annotated[
    str | None, typer.Option("--role", metavar="ROLE", help="Their role on the installation; without, they have none.")
]


@users.command("list", epilog="Example:  modelkeep users list -n 20")
def list_users(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="NUMBER", help="Most to list.")] = 100,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List people and services, newest first."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.users(limit=limit)
    rows: list[list[Cell]] = [[one.id, one.name, one.email, one.kind, one.status, when(one.created_at)] for one in found]
    columns = ("id", "name", "e-mail", "kind", "status", "added")

    def show() -> None:
        screen.table(columns, rows, empty="Nobody.")
        if len(found) == limit:
            screen.news(f"There may be more than {limit}: -n lists them.")

    screen.result([one.raw for one in found], show)


@users.command("show", epilog="Example:  modelkeep users show usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def show_user(user_id: UserId, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show a person or a service, with their roles."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client, refined("user_not_found", WHERE_IDS_ARE):
        found = client.user(user_id)
        grants = client.grants(to=f"user:{user_id}")
    roles = [f"{one.role} on {one.kind} {one.on}".rstrip() for one in grants]

    def show() -> None:
        screen.facts(
            {
                "name": found.name,
                "shown as": found.display_name,
                "e-mail": found.email,
                "id": found.id,
                "kind": found.kind,
                "status": found.status,
                "added": when(found.created_at),
                "roles": "; ".join(roles) or "none of their own",
            }
        )

    screen.result({**found.raw, "roles": [dict(one.raw) for one in grants]}, show)


@users.command("add", epilog="Example:  modelkeep users add bob --email bob@example.org --role developer")
def add_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What they are called here: a short name.", show_default=False)],
    *,
    email: Email = None,
    role: Role = None,
    display_name: Annotated[str, typer.Option(metavar="TEXT", help="The name that people read.")] = "",
    service: Annotated[
        bool, typer.Option("--service", metavar="", help="A service: it has no password, and keys of its own.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Add a person, who then gets a password from `users reset`, or a service, which gets keys."""
    _check_role(role)
    if service and email:
        raise WrongUse("A service has no e-mail address.", "Leave out --email, or --service.")
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE) as client:
        made = client.add_user(name, email=email, role=role, display_name=display_name, kind="service" if service else "person")
    then = f"modelkeep keys create NAME --service {made.id}" if service else f"modelkeep users reset {made.id}"
    screen.result(made.raw, lambda: screen.say(f"{made.name} is added ({made.id}). What lets them in:  {then}"))


@users.command("invite", epilog="Example:  modelkeep users invite --email bob@example.org --role developer")
def invite(
    *,
    email: Annotated[
        str | None, typer.Option("--email", metavar="ADDRESS", help="Good for this address alone; without, for any.")
    ] = None,
    role: Role = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, metavar="DAYS", help="How long it is good.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Make a token with which one person registers. It is shown this once."""
    _check_role(role)
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_MADE) as client:
        made = client.invite(email=email, role=role, expires_in_days=expires_in_days)
    whom = f"whoever registers as {made.email}" if made.email else "one person"
    then = f"modelkeep register NAME {made.email or 'EMAIL'}"
    screen.result(made.raw, lambda: _show_token(screen, made.token, made.expires_at, whom, then))


@users.command("reset", epilog="Example:  modelkeep users reset usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def reset_password(user_id: UserId, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Make a token with which this one person sets a password, within 24 hours. It is shown this once."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_MADE) as client, refined("user_not_found", WHERE_IDS_ARE):
        made = client.reset_password(user_id)
    screen.result(made.raw, lambda: _show_token(screen, made.token, made.expires_at, user_id, "modelkeep password --link"))


@users.command("rename", epilog="Example:  modelkeep users rename usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3 bob.m")
def rename_user(
    user_id: UserId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Their new short name.", show_default=False)] = "",
    *,
    display_name: Annotated[str | None, typer.Option(metavar="TEXT", help="The name that people read.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Change what a user is called. Sessions, keys and roles stay; one-time tokens that they made are good no more."""
    if not name and display_name is None:
        raise WrongUse("Nothing is to be changed.", "Give a NAME, or --display-name.")
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE) as client, refined("user_not_found", WHERE_IDS_ARE):
        found = client.rename_user(user_id, display_name, name=name or None)
    shown = f", shown as {found.display_name}" if found.display_name else ""
    screen.result(found.raw, lambda: screen.say(f"{found.id} is {found.name}{shown}."))


@users.command("disable", epilog="Example:  modelkeep users disable usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def disable_user(user_id: UserId, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Let a user in no more: sessions end, and keys open nothing, from this moment on."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE) as client, refined("user_not_found", WHERE_IDS_ARE):
        found = client.disable_user(user_id)
    _say_status(screen, found)


@users.command("enable", epilog="Example:  modelkeep users enable usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def enable_user(user_id: UserId, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Let a user in again. Sessions stay ended; keys are good again."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE) as client, refined("user_not_found", WHERE_IDS_ARE):
        found = client.enable_user(user_id)
    _say_status(screen, found)


@users.command("sign-out", epilog="Example:  modelkeep users sign-out usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def sign_out_user(user_id: UserId, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """End all sessions of a user, who may log in again; their keys stay good."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted="Their sessions may have ended already.") as client,
        refined("user_not_found", WHERE_IDS_ARE),
    ):
        client.sign_out_user(user_id)
    screen.result({"id": user_id, "signed_out": True}, lambda: screen.say(f"All sessions of {user_id} have ended."))


@invitations.command("list", epilog="Example:  modelkeep invitations list")
def list_invitations(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the invitations that may still be used, newest first; `modelkeep users invite` makes them."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.invitations()
    rows: list[list[Cell]] = [
        [one.id, one.email, one.role, when(one.created_at), one.created_by, when(one.expires_at)] for one in found
    ]
    columns = ("id", "for", "role", "made", "by", "expires")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="No invitations."))


@invitations.command("withdraw", epilog="Example:  modelkeep invitations withdraw lnk_01J9Z3K6T2Q8W4V5R7X0Y1B2C6")
def withdraw(
    invitation_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id, from `modelkeep invitations list`.", show_default=False)
    ],
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have an invitation be good no more."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted="It may be withdrawn already: `modelkeep invitations list` tells.") as client,
        refined("invitation_not_found", "`modelkeep invitations list` shows the ids."),
    ):
        client.withdraw_invitation(invitation_id)
    screen.result({"id": invitation_id, "withdrawn": True}, lambda: screen.say(f"{invitation_id} is good no more."))


def _check_role(role: str | None) -> None:
    from modelkeep.contracts.access import Role as Known

    if role is not None:
        among(role, [one.value for one in Known], "role")


def _say_status(screen: Screen, found: "User") -> None:
    screen.result(found.raw, lambda: screen.say(f"{found.name} ({found.id}) is {found.status}."))


def _show_token(screen: Screen, token: str | None, expires_at: str, whom: str, then: str) -> None:
    """The token alone on stdout, so that it can be caught in a variable; the words around it on stderr."""
    screen.news(f"A token for {whom}, good once, until {when(expires_at)}. Hand it over now: it is not shown again.")
    screen.say(token or "")
    screen.news(f"They use it with:  {then}")
