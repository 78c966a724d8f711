"""Commands about what administrators allow although it is dangerous."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.connect import connected
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from collections.abc import Mapping

MAYBE_SET = "It may have been changed: `modelkeep safety show` tells."
LEVELS = ("L1", "L0", "none")

Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the change, and in the audit trail.")
]

safety = typer.Typer(
    no_args_is_help=True,
    help="See and set what is allowed although it is dangerous.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@safety.command("show")
def show(*, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show what is allowed, who allowed it, when and why."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.safety()
    screen.result(found, lambda: _table(screen, found))


@safety.command("allow-code", epilog="Example:  modelkeep safety allow-code --reason 'our own team trains them'")
def allow_code(*, reason: Reason, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Take files that can run code when they are loaded: joblib, pickle, PyTorch, Python classes. Runners lock them in."""
    _allow(True, reason, url, key, Screen(as_json=as_json))


@safety.command("refuse-code", epilog="Example:  modelkeep safety refuse-code --reason 'all are converted to ONNX'")
def refuse_code(*, reason: Reason, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Take such files no more. Versions that are ready stay as they are; those being validated are rejected."""
    _allow(False, reason, url, key, Screen(as_json=as_json))


@safety.command("accept-level", epilog="Example:  modelkeep safety accept-level L1 --reason 'old kernel until May'")
def accept_level(
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="L1 or L0; none takes it back.", show_default=False)],
    *,
    reason: Reason,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Let models be loaded though this machine locks them in less well than they need.

    Only where the setting runners.unsafe_allow_level allows it; every health page shows it from then on.
    """
    if level not in LEVELS:
        raise WrongUse(f"There is no level {level} to accept.", f"It is one of: {', '.join(LEVELS)}.")
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=MAYBE_SET) as client:
        found = client.accept_sandbox(None if level == "none" else level, reason=reason)
    screen.result(found, lambda: _table(screen, found))


def _allow(allowed: bool, reason: str, url: str, key: str, screen: Screen) -> None:  # noqa: FBT001 - private
    with connected(url, key, interrupted=MAYBE_SET) as client:
        found = client.allow_code(allowed=allowed, reason=reason)
    screen.result(found, lambda: _table(screen, found))


def _table(screen: Screen, found: "Mapping[str, Any]") -> None:
    code, sandbox = found["code_formats"], found["sandbox"]
    rows: list[list[Cell]] = [
        ["files that can run code", "taken" if code["allowed"] else "refused", *_last(code)],
        ["level of the lock-down", sandbox["accepted"] or "as each format needs", *_last(sandbox)],
    ]
    screen.table(("what", "is", "set by", "when", "why"), rows, empty="")


def _last(switch: "Mapping[str, Any]") -> list[Cell]:
    return [switch["set_by"] or "-", when(switch["set_at"]), switch["reason"] or "-"]
