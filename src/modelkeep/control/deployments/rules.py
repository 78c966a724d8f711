"""Deployments as values, what a promotion changes, and how the snapshot for serving is put together."""

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import msgspec

from modelkeep.contracts.access import INSTALLATION, Place, Scope
from modelkeep.contracts.confinement import Level
from modelkeep.contracts.prediction import CacheSeen, Heartbeat
from modelkeep.contracts.snapshot import (
    DeploymentSettings,
    Limits,
    RunnerSpec,
    ServedDeployment,
    ServedKey,
    ServedVersion,
    Snapshot,
    Trust,
)
from modelkeep.contracts.traffic import Traffic, Trial
from modelkeep.control.approvals.rules import Act
from modelkeep.control.deployments.errors import CannotBeServed, DeploymentStale, InvalidReason
from modelkeep.control.deployments.traffic import without
from modelkeep.control.models.rules import Version

LONGEST_REASON: Final = 1000
_NO_ALIASES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({})
_NO_PLACES: Final[Mapping[str, Place]] = MappingProxyType({})
_NOBODY: Final = Trust()
RUNS_ANY_CODE: Final = frozenset({"python", "mlflow"})
"""Runners of formats that are code of the uploader's: it may answer by the clock, or by what somebody else says."""


class Deployment(msgspec.Struct, frozen=True):
    """A named place that answers predictions with a version of a model, and with others as its traffic says.

    Its revision counts its changes. While a rollout is at one of its steps, `trial` is what servers count of it.
    """

    id: str
    name: str
    model_id: str
    model: str
    revision: int
    updated_at: datetime
    updated_by: str
    version_id: str | None = None
    version: int | None = None
    previous_version_id: str | None = None
    previous_version: int | None = None
    settings: DeploymentSettings = msgspec.field(default_factory=DeploymentSettings)
    traffic: Traffic = Traffic()
    trial: Trial | None = None


class Serving(msgspec.Struct, frozen=True):
    """What one server last said it answers with in a deployment. `failing` says why it cannot serve the promoted version.

    `cache` is what it told of the answers that it keeps, None where it told nothing.
    """

    server: str
    snapshot: int
    version: int | None
    at: datetime
    failing: str = ""
    cache: CacheSeen | None = None


def promote(
    deployment: Deployment, version_id: str, number: int, *, expected: int | None, by: str, now: datetime
) -> Deployment | None:
    """Return the deployment as it is after promoting a version; None when it serves that version already.

    What the version had a share of is part of what it has now, and no trial goes on. `expected` is the revision that whoever
    asks has seen.
    """
    check_revision(deployment, expected)
    if deployment.version_id == version_id:
        return None
    return msgspec.structs.replace(
        deployment,
        version_id=version_id,
        version=number,
        previous_version_id=deployment.version_id,
        previous_version=deployment.version,
        traffic=without(deployment.traffic, version_id),
        trial=None,
        revision=deployment.revision + 1,
        updated_at=_later(deployment, now),
        updated_by=by,
    )


def goes_back(deployment: Deployment, number: int) -> bool:
    """Whether promoting this version takes the last promotion of a newer one back; what was taken back so is new again."""
    return deployment.version is not None and number == deployment.previous_version and number < deployment.version


def promotion(deployment: Deployment, version_id: str, number: int, place: Place) -> Act:
    """Return promoting a version as what two people may have to agree to."""
    present = "none" if deployment.version is None else f"version {deployment.version}"
    return Act(
        "promotion",
        "deployment.promote",
        deployment.id,
        f"Promote {deployment.name} to version {number}; {present} answers now.",
        Scope.DEPLOYMENTS_WRITE,
        place,
        seen=(deployment.revision, version_id),
    )


def configure(
    deployment: Deployment, settings: DeploymentSettings, *, expected: int | None, by: str, now: datetime
) -> Deployment | None:
    """Return the deployment as it is with these settings; None when it has them already. `expected` as in `promote`."""
    check_revision(deployment, expected)
    if settings == deployment.settings:
        return None
    return msgspec.structs.replace(
        deployment, settings=settings, revision=deployment.revision + 1, updated_at=_later(deployment, now), updated_by=by
    )


def route(
    deployment: Deployment, traffic: Traffic, *, trial: Trial | None, by: str, now: datetime, expected: int | None = None
) -> Deployment | None:
    """Return the deployment as it is with this traffic and trial; None when it has them already. `expected` as in `promote`."""
    check_revision(deployment, expected)
    if (traffic, trial) == (deployment.traffic, deployment.trial):
        return None
    return msgspec.structs.replace(
        deployment,
        traffic=traffic,
        trial=trial,
        revision=deployment.revision + 1,
        updated_at=_later(deployment, now),
        updated_by=by,
    )


def end(deployment: Deployment, *, by: str, now: datetime) -> Deployment:
    """Return the last revision of a deployment that is deleted."""
    revision, at = deployment.revision + 1, _later(deployment, now)
    return msgspec.structs.replace(deployment, revision=revision, updated_at=at, updated_by=by)


def deleting(deployment: Deployment, place: Place) -> Act:
    """Return deleting a deployment as what two people may have to agree to."""
    said = f"Delete the deployment {deployment.name} of {deployment.model}."
    seen = deployment.revision
    return Act("deletion", "deployment.delete", deployment.id, said, Scope.DEPLOYMENTS_WRITE, place, seen=seen)


