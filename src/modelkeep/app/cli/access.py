"""Commands about who may do what: roles, workspaces, groups, and why somebody may or may not."""

from typing import Annotated

import typer

from modelkeep.app.cli.connect import connected, did_you_mean, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, ModelName, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

_HELP = {"help_option_names": ["-h", "--help"]}
_WHO = "user:ID, group:NAME or key:ID"
_WHERE = "installation, workspace:NAME or model:NAME"
_REASONS = {
    "granted": "a role gives it",
    "owner": "they own the model",
    "inactive": "they may not do anything",
    "scope": "the key lacks the scope",
    "other_model": "the key is bound to other models",
    "no_grant": "no role gives it",
}
MAYBE = "It may be done already: `modelkeep access list` tells."

access = typer.Typer(
    no_args_is_help=True,
    help="Give and take roles, and see why somebody may do something.",
    epilog="Example:  modelkeep access give predictor --to group:analysts --on model:churn",
    context_settings=_HELP,
)
workspaces = typer.Typer(no_args_is_help=True, help="List, create and remove workspaces.", context_settings=_HELP)
groups = typer.Typer(no_args_is_help=True, help="List, create and remove groups, and who is in them.", context_settings=_HELP)

To = Annotated[str, typer.Option("--to", metavar="WHO", help=f"Who gets it: {_WHO}.", show_default=False)]
On = Annotated[str, typer.Option("--on", metavar="WHERE", help=f"Where: {_WHERE}.")]
Workspace = Annotated[str, typer.Argument(metavar="WORKSPACE", help="Name of the workspace.", show_default=False)]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.", show_default=False)]
Person = Annotated[str, typer.Argument(metavar="USER_ID", help="Id of the person.", show_default=False)]


@access.command("give", epilog="Example:  modelkeep access give developer --to user:usr_01J9... --on workspace:fraud")
def give(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="The role.", show_default=False)],
    *,
    to: To,
    on: On = "installation",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Give a role: viewer, predictor, developer, trusted, releaser, auditor or admin."""
    from modelkeep.contracts.access import Role

    among(role, [one.value for one in Role], "role")
    _check(to, ("user", "group", "key"), "--to", _WHO)
    _check(on, ("installation", "workspace", "model"), "--on", _WHERE)
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE) as client:
        found = client.give_role(role, to=to, on=on)
    screen.result(found.raw, lambda: screen.say(f"{to} is {role} on {on} ({found.id})."))


@access.command("take", epilog="Example:  modelkeep access take grt_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def take(
    grant_id: Annotated[str, typer.Argument(metavar="ID", help="Id, from `modelkeep access list`.", show_default=False)],
    *,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Take a role back; it counts for nothing from then on."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted=MAYBE) as client,
        refined("grant_not_found", "`modelkeep access list` shows the ids."),
    ):
        client.take_role(grant_id)
    screen.result({"id": grant_id, "taken": True}, lambda: screen.say(f"{grant_id} is taken back."))


@access.command("list", epilog="Example:  modelkeep access list --on workspace:fraud")
def list_grants(
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="WHO", help=f"Only of {_WHO}.")] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="WHERE", help=f"Only on {_WHERE}.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List the roles that were given."""
    if to is not None:
        _check(to, ("user", "group", "key"), "--to", _WHO)
    if on is not None:
        _check(on, ("installation", "workspace", "model"), "--on", _WHERE)
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.grants(to=to, on=on)
    rows: list[list[Cell]] = [
        [one.id, f"{one.subject_kind}:{one.subject}", one.role, f"{one.kind}:{one.on}".rstrip(":"), when(one.created_at)]
        for one in found
    ]
    columns = ("id", "who", "role", "on", "given")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="No roles were given here."))


