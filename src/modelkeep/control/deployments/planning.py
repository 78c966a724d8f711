"""A change of a deployment before it is made: what it would be, what differs, who begins to answer, whether two must agree."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from modelkeep.contracts.access import Place, Scope
from modelkeep.contracts.signature import Signature
from modelkeep.control.approvals.rules import Act
from modelkeep.control.deployments.configuration import merged
from modelkeep.control.deployments.errors import RolloutRunning
from modelkeep.control.deployments.rules import Deployment, configure, goes_back, promote, promotion, route
from modelkeep.control.deployments.traffic import answering, document, gaining, rerouted
from modelkeep.control.models.rules import Version


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody wants to have changed at once: a version to promote, and merge patches of settings and of traffic."""

    version: int | None = None
    settings: dict[str, Any] | None = None
    traffic: dict[str, Any] | None = None


NOTHING: Final = Change()


class Difference(msgspec.Struct, frozen=True):
    """One thing that a change makes otherwise. What is not there, before or after, is None."""

    path: str
    before: Any
    after: Any


class Part(msgspec.Struct, frozen=True):
    """What a version answers before and after a change: a share in percent of whom no rule is for, and so many rules."""

    version: int
    share_before: float
    share_after: float
    rules_before: int
    rules_after: int
    begins: bool
    stops: bool


class Plan(msgspec.Struct, frozen=True):
    """What a change would do to a deployment that is at this revision."""

    revision: int
    changes: list[Difference]
    answering: list[Part]
    needs_approval: bool


def changed(
    present: Deployment,
    change: Change,
    *,
    version: Version | None,
    signature: Signature | None,
    versions: Mapping[str, str],
    by: str,
    now: datetime,
) -> Deployment | None:
    """Return the deployment as it is after a change, one revision on; None where that changes nothing.

    `version` is the one to promote, `signature` that of the one which answers afterwards, `versions` are ids by what the patch
    of traffic calls them. Raises `InvalidSettings` and `InvalidTraffic`, and `RolloutRunning` where a rollout is at a step.
    """
    if present.trial is not None and (change.version is not None or change.traffic is not None):
        raise RolloutRunning
    after = present
    if version is not None:
        after = promote(after, version.id, version.number, expected=None, by=by, now=now) or after
    if change.settings is not None:
        settings = merged(after.settings, change.settings, signature)
        after = configure(after, settings, expected=None, by=by, now=now) or after
    if change.traffic is not None:
        traffic = rerouted(after.traffic, change.traffic, versions, promoted=after.version_id)
        after = route(after, traffic, trial=after.trial, by=by, now=now) or after
    return None if after is present else msgspec.structs.replace(after, revision=present.revision + 1)


def act_of(present: Deployment, after: Deployment, place: Place, numbers: Mapping[str, int]) -> Act | None:
    """Return a change as what two people may have to agree to; None where it gives no version any users that it had not."""
    came = gaining(after.version_id, present.traffic, after.traffic)
    version_id, number = after.version_id, after.version
    if version_id is not None and number is not None and version_id != present.version_id and not goes_back(present, number):
        if not came and after.settings == present.settings:
            return promotion(present, version_id, number, place)
        came.add(version_id)
    if not came:
        return None
    now, then = (_told(one, numbers) for one in (present, after))
    return Act(
        "promotion",
        "deployment.route",
        present.id,
        f"Have {present.name} answered by {then}; it is answered by {now} now.",
        Scope.DEPLOYMENTS_WRITE,
        place,
        seen=(present.revision, after.version_id, after.settings, after.traffic),
    )


def differences(before: Deployment, after: Deployment, numbers: Mapping[str, int]) -> list[Difference]:
    """Return all that differs, each with its path; `numbers` are those of versions by id."""
    one, other = (dict(_flat(shown(deployment, numbers))) for deployment in (before, after))
    paths = sorted(one.keys() | other.keys())
    return [Difference(path, one.get(path), other.get(path)) for path in paths if one.get(path) != other.get(path)]


def parts(before: Deployment, after: Deployment, numbers: Mapping[str, int]) -> list[Part]:
    """Return what each version answers before and after, by number."""
    was, now = (answering(one.version_id, one.traffic) for one in (before, after))
    found = []
    for version_id in sorted(was.keys() | now.keys(), key=lambda one: numbers[one]):
        share_before, rules_before = was.get(version_id, (0.0, 0))
        share_after, rules_after = now.get(version_id, (0.0, 0))
        answered, answers = bool(share_before or rules_before), bool(share_after or rules_after)
        begins, stops = answers and not answered, answered and not answers
        found.append(Part(numbers[version_id], share_before, share_after, rules_before, rules_after, begins, stops))
    return found


def shown(deployment: Deployment, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return what a change may change of a deployment, as answers show it."""
    return {
        "version": deployment.version,
        "settings": _whole(deployment.settings),
        "traffic": document(deployment.traffic, numbers),
    }


def entries_of(
    before: Deployment, after: Deployment, action: str, restored: int | None
) -> Iterator[tuple[str, str | None, str, dict[str, str]]]:
    """Yield what the audit trail keeps of a change: of each thing its action, how it was and is, and what else is to say."""
    was, now = (None if one.version is None else str(one.version) for one in (before, after))
    traffic = {"before": _json(before.traffic), "after": _json(after.traffic)} if before.traffic != after.traffic else {}
    if action == "rollback":
        said = {f"traffic_{name}": text for name, text in traffic.items()}
        if before.settings != after.settings:
            said |= {"settings_before": _settings(before), "settings_after": _settings(after)}
        yield "rollback", was, now or "", {"to": str(restored), **said}
        return
    if before.version_id != after.version_id:
        yield "promote", was, now or "", {"version": now or ""}
    if before.settings != after.settings:
        yield "configure", _settings(before), _settings(after), {}
    if traffic or before.trial != after.trial:
        yield "route", _json(before.traffic), _json(after.traffic), {}


def version_ids(*deployments: Deployment) -> set[str]:
    """Return the ids of all versions that these name."""
    named = {one.version_id for one in deployments if one.version_id is not None}
    return named | {version_id for one in deployments for version_id in one.traffic.version_ids}


def _whole(settings: msgspec.Struct) -> dict[str, Any]:
    """Return settings with those that are at their defaults."""
    said = msgspec.structs.asdict(settings)
    return {name: _whole(value) if isinstance(value, msgspec.Struct) else value for name, value in said.items()}


def _flat(shown: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in shown.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _json(traffic: msgspec.Struct) -> str:
    return msgspec.json.encode(traffic).decode()


def _settings(deployment: Deployment) -> str:
    """Return settings as the audit trail keeps them: JSON of what differs from the defaults."""
    differing = {name: value for name, value in msgspec.to_builtins(deployment.settings).items() if value != {}}
    return msgspec.json.encode(differing).decode()


def _told(deployment: Deployment, numbers: Mapping[str, int]) -> str:
    found = answering(deployment.version_id, deployment.traffic)
    told = [
        f"version {numbers[version_id]} ({share:g} %{f', {rules} rules' if rules else ''})"
        for version_id, (share, rules) in sorted(found.items(), key=lambda one: numbers[one[0]])
    ]
    return ", ".join(told) or "none"
