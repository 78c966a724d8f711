"""Commands about the audit trail: list it, verify it, export it, and erase people from it."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.predictions import check_time
from modelkeep.app.cli.problems import Code, WrongUse
from modelkeep.app.cli.screen import MEGABYTE, Cell, Screen, file_size, when

if TYPE_CHECKING:
    from modelkeep.contracts.audit_chain import Report

FILTERS = "Which entries"
OUTCOMES = ("done", "refused")
FORMATS = ("jsonl", "cef")
MAYBE_ERASED = "The person may be erased already: `modelkeep audit list --action audit.erase` tells."

audit = typer.Typer(
    no_args_is_help=True,
    help="List, verify and export who changed what; erase people from it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

By = Annotated[str, typer.Option("--actor", metavar="ID", help="By the key of this id.", rich_help_panel=FILTERS)]
Action = Annotated[
    str, typer.Option(metavar="ACTION", help="Of this action, such as deployment.promote.", rich_help_panel=FILTERS)
]
Target = Annotated[str, typer.Option(metavar="ID", help="On the thing of this id.", rich_help_panel=FILTERS)]
Outcome = Annotated[str, typer.Option(metavar="OUTCOME", help="That were done or refused.", rich_help_panel=FILTERS)]
Request = Annotated[str, typer.Option(metavar="ID", help="Of the request with this X-Request-ID.", rich_help_panel=FILTERS)]
Since = Annotated[
    str, typer.Option(metavar="TIME", help="From this time on (ISO; UTC without a zone).", rich_help_panel=FILTERS)
]
Until = Annotated[str, typer.Option(metavar="TIME", help="Before this time.", rich_help_panel=FILTERS)]


@audit.command("list", epilog="Example:  modelkeep audit list --action deployment.promote --since 2026-01-31")
def list_entries(
    *,
    actor: By = "",
    action: Action = "",
    target: Target = "",
    outcome: Outcome = "",
    request: Request = "",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="NUMBER", help="Most to list.")] = 20,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List who changed what, and who was refused, newest first."""
    screen = Screen(as_json=as_json)
    wanted = _wanted(actor=actor, action=action, target=target, outcome=outcome, request_id=request, since=since, until=until)
    with connected(url, key) as client:
        found = client.audit(limit=limit, **wanted)
    rows: list[list[Cell]] = [
        [
            one.seq,
            when(one.at),
            "(erased)" if one.erased else one.actor_name or one.actor,
            one.address,
            one.action,
            one.target,
            one.outcome,
            one.before,
            one.after,
        ]
        for one in found
    ]
    columns = ("number", "at", "who", "from", "action", "target", "outcome", "before", "after")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="No such entries."))


@audit.command("export", epilog="Example:  modelkeep audit export trail.jsonl")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written as JSON lines, or CEF.", show_default=False)],
    *,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option("--format", metavar="FORMAT", help="jsonl, which can be verified, or cef.")
    ] = "jsonl",
    actor: By = "",
    action: Action = "",
    target: Target = "",
    outcome: Outcome = "",
    request: Request = "",
    since: Since = "",
    until: Until = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Write the audit trail to a file, oldest first."""
    if format not in FORMATS:
        raise WrongUse(f"There is no format {format}.", f"There are {', '.join(FORMATS)}.")
    screen = Screen(as_json=as_json)
    wanted = _wanted(actor=actor, action=action, target=target, outcome=outcome, request_id=request, since=since, until=until)
    _fetch(screen, file, url, key, format=format, **wanted)
    size = file.stat().st_size
    screen.result({"path": str(file), "size": size}, lambda: screen.say(f"{file} ({file_size(size)})"))


@audit.command("verify", epilog="Example:  modelkeep audit verify --against /var/log/modelkeep-audit.jsonl")
def verify(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="An export; without, the server's trail.", show_default=False)
    ] = None,
    *,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="COPY", help="A copy from elsewhere to compare with; may be repeated.")
    ] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option("--public-key", metavar="HEX", help="The key that checkpoints must be signed with; may be repeated."),
    ] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> int:
    """Verify the audit trail here, by its hashes and signatures, and name each entry that was changed."""
    from modelkeep.contracts.audit_chain import verify_file

    screen = Screen(as_json=as_json)
    with tempfile.TemporaryDirectory() as folder:
        trail = file or Path(folder) / "trail.jsonl"
        if file is None:
            _fetch(screen, trail, url, key, format="jsonl")
        with screen.transfer("Verifying the trail") as progress:
            report = verify_file(trail, against=against or (), public_keys=public_key or (), on_bytes=progress)
    screen.result(asdict(report) | {"whole": report.whole}, lambda: _show(screen, report))
    return Code.DONE if report.whole else Code.OTHER


@audit.command("erase", epilog="Example:  modelkeep audit erase usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3 --reason 'request 2026-114'")
def erase(
    subject: Annotated[str, typer.Argument(metavar="ID", help="Id of the person, or of a key.", show_default=False)],
    *,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept for good, and must not name the person.")
    ],
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Erase a person from the audit trail: what entries say that name them goes, the chain stays whole."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, timeout=600, interrupted=MAYBE_ERASED) as client,
        refined("audit_subject_not_found", "`modelkeep audit list --json` shows ids of keys and users."),
    ):
        number = client.erase_from_audit(subject, reason=reason)
    screen.result({"subject": subject, "entries": number}, lambda: screen.say(f"{subject} is erased from {number} entries."))


@audit.command("verifier", epilog="Example:  modelkeep audit verifier > verify_audit.py")
def verifier() -> None:
    """Print the verifier as one Python file, which needs nothing else: for an auditor to read, and to run."""
    from modelkeep.contracts import audit_chain

    typer.echo(Path(audit_chain.__file__).read_text(encoding="utf-8"), nl=False)


def _fetch(screen: Screen, to: Path, url: str, key: str, **wanted: Any) -> None:  # noqa: ANN401 - as the client takes them
    done = told = 0
    with (
        connected(url, key, timeout=600, interrupted="No file was written.") as client,
        screen.waiting("Reading the trail") as say,
    ):

        def count(size: int) -> None:
            nonlocal done, told
            done += size
            if done - told > MEGABYTE:
                told = done
                if screen.live:
                    say(f"Reading the trail: {file_size(done)}")

        client.export_audit(to, on_bytes=count, **wanted)


def _wanted(**given: str) -> dict[str, str | None]:
    if given["outcome"] and given["outcome"] not in OUTCOMES:
        raise WrongUse(f"There is no outcome {given['outcome']}.", f"There are {', '.join(OUTCOMES)}.")
    for option in ("since", "until"):
        check_time(option, given[option])
    return {name: value or None for name, value in given.items()}


def _show(screen: Screen, report: "Report") -> None:
    from modelkeep.contracts.audit_chain import told

    for line in told(report):
        screen.say(line)
