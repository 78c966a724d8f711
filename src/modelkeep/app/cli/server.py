"""Commands about the server itself: run it, look after it, say which it is."""

import os
import sys
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer

from modelkeep.app.cli.installed import need_server
from modelkeep.app.cli.kept import session_of
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import Code
from modelkeep.app.cli.screen import Screen
from modelkeep.contracts.errors import Invalid

Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file; else modelkeep.toml here, if there is one.")]
Data = Annotated[Path | None, typer.Option(metavar="DIR", help="Directory that keeps everything (default .modelkeep)")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on (default 8080)")]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on (default 127.0.0.1)")]
GrpcPort = Annotated[
    int | None, typer.Option(min=0, max=65535, metavar="PORT", help="Port for Open Inference over gRPC; 0 is none (default)")
]
LogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="Least important lines to log: debug, info, warning or error (default info)"),
]

TakeOver = Annotated[int, typer.Option("--take-over", hidden=True)]


def serve(
    *,
    host: Host = None,
    port: Port = None,
    grpc_port: GrpcPort = None,
    data: Data = None,
    config: Config = None,
    log_level: LogLevel = None,
    take_over: TakeOver = -1,
) -> None:
    """Run the server here, until Ctrl-C or SIGTERM."""
    need_server("serve")
    from modelkeep.app import processes, settings
    from modelkeep.app.places import Places
    from modelkeep.app.takeover import telling
    from modelkeep.infra.settings import sqlite_file

    overrides = _overrides(host, port, data)
    given = {"server.grpc_port": grpc_port, "log.level": log_level}
    overrides |= {name: value for name, value in given.items() if value is not None}
    with telling(take_over):
        loaded = settings.load(config, overrides)
        _check_data(loaded.data)
        _check_database(sqlite_file(loaded.database.url))
        token = Places(loaded.data).setup_token
        processes.serve(loaded, announce=lambda address, rpcs: _announce(address, rpcs, token), take_over=take_over)


def upgrade(
    *,
    data: Data = None,
    config: Config = None,
    patience: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long the new server may take to load its models.")
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Have a new server take over from the one that runs here, without a failed request."""
    need_server("upgrade")
    from modelkeep.app import settings, upgrading
    from modelkeep.app.places import Places

    screen = Screen(as_json=as_json)
    loaded = settings.load(config, _overrides(None, None, data))
    upgrading.ask(Places(loaded.data.absolute()), patience, screen.news)
    screen.result({"upgraded": True}, lambda: screen.say("The upgrade is done."))


def doctor(
    *, data: Data = None, config: Config = None, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False
) -> None:
    """Look for what is wrong, here and at the server, and say what to do about it."""
    need_server("doctor")
    from modelkeep.app import doctor as examination

    screen = Screen(as_json=as_json)
    findings = examination.examine(config, _overrides(None, None, data), url=url, key=key, session_of=session_of)

    def show() -> None:
        for finding in findings:
            screen.out.print(f"{finding.status:<5}", style=_STYLES[finding.status], end="")
            screen.say(f"{finding.subject}: {finding.detail}")
            if finding.advice:
                screen.say(f"      {finding.advice}")

    screen.result([finding.document() for finding in findings], show)
    if any(finding.status == examination.FAIL for finding in findings):
        raise typer.Exit(Code.OTHER)


def version(*, as_json: AsJson = False) -> None:
    """Print the version of Modelkeep."""
    screen = Screen(as_json=as_json)
    number = package_version("modelkeep")
    screen.result({"version": number}, lambda: screen.say(number))


def openapi(
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; else it is printed.")
    ] = None,
) -> None:
    """Print the OpenAPI document of this version: every address, what it takes and answers. No server is needed."""
    from modelkeep.app import description

    text = description.text()
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{output} cannot be written: {error.strerror}.") from error


class CannotWrite(Invalid):
    """This file cannot be written."""

    code = "file_unwritable"


class CannotKeepData(Invalid):
    """The data directory cannot be made or written."""

    code = "data_directory_unusable"


class CannotKeepDatabase(Invalid):
    """The database file cannot be made or written."""

    code = "database_unusable"


_STYLES = {"ok": "green", "info": "dim", "warn": "yellow", "fail": "bold red"}


def _check_data(data: Path) -> None:
    """Make the data directory, and refuse in words one that cannot be written, or that models could read."""
    from modelkeep.sandbox.view import inside, readable

    advice = "Name another with --data or MODELKEEP_DATA, or give this user the right to write there."
    for folder in readable(tuple(sys.path[1:])):  # the first is of this program alone
        if inside(os.path.realpath(data), folder):
            raise CannotKeepData(
                f"The data directory {data} lies in {folder}, which models may read. Name another with --data."
            )
    try:
        data.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CannotKeepData(f"The data directory {data} cannot be made: there is a file of that name. {advice}") from error
    except OSError as error:
        raise CannotKeepData(f"The data directory {data} cannot be made: {error.strerror}. {advice}") from error
    if not os.access(data, os.W_OK | os.X_OK):
        raise CannotKeepData(f"The data directory {data} cannot be written. {advice}")


def _check_database(file: Path | None) -> None:
    """Refuse in words a file that SQLite cannot open: whoever waits for it would wait for ever."""
    advice = "The setting database.url names it."
    if file is None:
        return
    if file.is_dir():
        raise CannotKeepDatabase(f"The database {file} is a directory. {advice}")
    if not file.parent.is_dir():
        raise CannotKeepDatabase(f"The database {file} cannot be made: there is no directory {file.parent}. {advice}")
    if not all(os.access(path, os.W_OK) for path in (file, file.parent) if path.exists()):  # its journal lies beside it
        raise CannotKeepDatabase(f"The database {file} cannot be written, or nothing beside it. {advice}")


def _overrides(host: str | None, port: int | None, data: Path | None) -> dict[str, Any]:
    given = {"server.host": host, "server.port": port, "data": data}
    return {name: value for name, value in given.items() if value is not None}


def _announce(address: str, rpcs: str, setup_token: Path) -> None:
    screen = Screen(as_json=False)
    screen.say(
        f"Modelkeep answers at {address} (API: {address}/docs){f', over gRPC at {rpcs}' if rpcs else ''}. Ctrl-C stops it."
    )
    if setup_token.exists():
        token = setup_token.read_text(encoding="ascii").strip()
        screen.say("Nobody is set up yet. Make the first administrator with this one-time token:")
        screen.say(f"  modelkeep setup --url {address} --token {token}")
