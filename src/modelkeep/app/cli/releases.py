"""Commands of releasing: further deployments, who is answered by what, plans, going back, and what was when."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.deployments import (
    Name,
    Planned,
    deployments,
    patch_of,
    show_deployment,
    show_plan,
    traffic_facts,
)
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, ModelName, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import AsOf, Revision, ScheduledChange

_LOOK = "`modelkeep deployments show {}` tells how it is now."
_MAYBE = "It may be done already: `modelkeep deployments show {}` tells."
_SCHEDULED = "It may be scheduled already: `modelkeep deployments schedule {}` tells."
_NONE = "none"
_LISTS = {"value": "values", "caller": "callers"}

NewName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the new deployment.", show_default=False)]
Seen = Annotated[
    int | None, typer.Option("--revision", min=0, metavar="N", help="Only if nobody has changed it since this revision.")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why: it stands with the revision.", show_default=False)]
Version = Annotated[int | None, typer.Option("--version", min=1, metavar="N", help="The version to promote.")]
Shares = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[VERSION=PERCENT]...",
        help="Shares of versions, by number or alias, such as 4=5; `none` takes one out.",
        show_default=False,
    ),
]
RuleTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="RULE",
        help="Who is answered by a version: '4 header=x-plan value=beta', with caller=, percent=, name=. Replaces all rules.",
        show_default=False,
    ),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", metavar="VERSION=PERCENT", help="A share; `none` takes one out.", show_default=False),
]
NoRules = Annotated[bool, typer.Option("--no-rules", metavar="", help="Take all rules out.")]
Sticky = Annotated[
    str | None,
    typer.Option("--sticky", metavar="WHOSE", help="caller, key, header:NAME, or none.", show_default=False),
]
Shadow = Annotated[
    str | None,
    typer.Option(
        "--shadow", metavar="VERSION=PERCENT", help="A version to ask beside the others, or none.", show_default=False
    ),
]


@deployments.command("create", epilog="Example:  modelkeep deployments create churn-eu --model churn --version 3")
def create(
    name: NewName,
    *,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="The model that answers there.", show_default=False)],
    number: Version = None,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Give a model another deployment. Without a version it answers once one is promoted."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=model, interrupted=_MAYBE.format(name)) as client:
        made = client.create_deployment(name, model, version=number, reason=reason)
    screen.result(made.raw, lambda: show_deployment(screen, made))


@deployments.command("delete", epilog="Example:  modelkeep deployments delete churn-eu")
def delete(name: Name, *, revision: Seen = None, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Delete a deployment that is not its model's own. Its revisions stay."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted=_MAYBE.format(name)) as client,
        refined("stale", _LOOK.format(name)),
    ):
        client.delete_deployment(name, revision=revision)
    screen.result({"deleted": name}, lambda: screen.say(f"{name} answers no more."))


@deployments.command("traffic", epilog="Example:  modelkeep deployments traffic churn 4=5 --sticky caller --plan")
def traffic(
    name: Name,
    shares: Shares = None,
    *,
    rules: RuleTexts = None,
    no_rules: NoRules = False,
    sticky: Sticky = None,
    shadow: Shadow = None,
    reason: Reason = "",
    revision: Seen = None,
    planned: Planned = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show who is answered by what, or change it: what is not named stays as it is."""
    patch = traffic_of(shares or (), None if rules is None and not no_rules else rules or (), sticky, shadow)
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted=_MAYBE.format(name)) as client,
        refined("stale", _LOOK.format(name)),
    ):
        if planned:
            plan = client.plan(name, traffic=patch)
            screen.result(plan.raw, lambda: show_plan(screen, plan))
            return
        found = client.set_traffic(name, patch, revision=revision, reason=reason) if patch else client.deployment(name)
    facts: dict[str, Cell] = {"version": found.version or "none yet", "revision": found.revision}
    facts |= traffic_facts(found.version, found.traffic)
    screen.result(found.raw, lambda: screen.facts(facts))


@deployments.command("plan", epilog="Example:  modelkeep deployments plan churn --version 4 --split 5=10 deadline_s=2")
def plan_change(
    name: Name,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[SETTING=VALUE]...", help="Settings to change.", show_default=False)
    ] = None,
    *,
    number: Version = None,
    split: Splits = None,
    rules: RuleTexts = None,
    no_rules: NoRules = False,
    sticky: Sticky = None,
    shadow: Shadow = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say what a change would do: what differs, who begins to answer, and whether it needs another person."""
    patch = traffic_of(split or (), None if rules is None and not no_rules else rules or (), sticky, shadow)
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        plan = client.plan(name, version=number, settings=patch_of(changes) if changes else None, traffic=patch or None)
    screen.result(plan.raw, lambda: show_plan(screen, plan))


@deployments.command("rollback", epilog="Example:  modelkeep deployments rollback churn --reason 'slower than before'")
def rollback(
    name: Name,
    *,
    to: Annotated[int | None, typer.Option("--to", min=0, metavar="N", help="Go back to this revision.")] = None,
    reason: Reason = "",
    revision: Seen = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Go back to what answered before the newest version came in, or to a revision. It needs nobody else."""
    screen = Screen(as_json=as_json)
    with (
        connected(url, key, model=name, interrupted=_MAYBE.format(name)) as client,
        refined("stale", _LOOK.format(name)),
        refined("revision_not_found", f"`modelkeep deployments revisions {name}` lists those there are."),
        refined("nothing_to_roll_back", f"`modelkeep deployments revisions {name}` lists what was there."),
    ):
        found = client.rollback(name, to, revision=revision, reason=reason)
    screen.result(found.raw, lambda: show_deployment(screen, found))


