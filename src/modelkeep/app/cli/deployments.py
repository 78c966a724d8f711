"""Commands about deployments: which there are, how one answers, and changing its settings. Others are in `releases.py`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.completion import deployment_names
from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen, when

if TYPE_CHECKING:
    from modelkeep.client import Deployment, Plan

_FIELDS = "recording.fields."  # what follows is one name, dots and all
_DEFAULT = "default"
_WHOLE = 100
_MIB = 1 << 20
_CACHED = (
    ("hits", "hit", "hits"),
    ("shared", "shared with one under way", "shared with one under way"),
    ("misses", "miss", "misses"),
    ("bypassed", "bypassed", "bypassed"),
)
_HOW = "Write it as NAME=VALUE, such as batching.mode=off; `modelkeep deployments show NAME` lists the names."

OUT_OF_RANGE = {  # what the one value outside a setting's range stands for
    "deadline_s": (0, "the installation's"),
    "batching.max_rows": (0, "the installation's"),
    "batching.max_wait_ms": (-1, "by the cost"),
    "batching.latency_target_ms": (0, "none"),
    "replicas.max": (0, "as many as cores"),
    "concurrency": (0, "the installation's"),
    "rate.per_minute": (0, "unlimited"),
    "rate.burst": (0, "a sixth of a minute's"),
}

deployments = typer.Typer(
    invoke_without_command=True,
    help="List deployments, show and change one, and go back.",
    epilog="Example:  modelkeep deployments",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the deployment.", show_default=False, autocompletion=deployment_names),
]

Planned = Annotated[bool, typer.Option("--plan", metavar="", help="Only say what it would change.")]


@deployments.callback()
def list_deployments(context: typer.Context, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List deployments, show and change one, and go back."""
    if context.invoked_subcommand is not None:
        return
    screen = Screen(as_json=as_json)
    with connected(url, key) as client:
        found = client.deployments()
    rows: list[list[Cell]] = [
        [one.name, one.model, one.version, one.revision, when(one.updated_at), one.updated_by] for one in found
    ]
    columns = ("name", "model", "version", "revision", "updated", "by")
    empty = "No deployments yet. `modelkeep push FILE --name NAME` makes a model, and one of its name."
    screen.result([one.raw for one in found], lambda: screen.table(columns, rows, empty=empty))


