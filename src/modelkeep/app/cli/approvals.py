"""Commands about what needs a second person: what was asked, and approving or refusing it."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Approval

STATES = ("pending", "approved", "refused", "used", "expired")
_MAYBE = "It may be done already: `modelkeep approvals show {}` tells."
_UNKNOWN = "`modelkeep approvals list` shows those of what you may do, too."

approvals = typer.Typer(
    no_args_is_help=True,
    help="See what needs a second person, and approve or refuse it.",
    epilog="Example:  modelkeep approvals list --state pending",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id, from `modelkeep approvals list`.", show_default=False)]


@approvals.command("list", epilog="Example:  modelkeep approvals list --state pending")
def list_approvals(
    *,
    state: Annotated[str | None, typer.Option(metavar="STATE", help=f"Only those that are {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List what was asked for that you may do, too."""
    if state is not None and state not in STATES:
        raise WrongUse(f"There is no state {state}.", f"It is one of: {', '.join(STATES)}.")
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.approvals(state=state, limit=limit)
    rows: list[list[Cell]] = [[one.id, one.state, one.summary, one.asked_by_name, when(one.until)] for one in found]
    columns = ("id", "state", "what", "asked by", "until")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="Nothing was asked."))


@approvals.command("show", epilog="Example:  modelkeep approvals show apr_01J9Z3K6T2Q8W4V5R7X0Y1B2C7")
def show(approval_id: Id, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show what was asked, by whom, and how it stands."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client, refined("approval_not_found", _UNKNOWN):
        found = client.approval(approval_id)
    screen.result(found.raw, lambda: _show(screen, found))


@approvals.command("approve", epilog="Example:  modelkeep approvals approve apr_01J9Z3K6T2Q8W4V5R7X0Y1B2C7")
def approve(approval_id: Id, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Agree to what another person asked; they then do it."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted=_MAYBE.format(approval_id)) as client,
        refined("approval_not_found", _UNKNOWN),
        refined("second_person_needed", "Somebody else approves it; a service account never does."),
    ):
        found = client.approve(approval_id)
    screen.result(found.raw, lambda: screen.say(_next(found)))


@approvals.command("refuse", epilog="Example:  modelkeep approvals refuse apr_01J9Z3K6... --reason 'not before the audit'")
def refuse(
    approval_id: Id,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the refusal.")],
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Refuse what was asked, also where it was approved and is not done yet."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, interrupted=_MAYBE.format(approval_id)) as client,
        refined("approval_not_found", _UNKNOWN),
    ):
        found = client.refuse(approval_id, reason=reason)
    screen.result(found.raw, lambda: screen.say(f"Refused: {found.summary}"))


def _next(approval: "Approval") -> str:
    if approval.state == "pending":
        return f"Noted; one more person is needed, for a service account asked: {approval.summary}"
    return f"Approved: {approval.summary} {approval.asked_by_name} repeats the same request until {when(approval.until)}."


def _show(screen: Screen, approval: "Approval") -> None:
    refused = approval.refused_by or {}
    screen.facts(
        {
            "what": approval.summary,
            "state": approval.state,
            "asked by": f"{approval.asked_by_name}, {when(approval.asked_at)}",
            "until": when(approval.until),
            "approved by": ", ".join(f"{one['name']}, {when(one['at'])}" for one in approval.approved_by),
            "refused by": refused.get("name"),
            "reason": approval.reason,
            "done": when(approval.used_at),
        }
    )
