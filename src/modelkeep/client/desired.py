"""What an installation is to answer with, as one document: exported, compared with what is there, and applied.

    modelkeep: 1
    models:
      churn: {description: Who will leave next month?, aliases: {champion: 3}}
    deployments:
      churn: {model: churn, version: 3, settings: {deadline_s: 2}, traffic: {split: {"4": 5}, sticky: key}}

Of what it names the document is the whole truth: settings that are not in it go back to their defaults, shares that are not in
it end. What it does not name is left as it is, unless that is to be pruned. Each change is made only if what it changes is as
it was planned for, so that two who apply at once do not overwrite each other unseen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from modelkeep.client import aliases as of_aliases
from modelkeep.client import models as of_models
from modelkeep.client.errors import Field, Invalid
from modelkeep.client.results import Deployment
from modelkeep.client.server import Server, if_match, part
from modelkeep.client.steps import Steps

FORMAT: Final = 1
_TOP: Final = ("modelkeep", "models", "deployments")
_OF_A_MODEL: Final = ("description", "aliases")
_OF_A_DEPLOYMENT: Final = ("model", "version", "settings", "traffic")
_KINDS: Final = {"description": str, "aliases": Mapping, "model": str, "version": int, "settings": Mapping, "traffic": Mapping}
_WORDS: Final = {str: "A text", Mapping: "A group of names and values", int: "A whole number above 0"}
_NO_TRAFFIC: Final[Mapping[str, Any]] = {"split": {}, "rules": [], "sticky": "", "shadow": None}


class Difference(NamedTuple):
    """One value that is to change; None where there is, or will be, none."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    """What is to be done to one thing: `what` names it, `action` is create, change or delete."""

    action: str
    kind: str
    name: str
    differences: tuple[Difference, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict, repr=False)
    revision: int | None = None

    @property
    def raw(self) -> dict[str, Any]:
        """The change as JSON."""
        found = [{"path": one.path, "before": one.before, "after": one.after} for one in self.differences]
        return {"action": self.action, "kind": self.kind, "name": self.name, "differences": found}


def export(server: Server) -> Steps[dict[str, Any]]:
    """Return the document of what is there now, as far as the caller may see it; applied again it changes nothing."""
    models = yield from of_models.models(server)
    deployments = yield from _deployments(server)
    return {
        "modelkeep": FORMAT,
        "models": {one.name: {"description": one.description, "aliases": dict(one.aliases)} for one in models},
        "deployments": {
            one.name: {"model": one.model}
            | ({} if one.version is None else {"version": one.version})
            | {"settings": one.settings, "traffic": _traffic(one)}
            for one in deployments.values()
        },
    }


def compare(server: Server, document: object, *, prune: bool = False) -> Steps[list[Change]]:
    """Return what has to be done for an installation to be as `document` says, in the order in which it has to be done.

    With `prune`, aliases of its models and deployments that it does not name are deleted, but for a model's own deployment.
    Raises `Invalid` with the place of each fault, `NotFound` for models that are not there.
    """
    wanted = checked(document)
    there = yield from _deployments(server)
    changes: list[Change] = []
    for name, model in wanted["models"].items():
        changes += yield from _of_model(server, name, model, prune=prune)
    for name, one in wanted["deployments"].items():
        changes += yield from _of_deployment(server, name, one, there.get(name))
    if prune:
        named = {*wanted["deployments"], *(one.model for one in there.values())}
        changes += [
            Change("delete", "deployment", name, revision=one.revision) for name, one in there.items() if name not in named
        ]
    return sorted(
        changes, key=lambda change: change.kind == "alias"
    )  # an alias may need nothing of a deployment: it comes last


def apply(server: Server, change: Change) -> Steps[None]:
    """Make one planned change; raises `Stale` where what it changes was changed since."""
    if change.kind == "model":
        yield from of_models.describe(server, change.name, change.asked["description"])
    elif change.kind == "alias":
        model, alias = change.asked["model"], change.asked["alias"]
        if change.action == "delete":
            yield from of_aliases.delete_alias(server, model, alias, revision=change.revision)
        else:
            yield from of_aliases.set_alias(server, model, alias, change.asked["version"], revision=change.revision)
    elif change.action == "create":
        yield from server.document("POST", "/deployments", change.asked)
    else:
        path, headers = f"/deployments/{part(change.name)}", if_match(change.revision)
        if change.action == "delete":
            yield from server.document("DELETE", path, headers=headers)
        else:
            yield from server.document("PATCH", path, change.asked, headers=headers)


def checked(document: object) -> dict[str, Any]:
    """Return a document with all its groups; raises `Invalid` with each fault and its place."""
    faults = list(_faults(document))
    if faults:
        one = faults[0]
        raise Invalid(f"{one.path}: {one.message}" if one.path else one.message, code="invalid_document", fields=faults)
    assert isinstance(document, Mapping)  # noqa: S101 - a fault otherwise
    return {"models": document.get("models") or {}, "deployments": document.get("deployments") or {}}


def _faults(document: object) -> Iterator[Field]:
    if not isinstance(document, Mapping):
        yield Field("", "wrong_type", "The document is a group of names: modelkeep, models, deployments.")
        return
    yield from _unknown(document, _TOP, "")
    if document.get("modelkeep") != FORMAT:
        yield Field("modelkeep", "wrong_format", f"`modelkeep: {FORMAT}` says which form the document has, and is needed.")
    for group, names in (("models", _OF_A_MODEL), ("deployments", _OF_A_DEPLOYMENT)):
        entries = document.get(group)
        if entries is None:
            continue
        if not isinstance(entries, Mapping):
            yield Field(group, "wrong_type", "A group of names and values goes here.")
            continue
        for name, entry in entries.items():
            yield from _faults_of(entry if entry is not None else {}, names, f"{group}.{name}")


def _faults_of(entry: object, names: tuple[str, ...], place: str) -> Iterator[Field]:
    if not isinstance(entry, Mapping):
        yield Field(place, "wrong_type", f"A group goes here: {', '.join(names)}.")
        return
    yield from _unknown(entry, names, f"{place}.")
    for name in names:
        value = entry.get(name)
        if value is not None and not _is(value, _KINDS[name]):
            yield Field(f"{place}.{name}", "wrong_type", f"{_WORDS[_KINDS[name]]} goes here.")
    aliases = entry.get("aliases")
    for alias, number in aliases.items() if isinstance(aliases, Mapping) else ():
        if not _is(number, int):
            yield Field(f"{place}.aliases.{alias}", "wrong_type", "The number of a version goes here.")


def _is(value: object, kind: type) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value > 0
    return isinstance(value, kind)


def _unknown(group: Mapping[str, Any], known: tuple[str, ...], place: str) -> Iterator[Field]:
    for name in group:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            yield Field(f"{place}{name}", "unknown_name", f"There is no such name.{meant} There are: {', '.join(known)}.")


def _deployments(server: Server) -> Steps[dict[str, Deployment]]:
    found = yield from server.items("/deployments", Deployment.read)
    return {one.name: one for one in found}


def _of_model(server: Server, name: str, wanted: Mapping[str, Any] | None, *, prune: bool) -> Steps[list[Change]]:
    wanted = wanted or {}
    changes = []
    present = yield from of_models.model(server, name)
    described = wanted.get("description")
    if described is not None and described != present.description:
        difference = Difference("description", present.description, described)
        changes.append(Change("change", "model", name, (difference,), {"description": described}))
    aliases = wanted.get("aliases")
    if aliases is None:
        return changes
    there = {one.name: one for one in (yield from of_aliases.aliases(server, name))}
    for alias, version in aliases.items():
        before = there.get(alias)
        if before is None or before.version != version:
            difference = Difference("version", None if before is None else before.version, version)
            asked = {"model": name, "alias": alias, "version": version}
            revision = 0 if before is None else before.revision
            action = "create" if before is None else "change"
            changes.append(Change(action, "alias", f"{name} {alias}", (difference,), asked, revision))
    for alias in sorted(there.keys() - aliases.keys()) if prune else ():
        difference = Difference("version", there[alias].version, None)
        asked = {"model": name, "alias": alias}
        changes.append(Change("delete", "alias", f"{name} {alias}", (difference,), asked, there[alias].revision))
    return changes


def _of_deployment(
    server: Server, name: str, wanted: Mapping[str, Any] | None, present: Deployment | None
) -> Steps[list[Change]]:
    wanted = wanted or {}
    if present is None:
        asked = {"name": name, "model": wanted.get("model", name)}
        asked |= {key: wanted[key] for key in ("version", "settings", "traffic") if wanted.get(key)}
        return [Change("create", "deployment", name, tuple(_flat(asked)), asked)]
    if wanted.get("model", present.model) != present.model:
        place = f"deployments.{name}.model"
        message = f"It is a deployment of {present.model}, and stays one: give the other model a deployment of another name."
        raise Invalid(f"{place}: {message}", code="invalid_document", fields=(Field(place, "other_model", message),))
    asked = _patch(wanted, present)
    if not asked:
        return []
    planned = yield from server.document("POST", f"/deployments/{part(name)}/plan", asked, repeat=True)
    differences = tuple(Difference(one["path"], one["before"], one["after"]) for one in planned["changes"])
    return [Change("change", "deployment", name, differences, asked, planned["revision"])] if differences else []


def _patch(wanted: Mapping[str, Any], present: Deployment) -> dict[str, Any]:
    """Return what has to be asked for, so that a deployment becomes what is wanted; what is not in it, becomes the default."""
    asked: dict[str, Any] = {}
    if wanted.get("version") is not None and wanted["version"] != present.version:
        asked["version"] = wanted["version"]
    if wanted.get("settings") is not None:
        asked["settings"] = merge_patch(present.settings, wanted["settings"])
    if wanted.get("traffic") is not None:
        after = {**_NO_TRAFFIC, **wanted["traffic"]}
        asked["traffic"] = merge_patch(_traffic(present), {name: after[name] for name in after if after[name] != {}})
    return {name: patch for name, patch in asked.items() if patch != {}}


def _traffic(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment's traffic as one would write it."""
    found: Mapping[str, Any] = deployment.raw.get("traffic") or {}
    return {name: found.get(name, empty) for name, empty in _NO_TRAFFIC.items()}


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) that makes `after` of `before`: null for what is not in it any more."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        was = before.get(name)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            inner = merge_patch(was, value)
            if inner:
                patch[name] = inner
        elif value != was or name not in before:
            patch[name] = value
    return patch


def _flat(group: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield Difference(f"{path}{name}", None, value)