@deployments.command("revisions", epilog="Example:  modelkeep deployments revisions churn")
def revisions(
    name: Name,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show what a deployment was: who made it so, when, and why."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.revisions(name, limit=limit)
    columns = ("revision", "at", "by", "change", "version", "traffic", "reason")
    screen.result([one.raw for one in found], lambda: screen.table(columns, [_row(one) for one in found]))


@deployments.command("schedule", epilog="Example:  modelkeep deployments schedule churn --at 2026-03-15T06:00:00Z --version 4")
def schedule(
    name: Name,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[SETTING=VALUE]...", help="Settings to change.", show_default=False)
    ] = None,
    *,
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="When, with its time zone. Without it: what is scheduled.")
    ] = "",
    number: Version = None,
    split: Splits = None,
    rules: RuleTexts = None,
    no_rules: NoRules = False,
    sticky: Sticky = None,
    shadow: Shadow = None,
    reason: Reason = "",
    cancel: Annotated[str, typer.Option("--cancel", metavar="ID", help="Cancel one that was not made yet.")] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Have a change made later, in your name; list what was scheduled, or cancel one."""
    patch = traffic_of(split or (), None if rules is None and not no_rules else rules or (), sticky, shadow)
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name, interrupted=_SCHEDULED.format(name)) as client:
        if cancel:
            client.cancel_scheduled(name, cancel)
            screen.result({"cancelled": cancel}, lambda: screen.say(f"{cancel} will not be made."))
            return
        if at:
            settings = patch_of(changes) if changes else None
            client.schedule(name, at, version=number, settings=settings, traffic=patch or None, reason=reason)
        found = client.scheduled(name)
    columns = ("id", "at", "state", "by", "change", "revision", "problem", "reason")
    rows: list[list[Cell]] = [
        [one.id, when(one.at), one.state, one.by, _wanted(one), one.revision, one.problem, one.reason] for one in found
    ]
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty="Nothing is scheduled."))


def _wanted(one: "ScheduledChange") -> str:
    return json.dumps({name: value for name, value in one.change.items() if value is not None})


def as_of(
    name: ModelName,
    *,
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="The moment, such as 2026-03-14T09:26:53Z.", show_default=False)
    ],
    deployment: Annotated[
        str | None, typer.Option("--deployment", metavar="NAME", help="This deployment alone.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Show what answered for a model at a moment, who had made it so, and why."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.as_of(name, at, deployment=deployment)
    screen.result(found.raw, lambda: _show_moment(screen, found))


def traffic_of(shares: Sequence[str], rules: Sequence[str] | None, sticky: str | None, shadow: str | None) -> dict[str, Any]:
    """Return what the command line says of traffic as a JSON merge patch. Raises `WrongUse`."""
    patch: dict[str, Any] = {}
    if shares:
        patch["split"] = dict(_share(one) for one in shares)
    if rules is not None:
        patch["rules"] = [_rule(one) for one in rules]
    if sticky is not None:
        patch["sticky"] = None if sticky == _NONE else sticky
    if shadow == _NONE:
        patch["shadow"] = None
    elif shadow is not None:
        version, share = _share(shadow)
        patch["shadow"] = {"version": version, "share": share}
    return patch


def _share(text: str) -> tuple[str, float | None]:
    version, equals, share = text.partition("=")
    if not version or not equals:
        raise WrongUse(f"{text!r} says no share.", "Write it as VERSION=PERCENT, such as 4=5, or 4=none.")
    return version, None if share == _NONE else _number(text, share.removesuffix("%"))


def _number(text: str, share: str) -> float:
    try:
        return float(share)
    except ValueError:
        raise WrongUse(f"{text!r} says no percentage.", "Write it as VERSION=PERCENT, such as 4=5, or 4=none.") from None


def _rule(text: str) -> dict[str, Any]:
    """Return a rule, such as `4 name=beta header=x-plan value=beta percent=50`; raises `WrongUse`."""
    version, *parts = text.split()
    rule: dict[str, Any] = {"version": version}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            how = "Write it as 'VERSION header=NAME value=TEXT', with caller=ID, percent=N and name=TEXT as needed."
            raise WrongUse(f"{part!r} in a rule says nothing.", how)
        if name in _LISTS:
            rule.setdefault(_LISTS[name], []).append(value)
        else:
            rule[name] = _number(part, value) if name == "percent" else value
    return rule


def _row(one: "Revision") -> list[Cell]:
    facts = traffic_facts(one.version, one.traffic)
    told = "; ".join(value if name == "traffic" else f"{name}: {value}" for name, value in facts.items())
    action = one.action if one.restored is None else f"{one.action} to {one.restored}"
    return [one.revision, when(one.at), one.by, action, one.version, told, one.reason]


def _show_moment(screen: Screen, found: "AsOf") -> None:
    columns = ("deployment", "revision", "at", "by", "change", "version", "traffic", "reason")
    rows: list[list[Cell]] = [[one.name, *_row(one)] for one in found.deployments]
    screen.table(columns, rows, empty=f"Nothing of {found.model} was there then.")
    if found.aliases:
        screen.say("aliases: " + ", ".join(f"{name} = version {number}" for name, number in found.aliases.items()))