@access.command("explain", epilog="Example:  modelkeep access explain predict --on model:churn --who key:key_01J9...")
def explain(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="What would be done, such as predict.", show_default=False)],
    *,
    on: On = "installation",
    who: Annotated[str | None, typer.Option("--who", metavar="WHO", help=f"Who would: {_WHO}; without, you.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say whether somebody may do something, and why."""
    from modelkeep.contracts.access import Scope

    among(scope, [one.value for one in Scope], "scope")
    _check(on, ("installation", "workspace", "model"), "--on", _WHERE)
    if who is not None:
        _check(who, ("user", "group", "key"), "--who", _WHO)
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.explain(scope, on=on, who=who)
    by = f": {found.role} on {found.place}{f', through {found.through}' if found.through else ''}" if found.role else ""
    screen.result(
        found.raw,
        lambda: screen.say(f"{'Yes' if found.allowed else 'No'}: {_REASONS.get(found.reason, found.reason)}{by}."),
    )


@workspaces.command("list")
def list_workspaces(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the workspaces on which you have a role."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.workspaces()
    rows: list[list[Cell]] = [[one.name, one.id, when(one.created_at)] for one in found]
    screen.result([one.raw for one in found], lambda: screen.table(("name", "id", "created"), rows, empty="No workspaces."))


@workspaces.command("create", epilog="Example:  modelkeep workspaces create fraud")
def create_workspace(name: Workspace, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Make a workspace."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.create_workspace(name)
    screen.result(found.raw, lambda: screen.say(f"There is a workspace {name}. `modelkeep push --workspace {name}` fills it."))


@workspaces.command("remove", epilog="Example:  modelkeep workspaces remove fraud")
def remove_workspace(name: Workspace, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Remove a workspace without models, and the roles on it."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        client.remove_workspace(name)
    screen.result({"name": name, "removed": True}, lambda: screen.say(f"{name} is removed."))


def move(
    name: ModelName,
    *,
    workspace: Annotated[str | None, typer.Option(metavar="NAME", help="The workspace it goes to.")] = None,
    owner: Annotated[str | None, typer.Option(metavar="USER_ID", help="The person it belongs to from then on.")] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Move a model into another workspace, or give it to somebody else."""
    if workspace is None and owner is None:
        raise WrongUse("Nothing would change.", "Say where with --workspace, or to whom with --owner.")
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.move_model(name, workspace=workspace, owner=owner)
    screen.result(found.raw, lambda: screen.say(f"{name} is moved."))


@groups.command("list")
def list_groups(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the groups."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.groups()
    rows: list[list[Cell]] = [[one.name, one.id, when(one.created_at)] for one in found]
    screen.result([one.raw for one in found], lambda: screen.table(("name", "id", "created"), rows, empty="No groups."))


@groups.command("create", epilog="Example:  modelkeep groups create analysts")
def create_group(name: Group, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Make a group."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.create_group(name)
    screen.result(found.raw, lambda: screen.say(f"There is a group {name}. `modelkeep groups add {name} USER_ID` fills it."))


@groups.command("remove", epilog="Example:  modelkeep groups remove analysts")
def remove_group(name: Group, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Remove a group; what its members had through it, they have no more."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        client.remove_group(name)
    screen.result({"name": name, "removed": True}, lambda: screen.say(f"{name} is removed."))


@groups.command("members", epilog="Example:  modelkeep groups members analysts")
def list_members(name: Group, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List the people in a group."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.members(name)
    rows: list[list[Cell]] = [[one] for one in found]
    screen.result(found, lambda: screen.table(("id",), rows, empty=f"Nobody is in {name}."))


@groups.command("add", epilog="Example:  modelkeep groups add analysts usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def add_member(name: Group, user_id: Person, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Put a person into a group."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        client.add_member(name, user_id)
    screen.result({"group": name, "user": user_id}, lambda: screen.say(f"{user_id} is in {name}."))


@groups.command("drop", epilog="Example:  modelkeep groups drop analysts usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def remove_member(name: Group, user_id: Person, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Take a person out of a group."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        client.remove_member(name, user_id)
    screen.result({"group": name, "user": user_id}, lambda: screen.say(f"{user_id} is not in {name} any more."))


def among(given: str, known: list[str], what: str) -> None:
    """Refuse what is not among the known ones, naming those that are."""
    if given not in known:
        raise WrongUse(f"There is no {what} {given}.", f"{did_you_mean(given, known)} There are {', '.join(known)}.".strip())


def _check(text: str, kinds: tuple[str, ...], option: str, form: str) -> None:
    kind, _colon, name = text.partition(":")
    if kind not in kinds or (kind != "installation") != bool(name):
        raise WrongUse(f"{option} {text} is neither of {form}.", f"Write it as {form}.")
