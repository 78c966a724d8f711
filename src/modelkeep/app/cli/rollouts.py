"""Commands about rollouts: starting one, watching it, steering it, and drawing its evidence."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.completion import deployment_names
from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.rollout_plot import svg
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelkeep.client import Rollout

MODES = ("canary", "evidence", "blue_green")
_MAYBE = "It may be done already: `modelkeep rollout show {}` tells."
_UNKNOWN = "`modelkeep rollout list` shows those that there are."
_NOT_DONE = 4
_OF_SHADOWS = "disagreement"

rollout = typer.Typer(
    no_args_is_help=True,
    help="Have a new version take over step by step, and be taken back where it is worse.",
    epilog="Example:  modelkeep rollout start churn 3",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id, from `modelkeep rollout list`.", show_default=False)]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the deployment.", show_default=False, autocompletion=deployment_names),
]
Seen = Annotated[
    int | None, typer.Option("--revision", min=0, metavar="N", help="Only if nobody has changed it since this revision.")
]


@rollout.command("start", epilog="Example:  modelkeep rollout start churn 3 --step 5:10m --step 50:1h")
def start(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="The version to take over.", show_default=False)],
    *,
    mode: Annotated[str, typer.Option(metavar="MODE", help=f"How: {', '.join(MODES)}.")] = "canary",
    step: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARE:TIME", help="A step, such as 5:10m; several for several.", show_default="5:10m 25:30m 50:1h"
        ),
    ] = None,
    shadow: Annotated[
        str,
        typer.Option(metavar="SHARE:TIME", help="First ask it beside the promoted version, answering nobody, such as 20:10m."),
    ] = "",
    signal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIGNAL", help="Judge by this alone: errors, slow, poor, disagreement (in the shadow).", show_default="all"
        ),
    ] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option(metavar="SIGNAL=RATE", help="A rate of bad requests that is good enough.", show_default=False),
    ] = None,
    alpha: Annotated[float, typer.Option(metavar="P", help="Probability of taking back a version that is no worse.")] = 0.01,
    slow_ms: Annotated[float, typer.Option(metavar="MS", help="Slower is bad; 0 has servers learn it.")] = 0.0,
    least: Annotated[int, typer.Option(min=1, metavar="N", help="Requests that each step needs of the version.")] = 100,
    bake: Annotated[float, typer.Option(metavar="MINUTES", help="blue_green: keep the old version warm.")] = 30.0,
    revision: Seen = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have a version take over a deployment step by step."""
    if mode not in MODES:
        raise WrongUse(f"There is no mode {mode}.", f"It is one of: {', '.join(MODES)}.")
    plan: dict[str, Any] = {"mode": mode, "alpha": alpha, "slow_ms": slow_ms, "least": least, "bake_minutes": bake}
    plan |= {"steps": step} if step else {}
    plan |= {"shadow": shadow} if shadow else {}
    plan |= {"signals": signal} if signal else {}
    plan |= {"bounds": dict(map(_bound, bound))} if bound else {}
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted="`modelkeep rollout list` tells whether it has begun.") as client,
        refined("rollout_under_way", f"`modelkeep rollout list --deployment {name}` shows it."),
    ):
        made = client.start_rollout(name, version, revision=revision, **plan)
    screen.result(made.raw, lambda: screen.say(f"{_where(made)} `modelkeep rollout watch {made.id}` follows it."))


