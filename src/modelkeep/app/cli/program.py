"""The program `modelkeep`: its commands, and what becomes of their errors."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from modelkeep.app.cli import access as access_commands
from modelkeep.app.cli import alerts as alerts_commands
from modelkeep.app.cli import aliases as aliases_commands
from modelkeep.app.cli import approvals as approvals_commands
from modelkeep.app.cli import audit as audit_commands
from modelkeep.app.cli import certificates as certificates_commands
from modelkeep.app.cli import deployments as deployments_commands
from modelkeep.app.cli import desired as desired_commands
from modelkeep.app.cli import feedback as feedback_commands
from modelkeep.app.cli import keys as keys_commands
from modelkeep.app.cli import lifecycle as lifecycle_commands
from modelkeep.app.cli import login as login_commands
from modelkeep.app.cli import models, predict, predictions, push, releases, replay, server
from modelkeep.app.cli import rollouts as rollouts_commands
from modelkeep.app.cli import safety as safety_commands
from modelkeep.app.cli import secrets as secrets_commands
from modelkeep.app.cli import shadow as shadow_commands
from modelkeep.app.cli import storage as storage_commands
from modelkeep.app.cli import users as users_commands
from modelkeep.app.cli.completion import trust
from modelkeep.app.cli.connect import trusted
from modelkeep.app.cli.problems import EXIT_CODES, Code, Interrupted, WrongUse, report

_HELP = {"help_option_names": ["-h", "--help"]}
_FIRST = "Everyday"
_SECOND = "Models"
_THIRD = "You"
_FOURTH = "Server"
_COMMON = ("--url", "--key", "--json")

_INTEGER = re.compile(r"Input should be a valid integer.*")
_BOUND = re.compile(r"Input should be (?:greater|less) than or equal to (\d+)")

app = typer.Typer(
    help="Keep, serve and watch machine-learning models inside your own walls.",
    epilog=f"modelkeep COMMAND --help has examples. {EXIT_CODES}",
    context_settings=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _begin(
    *,
    ca_file: Annotated[
        str,
        typer.Option(
            envvar="MODELKEEP_CA_FILE", metavar="FILE", help="Authorities to trust (PEM), not the system's.", show_default=False
        ),
    ] = "",
    client_certificate: Annotated[
        str,
        typer.Option(
            envvar="MODELKEEP_CLIENT_CERTIFICATE", metavar="FILE", help="Certificate to show (PEM).", show_default=False
        ),
    ] = "",
    client_key: Annotated[
        str,
        typer.Option(
            envvar="MODELKEEP_CLIENT_KEY", metavar="FILE", help="Its key, if not in the same file.", show_default=False
        ),
    ] = "",
) -> None:
    trusted.set(trust({"ca_file": ca_file, "client_certificate": client_certificate, "client_key": client_key}))


def _add(command: Any, panel: str, example: str = "") -> None:  # noqa: ANN401 - a command: any function with annotations
    epilog = example if example.startswith("[bold]") or not example else f"Example:  {example}"
    app.command(context_settings=_HELP, rich_help_panel=panel, epilog=epilog or None)(command)


_add(push.push, _FIRST, push.EXAMPLES)
_add(predict.predict, _FIRST, predict.EXAMPLES)
app.add_typer(predictions.predictions, name="predictions", rich_help_panel=_FIRST)
app.add_typer(feedback_commands.feedback, name="feedback", rich_help_panel=_FIRST)
_add(replay.replay, _FIRST, replay.EXAMPLES)
_add(replay.replays, _FIRST, "modelkeep replays churn")
_add(models.models, _SECOND, "modelkeep models churn --json")
_add(models.versions, _SECOND, "modelkeep versions churn 2")
_add(models.promote, _SECOND, "modelkeep promote churn 2")
_add(releases.as_of, _SECOND, "modelkeep as-of churn --at 2026-03-14T09:26:53Z")
_add(models.describe, _SECOND, "modelkeep describe churn 'Who will leave next month?'")
_add(models.download, _SECOND, "modelkeep download churn 2 -o churn-2.joblib")
_add(models.archive, _SECOND, "modelkeep archive churn 1")
_add(models.restore, _SECOND, "modelkeep restore churn")
_add(lifecycle_commands.deprecate, _SECOND, "modelkeep deprecate churn 1 --reason 'Version 2 is better' --successor 2")
_add(lifecycle_commands.trash, _SECOND, "modelkeep trash churn 1 --reason 'Nobody asks it'")
_add(lifecycle_commands.hold, _SECOND, "modelkeep hold churn --reason 'Case 7 of 2026'")
_add(lifecycle_commands.purge, _SECOND, "modelkeep purge churn 1 --reason 'The customer has left'")
_add(lifecycle_commands.erasures, _SECOND, "modelkeep erasures")
_add(lifecycle_commands.changes, _SECOND, "modelkeep changes churn 1")
_add(lifecycle_commands.lineage, _SECOND, "modelkeep lineage churn 3")
_add(access_commands.move, _SECOND, "modelkeep move churn --workspace fraud")
app.add_typer(aliases_commands.alias, name="alias", rich_help_panel=_SECOND)
app.add_typer(deployments_commands.deployments, name="deployments", rich_help_panel=_SECOND)
app.add_typer(rollouts_commands.rollout, name="rollout", rich_help_panel=_SECOND)
app.add_typer(alerts_commands.alerts, name="alerts", rich_help_panel=_SECOND)
app.add_typer(shadow_commands.shadow, name="shadow", rich_help_panel=_SECOND)
_add(desired_commands.export, _SECOND, desired_commands.EXPORT)
_add(desired_commands.apply, _SECOND, desired_commands.APPLY)
_add(login_commands.login, _THIRD, "modelkeep login ada@example.org --url https://models.example.org")
_add(login_commands.logout, _THIRD, "modelkeep logout")
_add(login_commands.whoami, _THIRD, "modelkeep whoami")
_add(login_commands.password, _THIRD, "modelkeep password")
_add(login_commands.register, _THIRD, "modelkeep register bob bob@example.org")
app.add_typer(login_commands.sessions, name="sessions", rich_help_panel=_THIRD)
_add(server.serve, _FOURTH, "modelkeep serve --port 9000 --data /srv/modelkeep")
_add(server.upgrade, _FOURTH, "modelkeep upgrade --data /srv/modelkeep")
_add(keys_commands.setup, _FOURTH, "modelkeep setup --token mks_...")
app.add_typer(keys_commands.keys, name="keys", rich_help_panel=_FOURTH)
app.add_typer(users_commands.users, name="users", rich_help_panel=_FOURTH)
app.add_typer(users_commands.invitations, name="invitations", rich_help_panel=_FOURTH)
app.add_typer(access_commands.access, name="access", rich_help_panel=_FOURTH)
app.add_typer(approvals_commands.approvals, name="approvals", rich_help_panel=_FOURTH)
app.add_typer(access_commands.workspaces, name="workspaces", rich_help_panel=_FOURTH)
app.add_typer(access_commands.groups, name="groups", rich_help_panel=_FOURTH)
app.add_typer(certificates_commands.certificates, name="certificates", rich_help_panel=_FOURTH)
app.add_typer(safety_commands.safety, name="safety", rich_help_panel=_FOURTH)
app.add_typer(audit_commands.audit, name="audit", rich_help_panel=_FOURTH)
app.add_typer(secrets_commands.secrets, name="secrets", rich_help_panel=_FOURTH)
app.add_typer(storage_commands.storage, name="storage", rich_help_panel=_FOURTH)
_add(server.doctor, _FOURTH, "modelkeep doctor --data /srv/modelkeep")
_add(server.openapi, _FOURTH, "modelkeep openapi -o openapi.json")
_add(server.version, _FOURTH)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that `arguments` name, and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; no error leaves as a traceback, unless Python runs with -X dev."""
    as_json = "--json" in arguments
    try:
        code = int(app(args=arguments, prog_name="modelkeep", standalone_mode=False) or Code.DONE)
        sys.stdout.flush()
    except typer.TyperException as error:
        shown_help = not error.format_message()  # no arguments at all: the help has been printed
        return Code.USAGE if shown_help else report(_usage(error, arguments), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = Code.INTERRUPTED
    except (BrokenPipeError, SystemExit) as end:
        if isinstance(end, SystemExit) and not end.code:  # what Tab asked for, or how to make it, has been printed
            return Code.DONE
        # Whoever reads us has enough, as `head` does; typer makes an exit of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return Code.DONE
    except Exception as error:  # the last door: what comes through is told in words
        if sys.flags.dev_mode and not isinstance(error, WrongUse):
            raise
        return report(error, as_json=as_json)
    if code == Code.INTERRUPTED:  # what typer makes of Ctrl-C where no command was ready to say more
        report(Interrupted("Interrupted. Nothing was changed."), as_json=as_json)
    return code


def _usage(error: typer.TyperException, arguments: Sequence[str]) -> WrongUse:
    """Say in two lines what was wrong with the command line, and where to look."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "modelkeep"
    advice = f"`{path} --help` shows how it is used."
    if error.format_message().startswith("Missing ") and context is not None:
        advice = f"Usage: {_usage_line(context)}. {advice}"
    if path == "modelkeep" and arguments and arguments[0] == "--version":
        advice = "`modelkeep version` prints it."
    elif path == "modelkeep" and arguments and arguments[0].split("=")[0] in _COMMON:
        advice = f"Options come after the command: `modelkeep models {arguments[0]} ...`."
    return WrongUse(_plain(error.format_message()), advice)


def _plain(message: str) -> str:
    """Return what typer says about a value in the words of somebody who types it."""
    message = _INTEGER.sub("a whole number is expected", message.rstrip("."))
    message = _BOUND.sub(lambda found: f"{found[1]} is the {'least' if found[0].count('greater') else 'most'}", message)
    return message.replace("'[", "'").replace("]'", "'")


def _usage_line(context: typer.Context) -> str:
    """Return what a command cannot do without: `modelkeep push FILE --name NAME`."""
    words = [context.command_path]
    for one in context.command.params:
        if one.required:
            name = str(getattr(one, "metavar", None) or one.name).upper()
            words.append(name if one.param_type_name == "argument" else f"{one.opts[0]} {name}")
    return " ".join(words)