def check_revision(deployment: Deployment, expected: int | None) -> None:
    """Raise `DeploymentStale` where the deployment is not at the revision that whoever asks has seen; None for any."""
    if expected is not None and expected != deployment.revision:
        raise DeploymentStale(
            f"The deployment is at revision {deployment.revision} now: read it again, then repeat the change.",
            revision=deployment.revision,
        )


def check_reason(text: str) -> str:
    """Return what somebody says a change is for."""
    if len(text) > LONGEST_REASON or "\0" in text:
        raise InvalidReason
    return text.strip()


def _later(deployment: Deployment, now: datetime) -> datetime:
    """Return when a change is made: never before the last one, whatever a clock that was set says."""
    return max(now, deployment.updated_at)


def serving(deployment: Deployment, heartbeats: Iterable[Heartbeat], numbers: dict[str, int]) -> list[Serving]:
    """Return what each server says it answers with in this deployment; `numbers` are version numbers by id."""
    return [
        Serving(
            beat.server,
            beat.snapshot,
            numbers.get(beat.serving.get(deployment.name, "")),
            datetime.fromtimestamp(beat.at, UTC),
            beat.failing.get(deployment.version_id or "", ""),
            beat.cache.get(deployment.name),
        )
        for beat in heartbeats
    ]


def is_settled(
    name: str, version_id: str | None, number: int, heartbeats: Iterable[Heartbeat], *, beside: Iterable[str] = ()
) -> bool:
    """Whether every server has applied snapshot `number`, and answers for the deployment with this version (None: not at all).

    `beside` are the versions that answer some of its requests: a server that has applied a snapshot has those loaded, or has
    given them up. Raises `CannotBeServed` where one has given up the version, or one of these.
    """
    settled, others = True, tuple(beside)
    for beat in heartbeats:
        reason = beat.failing.get(version_id or "")
        other = next((beat.failing[one] for one in others if one in beat.failing), "")
        if beat.snapshot < number:
            settled = False
        elif reason:
            raise CannotBeServed(f"The promoted version cannot be served: {reason}", retry_after_s=5)
        elif other:
            raise CannotBeServed(f"A version that answers beside the promoted one cannot be served: {other}", retry_after_s=5)
        elif beat.serving.get(name) != version_id:
            settled = False
    return settled


def served_version(version: Version, labels: tuple[str, ...], limits: Limits) -> ServedVersion | None:
    """Return a version as serving sees it; None while it has no signature, and so cannot serve."""
    if version.signature is None:
        return None
    file, said = version.compiled or version, version.deprecation
    spec = RunnerSpec(
        version_id=version.id,
        digest=file.digest,
        size=file.size,
        format=file.format,
        runner=file.runner,
        signature=version.signature,
        image=version.image,
        limits=limits,
        memory_bytes=version.report.served_bytes if version.report else 0,
        golden=version.report.golden if version.report else "",
        precision=version.compiled.precision if version.compiled else "f32",
        hooks=version.hooks,
        threads=version.compiled.threads if version.compiled else 0,
    )
    return ServedVersion(
        id=version.id,
        model=version.model,
        number=version.number,
        spec=spec,
        signature=version.signature,
        framework=version.report.framework if version.report else "",
        labels=labels,
        scores=version.scores,
        created_at=version.created_at.isoformat(),
        cost_ms=version.report.cost_ms if version.report else {},
        independent=version.report.independent if version.report else True,
        repeatable=(
            version.report is not None
            and version.report.deterministic
            and version.hooks is None
            and file.runner not in RUNS_ANY_CODE
        ),
        deprecated_at=said.since.timestamp() if said else None,
        sunset_at=said.sunset.timestamp() if said and said.sunset else None,
        successor=(said.successor or 0) if said else 0,
    )


def compile_snapshot(
    number: int,
    now: datetime,
    deployments: Iterable[Deployment],
    versions: Iterable[ServedVersion],
    keys: tuple[ServedKey, ...],
    *,
    accepted: Level | None = None,
    aliases: Mapping[str, Mapping[str, str]] = _NO_ALIASES,
    places: Mapping[str, Place] = _NO_PLACES,
    trust: Trust = _NOBODY,
) -> Snapshot:
    """Put together everything that serving needs to answer.

    `aliases` are version ids by name, by the id of their model; `places` says whose each model is, by its id.
    """
    known = {version.id: version for version in versions}
    answering = [
        ServedDeployment(
            one.name,
            one.version_id,
            one.revision,
            one.settings,
            _served(aliases.get(one.model_id, {}), known),
            places.get(one.model_id, INSTALLATION),
            one.id,
            _answered(one.traffic, known),
            one.trial,
        )
        for one in sorted(deployments, key=lambda one: one.name)
        if one.version_id is not None and one.version_id in known
    ]
    served = sorted(
        {id_ for one in answering for id_ in (one.version_id, *one.aliases.values(), *one.traffic.version_ids)},
    )
    return Snapshot(number, now.timestamp(), tuple(answering), tuple(known[one] for one in served), keys, accepted, trust)


def _served(aliases: Mapping[str, str], known: Container[str]) -> dict[str, str]:
    return {name: version_id for name, version_id in aliases.items() if version_id in known}


def _answered(traffic: Traffic, known: Container[str]) -> Traffic:
    """Return the traffic without versions that cannot serve: what they would have had, the promoted one has."""
    return Traffic(
        tuple(one for one in traffic.splits if one.version_id in known),
        tuple(one for one in traffic.rules if one.version_id in known),
        traffic.sticky,
        traffic.shadow if traffic.shadow is not None and traffic.shadow.version_id in known else None,
    )
