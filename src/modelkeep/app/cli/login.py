"""Commands of somebody who logs in: in and out, who one is, one's password and sessions."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.asking import Piped, ask, ask_secret
from modelkeep.app.cli.connect import LOGGED_OUT, connected, refined
from modelkeep.app.cli.kept import session_of
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Client, Me, Session

NOT_LOGGED_IN = "Nothing of a login is kept here for {url}."
MAYBE_IN = "There may be a session now that nobody has the tokens of: `modelkeep sessions list` shows it, after a login."
MAYBE_OUT = "The session may have ended already; `modelkeep logout` once more is sure."
MAYBE_CHANGED = "The password may be another already: log in with the new one."
MAYBE_ENDED = "The session may have ended already: `modelkeep sessions list` tells."

sessions = typer.Typer(
    no_args_is_help=True,
    help="List your sessions, and end one.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def login(
    name: Annotated[
        str, typer.Argument(metavar="EMAIL", help="Your e-mail address, or your name in a directory.", show_default=False)
    ] = "",
    *,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What knows you: a directory (LDAP), or an OpenID provider, in a browser. Without, a password of Modelkeep's.",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether the browser for an OpenID provider is on this machine.")
    ] = True,
    password_stdin: Piped = False,
    url: Url = DEFAULT_URL,
    key: Annotated[str, typer.Option(envvar="MODELKEEP_API_KEY", hidden=True)] = "",
    as_json: AsJson = False,
) -> None:
    """Log in, so that all commands act as you, without an API key. The password is asked for and never shown."""
    from modelkeep.app.cli.browser_login import log_in

    screen = Screen(as_json=as_json)
    with connected(url, "", interrupted=MAYBE_IN) as client:
        if provider is not None and _kind(client, provider) == "oidc":
            if name:
                raise WrongUse("An OpenID provider says who you are.", f"Leave out {name}.")
            made = log_in(client, provider, screen, browser=browser, piped=password_stdin)
        else:
            who = name or ask("E-mail address" if provider is None else "Name")
            made = client.login(who, ask_secret("Password", piped=password_stdin), provider=provider)
        me = client.me()
        address = client.url
    document = {"url": address, "user": dict(me.user.raw), "session": made.session, "ends_at": made.refresh_expires_at}

    def show() -> None:
        screen.say(f"You are {me.user.name} at {address}.")
        if key:
            screen.news("MODELKEEP_API_KEY is set, and counts more: unset it to act as this person.")
        screen.news(f"Unused, the login ends {when(made.refresh_expires_at)}; `modelkeep logout` ends it now.")

    screen.result(document, show)


def logout(
    *,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", metavar="", help="End all of your sessions, on any machine.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """End your session at the server, and forget it here."""
    from modelkeep.client import NotAuthenticated

    screen = Screen(as_json=as_json)
    with connected(url, "", interrupted=MAYBE_OUT) as client:
        if session_of(client.url).read() is None:
            raise NotAuthenticated(NOT_LOGGED_IN.format(url=client.url), code=LOGGED_OUT)
        client.logout(everywhere=everywhere)
        address = client.url
    what = "All your sessions have" if everywhere else "Your session has"
    screen.result({"url": address, "everywhere": everywhere}, lambda: screen.say(f"{what} ended at {address}."))


def whoami(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Say who you are to the server: by which key or session, with which roles, and until when."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        me = client.me()
        session = next((one for one in client.sessions() if one.this), None) if me.session else None
    ends = session.expires_at if session else me.key.expires_at if me.key else None
    screen.result({**me.raw, "ends_at": ends}, lambda: _show(screen, me, session, ends))


def password(
    *,
    link: Annotated[
        bool, typer.Option("--link", metavar="", help="Set one with the token that an administrator gave you.")
    ] = False,
    password_stdin: Piped = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Take another password. The present one, or a token, is asked for, then the new one; nothing of it is shown."""
    screen = Screen(as_json=as_json)
    old = ask_secret("Token" if link else "Present password", piped=password_stdin)
    new = ask_secret("New password", piped=password_stdin, twice=True)
    with connected(url, "", interrupted=MAYBE_CHANGED) as client:
        if link:
            client.set_password(old, new)
        else:
            client.change_password(old, new)
    ended = "all sessions that there were" if link else "your other sessions"
    screen.result({"changed": True}, lambda: screen.say(f"The password is changed; {ended} have ended."))


def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you are called here: a short name.", show_default=False)],
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Your e-mail address.", show_default=False)],
    *,
    uninvited: Annotated[
        bool, typer.Option("--uninvited", metavar="", help="Without a token, where the installation is open to anyone.")
    ] = False,
    password_stdin: Piped = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Register with an invitation. Its token and a password are asked for, and not shown."""
    screen = Screen(as_json=as_json)
    token = None if uninvited else ask_secret("Token of the invitation", piped=password_stdin)
    chosen = ask_secret("New password", piped=password_stdin, twice=True)
    with connected(url, "", interrupted="You may be registered already: `modelkeep login` tells.") as client:
        made = client.register(name, email, chosen, token=token)
    screen.result(made.raw, lambda: screen.say(f"{made.name} is registered ({made.id}). `modelkeep login {email}` comes in."))


@sessions.command("list", epilog="Example:  modelkeep sessions list")
def list_sessions(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List your sessions that go on, newest first."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.sessions()
    rows: list[list[Cell]] = [
        [
            one.id,
            when(one.created_at),
            when(one.used_at),
            when(one.expires_at),
            one.address,
            one.program,
            "yes" if one.this else "",
        ]
        for one in found
    ]
    columns = ("id", "began", "used", "ends", "from", "program", "this")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="No sessions."))


@sessions.command("end", epilog="Example:  modelkeep sessions end ses_01J9Z3K6T2Q8W4V5R7X0Y1B2C5")
def end_session(
    session_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the session, from `modelkeep sessions list`.", show_default=False)
    ],
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """End one of your sessions; its tokens open nothing from then on."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted=MAYBE_ENDED) as client,
        refined("session_not_found", "`modelkeep sessions list` shows the ids."),
    ):
        client.end_session(session_id)
    screen.result({"id": session_id, "ended": True}, lambda: screen.say(f"{session_id} has ended."))


def _kind(client: "Client", provider: str) -> str:
    """Return how one logs in by the provider of this name: with a password ("ldap"), or in a browser ("oidc")."""
    from modelkeep.client import NotFound

    known = {one.name: one.kind for one in client.login_providers()}
    if provider not in known:
        error = NotFound("There is no identity provider of this name here.", code="identity_provider_not_found")
        error.hint = f"There are: {', '.join(known)}." if known else "There is none: leave out --provider."
        raise error
    return known[provider]


def _show(screen: Screen, me: "Me", session: "Session | None", ends: str | None) -> None:
    by = f"session {me.session}" if me.session else f"key {me.key.name} ({me.key.id})" if me.key else ""
    roles = [f"{one['role']} on {one['kind']} {one['on']}".rstrip() + _through(one["through"]) for one in me.roles]
    screen.facts(
        {
            "name": me.user.name,
            "shown as": me.user.display_name,
            "e-mail": me.user.email,
            "id": me.user.id,
            "kind": me.user.kind,
            "by": by,
            "since": when(session.created_at) if session else "",
            "scopes": ", ".join(me.scopes or ()),
            "roles": "; ".join(roles) or "none",
            "ends": when(ends) or "never",
        }
    )


def _through(group: str) -> str:
    return f" (through {group})" if group else ""