@deployments.command("show", epilog="Example:  modelkeep deployments show churn")
def show(name: Name, *, url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show what a deployment answers with, and its settings."""
    screen = Screen(as_json=as_json)
    with connected(url, key, model=name) as client:
        found = client.deployment(name)
    screen.result(found.raw, lambda: show_deployment(screen, found))


@deployments.command("set", epilog="Example:  modelkeep deployments set churn batching.mode=off deadline_s=2")
def configure(
    name: Name,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="SETTING=VALUE",
            help="The settings to change; the value `default` brings a default back.",
            show_default=False,
        ),
    ],
    *,
    revision: Annotated[
        int | None, typer.Option("--revision", min=0, metavar="N", help="Only if nobody has changed it since this revision.")
    ] = None,
    planned: Planned = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Change settings of a deployment; those that are not named stay as they are."""
    patch = patch_of(changes)
    screen = Screen(as_json=as_json)
    if planned:
        with connected(url, key, model=name) as client:
            plan = client.plan(name, settings=patch)
        screen.result(plan.raw, lambda: show_plan(screen, plan))
        return
    look = f"`modelkeep deployments show {name}` "
    with (
        connected(url, key, model=name, interrupted=f"It may be changed already: {look}tells.") as client,
        refined("stale", f"{look}tells how it is now."),
    ):
        changed = client.configure(name, patch, revision=revision)
    screen.result(changed.raw, lambda: show_deployment(screen, changed))


def patch_of(changes: Sequence[str]) -> dict[str, Any]:
    """Return what `batching.mode=off deadline_s=2` says as a JSON merge patch. Raises `WrongUse`."""
    patch: dict[str, Any] = {}
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise WrongUse(f"{change!r} says no value.", _HOW)
        group = patch
        *groups, last = (
            [*_FIELDS.rstrip(".").split("."), path.removeprefix(_FIELDS)] if path.startswith(_FIELDS) else path.split(".")
        )
        for one in groups:
            group = group.setdefault(one, {})
            if not isinstance(group, dict):
                raise WrongUse(f"{path} is set beside {one} itself.", _HOW)
        group[last] = _value(text)
    return patch


def _value(text: str) -> Any:  # noqa: ANN401 - a JSON value
    """Return a number, true, false or a text; None for the word that means the default."""
    if text == _DEFAULT:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_plain = isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else text  # what is no value of a setting is for the server to refuse, in its words


def show_plan(screen: Screen, plan: "Plan") -> None:
    """Show what a change would do."""
    if not plan.changes:
        screen.say("That changes nothing.")
        return
    for one in plan.changes:
        screen.say(f"{one['path']}: {_short(one['before'])} -> {_short(one['after'])}")
    for part in plan.answering:
        word = "begins to answer" if part["begins"] else "stops answering" if part["stops"] else "goes on"
        rules = f", by {part['rules_after']} rules" if part["rules_after"] else ""
        screen.say(f"version {part['version']} {word}: {part['share_before']:g} % -> {part['share_after']:g} %{rules}")
    screen.say(f"Nothing is changed yet; the deployment is at revision {plan.revision}.")
    if plan.needs_approval:
        screen.say("It needs a second person: repeated without --plan, it asks for one.")


def _short(value: Any) -> str:  # noqa: ANN401 - a JSON value
    return "none" if value is None else value if isinstance(value, str) and value else json.dumps(value)


def traffic_facts(promoted: int | None, traffic: Mapping[str, Any]) -> dict[str, str]:
    """Return who is answered by what beside the promoted version, as facts to show."""
    split, rules, shadow = traffic.get("split") or {}, traffic.get("rules") or [], traffic.get("shadow")
    left = 100 - sum(split.values())
    shares = [f"{share:g} % version {number}" for number, share in split.items()]
    facts = {"traffic": ", ".join([*shares, f"{left:g} % version {promoted}"])} if split else {}
    for one in rules:
        said = (
            [f"header {one['header']}" + (f" = {' or '.join(one['values'])}" if one["values"] else "")] if one["header"] else []
        )
        said += [" or ".join(one["callers"])] if one["callers"] else []
        said += [f"{one['percent']:g} % of these"] if one["percent"] != _WHOLE else []
        facts[f"rule {one['name'] or len(facts)}"] = f"version {one['version']}: {', '.join(said)}"
    if traffic.get("sticky"):
        facts["sticky"] = traffic["sticky"]
    if shadow:
        facts["shadow"] = f"version {shadow['version']}, {shadow['share']:g} %"
    return facts


def show_deployment(screen: Screen, deployment: "Deployment") -> None:
    """Show a deployment: what answers, and every setting."""
    screen.facts(
        {
            "name": deployment.name,
            "model": deployment.model,
            "version": deployment.version or "none yet",
            "revision": deployment.revision,
            "updated": f"{when(deployment.updated_at)} by {deployment.updated_by}",
            **traffic_facts(deployment.version, deployment.traffic),
            **cache_facts(deployment.cache),
            **dict(_flat(deployment.settings)),
        }
    )


def cache_facts(cache: Mapping[str, Any]) -> dict[str, str]:
    """Return what the cache did, as facts to show; none of an older server."""
    if not cache:
        return {}
    if cache.get("ratio") is None:
        return {"cache": cache["said"]}
    parts = [f"{cache[name]} {one if cache[name] == 1 else many}" for name, one, many in _CACHED]
    return {"cache": f"{cache['said']}: {', '.join(parts)}; {cache['bytes'] / _MIB:.1f} MiB"}


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", _told(f"{path}{name}", value)


def _told(path: str, value: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return a value as text; where it stands for something, that as well."""
    text = value if isinstance(value, str) else json.dumps(value)
    alone, meaning = OUT_OF_RANGE.get(path, (None, ""))
    return f"{text} ({meaning})" if value == alone else text