@rollout.command("list", epilog="Example:  modelkeep rollout list --deployment churn")
def list_rollouts(
    *,
    deployment: Annotated[str | None, typer.Option(metavar="NAME", help="Of this deployment alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List rollouts, newest first."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.rollouts(deployment=deployment, limit=limit)
    rows: list[list[Cell]] = [
        [
            one.id,
            one.deployment,
            one.version,
            one.state,
            f"{one.step} ({_share(one)})",
            when(one.created_at),
            one.created_by,
        ]
        for one in found
    ]
    columns = ("id", "deployment", "version", "state", "step", "since", "by")
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="There was no rollout yet."))


@rollout.command("show", epilog="Example:  modelkeep rollout show rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def show(rollout_id: Id, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show where a rollout stands, what is known of each signal, and what has happened."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client, refined("rollout_not_found", _UNKNOWN):
        found = client.rollout(rollout_id)
    screen.result(found.raw, lambda: _show(screen, found))


@rollout.command("watch", epilog="Example:  modelkeep rollout watch rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def watch(
    rollout_id: Id,
    *,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Give up after so long.")] = 86400.0,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Follow a rollout until it is over. Exit code 0: promoted; 4: taken back or cancelled."""
    screen = Screen(as_json=as_json)
    gone_on = f"The rollout goes on: `modelkeep rollout show {rollout_id}` tells."
    with (
        connected(url, key, interrupted=gone_on) as client,
        refined("rollout_not_found", _UNKNOWN),
        screen.waiting("looking ...") as tell,
    ):
        told = ""

        def say(one: "Rollout") -> None:
            nonlocal told
            news = _line(one)
            if news != told and not one.over:
                tell(news)
            told = news

        found = client.watch_rollout(rollout_id, timeout=timeout, on_state=say)
    screen.result(found.raw, lambda: _show(screen, found))
    if found.state != "promoted":
        raise typer.Exit(_NOT_DONE)


@rollout.command("pause", epilog="Example:  modelkeep rollout pause rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def pause(rollout_id: Id, *, revision: Seen = None, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Have it go no further; its share stays, and what is worse is still taken back."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=_MAYBE.format(rollout_id)) as client, refined("rollout_not_found", _UNKNOWN):
        found = client.pause_rollout(rollout_id, revision=revision)
    screen.result(found.raw, lambda: screen.say(_where(found)))


@rollout.command("resume", epilog="Example:  modelkeep rollout resume rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def resume(rollout_id: Id, *, revision: Seen = None, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Have it go on; where it was held, its step's time begins again."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=_MAYBE.format(rollout_id)) as client, refined("rollout_not_found", _UNKNOWN):
        found = client.resume_rollout(rollout_id, revision=revision)
    screen.result(found.raw, lambda: screen.say(_where(found)))


@rollout.command("advance", epilog="Example:  modelkeep rollout advance rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def advance(
    rollout_id: Id, *, revision: Seen = None, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False
) -> None:
    """Go on to the next step, whatever this one still lacks; from the last one, promote."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=_MAYBE.format(rollout_id)) as client, refined("rollout_not_found", _UNKNOWN):
        found = client.advance_rollout(rollout_id, revision=revision)
    screen.result(found.raw, lambda: screen.say(_where(found)))


@rollout.command("promote", epilog="Example:  modelkeep rollout promote rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")
def promote(
    rollout_id: Id, *, revision: Seen = None, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False
) -> None:
    """Promote the version now, whatever is still to be shown."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=_MAYBE.format(rollout_id)) as client, refined("rollout_not_found", _UNKNOWN):
        found = client.promote_rollout(rollout_id, revision=revision)
    screen.result(found.raw, lambda: screen.say(_where(found)))


@rollout.command("rollback", epilog="Example:  modelkeep rollout rollback rol_01J9Z3K6... --reason 'customers complain'")
def rollback(
    rollout_id: Id,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the rollout.")] = "",
    revision: Seen = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Take the version back at once; nobody has to agree."""
    screen = Screen(as_json=as_json)
    with connected(url, key, interrupted=_MAYBE.format(rollout_id)) as client, refined("rollout_not_found", _UNKNOWN):
        found = client.roll_back_rollout(rollout_id, reason=reason, revision=revision)
    screen.result(found.raw, lambda: screen.say(_where(found)))


@rollout.command("plot", epilog="Example:  modelkeep rollout plot rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3 -o rollout.svg")
def plot(
    rollout_id: Id,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where to.")] = Path("rollout.svg"),
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Draw the evidence of a rollout as it came, as an SVG."""
    screen = Screen(as_json=as_json)
    with connected(url, key) as client, refined("rollout_not_found", _UNKNOWN):
        found, evidence = client.rollout(rollout_id), client.rollout_evidence(rollout_id)
    output.write_text(svg(_where(found), evidence), encoding="utf-8")
    said = {"file": str(output), "points": len(evidence["points"])}
    screen.result(said, lambda: screen.say(f"{output} shows {said['points']} moments of {rollout_id}."))


def _bound(text: str) -> tuple[str, float]:
    signal, equals, rate = text.partition("=")
    try:
        return signal, float(rate if equals else "none")
    except ValueError:
        raise WrongUse(f"{text!r} says no rate.", "Write it as SIGNAL=RATE, such as errors=0.01.") from None


def _where(one: "Rollout") -> str:
    """Say where a rollout stands."""
    said = f"{one.deployment} version {one.version} after version {one.from_version}: {one.state.replace('_', ' ')}"
    if not one.over:
        said += f", step {one.step} of {len(one.steps)} ({_share(one)})"
    return f"{said}. {one.reason}".rstrip()


def _share(one: "Rollout") -> str:
    """Say of how many requests it is in this step."""
    return f"{one.percent:g} %, in the shadow" if one.shadow else f"{one.percent:g} %"


def _line(one: "Rollout") -> str:
    """Say in one line what is known: for each signal the counts of both, and the evidence of what it takes."""
    signals = []
    for signal, known in (one.numbers or {}).items():
        others = f"at most {known['bound']:.1%}" if signal == _OF_SHADOWS else f"to {known['others_bad']}/{known['others']}"
        signals.append(f"{signal} {known['bad']}/{known['requests']} {others}, e {_e(known['log_e'])}")
    return "; ".join([f"{one.state}, step {one.step} ({_share(one)})", *signals])


def _e(log: float) -> str:
    return f"{math.exp(log):.3g}" if log < 100 else f"1e{log / math.log(10):.0f}"  # noqa: PLR2004 - what a number holds with ease


def _others(signal: str, known: "Mapping[str, Any]") -> "tuple[Cell, Cell]":
    """Return the counts with which a signal's are compared: those of the promoted version, or the rate that is allowed."""
    return ("at most", f"{known['bound']:.1%}") if signal == _OF_SHADOWS else (known["others_bad"], known["others"])


def _show(screen: Screen, one: "Rollout") -> None:
    screen.say(_where(one))
    columns = ("signal", "bad", "of", "others bad", "of", "e", "taken back at", "not worse", "shown at", "rate at most")
    rows: list[list[Cell]] = [
        [
            *(signal, known["bad"], known["requests"], *_others(signal, known), _e(known["log_e"])),
            "by servers alone" if known["needs"] is None else _e(known["needs"]),
            *(_e(known["log_not_worse"]), _e(known["needs_not_worse"]), f"{known['upper']:.2%}"),
        ]
        for signal, known in (one.numbers or {}).items()
    ]
    screen.table(columns, rows)
    happened: list[list[Cell]] = [
        [when(event["at"]), event["what"].replace("_", " "), event["step"], event["by"], event["reason"]]
        for event in one.events
    ]
    screen.table(("at", "what", "step", "by", "why"), happened)
