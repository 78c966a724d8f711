"""What a deployment was at each moment: a row for each change, written once, and which of them a rollback goes back to."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Literal

import msgspec

from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.contracts.traffic import Traffic, Trial
from modelkeep.control.deployments.errors import NothingToRollBack
from modelkeep.control.deployments.rules import Deployment
from modelkeep.control.deployments.traffic import answering, gaining, without

Action = Literal["create", "promote", "configure", "route", "change", "rollback", "delete", "present"]
"""What made a revision. `present`: it was there when revisions began to be kept. `change`: more than one thing at once."""

MOST_LOOKED_BACK = 2000
"""How many revisions are looked through for the one to go back to."""


class Revision(msgspec.Struct, frozen=True):
    """How a deployment was from one change to the next, who made it so, when, and why.

    `restored` is the revision that a rollback went back to.
    """

    deployment_id: str
    revision: int
    name: str
    model_id: str
    at: datetime
    by: str
    action: Action
    reason: str
    version_id: str | None
    version: int | None
    settings: DeploymentSettings
    traffic: Traffic
    trial: Trial | None
    restored: int | None = None


class Moment(msgspec.Struct, frozen=True):
    """What a deployment was at a moment. `settings_revision` is the one that brought its settings."""

    revision: Revision
    settings_revision: int


def revision_of(deployment: Deployment, action: Action, reason: str = "", *, restored: int | None = None) -> Revision:
    """Return the row that keeps how a deployment is now."""
    return Revision(
        deployment.id,
        deployment.revision,
        deployment.name,
        deployment.model_id,
        deployment.updated_at,
        deployment.updated_by,
        action,
        reason,
        deployment.version_id,
        deployment.version,
        deployment.settings,
        deployment.traffic,
        deployment.trial,
        restored,
    )


def action_of(before: Deployment, after: Deployment) -> Action:
    """Return what a change is called: by the one thing that was changed, where it is one."""
    if before.version_id != after.version_id:
        return "promote" if before.settings == after.settings and _is_left(before, after) else "change"
    if before.settings == after.settings:
        return "route"
    return "configure" if before.traffic == after.traffic else "change"


def line_of(history: Sequence[Revision]) -> Iterator[Revision]:
    """Yield the present state and what led to it, newest first, from all revisions, newest first.

    What a rollback took back did not lead to what is there now: the line goes on at the revision that was restored.
    """
    ceiling: int | None = None
    for one in history:
        if ceiling is not None and one.revision > ceiling:
            continue
        if one.restored is None:
            ceiling = None
            yield one
        else:
            ceiling = one.restored


def target(history: Sequence[Revision]) -> Revision:
    """Return where a rollback goes back to, of all revisions, newest first; raises `NothingToRollBack`.

    It takes out what came in last and still answers: a promoted version, or those whose shares or rules grew. It goes back to
    the newest state before in which they answered nobody, so that no step of a rollout that is over comes back.
    """
    line = list(line_of(history))
    answers = set() if not line else set(answering(line[0].version_id, line[0].traffic))
    for at, (after, before) in enumerate(pairwise(line)):
        came = answers & _came(before, after)
        if came:
            for older in line[at + 1 :]:
                in_shadow = older.trial is not None and older.trial.shadow
                if older.version_id is None or in_shadow:
                    continue
                if not came & set(answering(older.version_id, older.traffic)):
                    return older
            raise NothingToRollBack
    raise NothingToRollBack


def restore(deployment: Deployment, to: Revision, *, by: str, now: datetime) -> Deployment | None:
    """Return the deployment with the version, settings and traffic of a revision, and no trial; None where it has them."""
    if to.version_id is None:
        raise NothingToRollBack(f"No version answered in revision {to.revision}: there is nothing to go back to.")
    present = (deployment.version_id, deployment.settings, deployment.traffic, deployment.trial)
    if present == (to.version_id, to.settings, to.traffic, None):
        return None
    promoted = deployment.version_id != to.version_id
    return msgspec.structs.replace(
        deployment,
        version_id=to.version_id,
        version=to.version,
        previous_version_id=deployment.version_id if promoted else deployment.previous_version_id,
        previous_version=deployment.version if promoted else deployment.previous_version,
        settings=to.settings,
        traffic=to.traffic,
        trial=None,
        revision=deployment.revision + 1,
        updated_at=max(now, deployment.updated_at),
        updated_by=by,
    )


def _came(before: Revision, after: Revision) -> set[str]:
    """Return the versions that a change gave users to."""
    came = gaining(after.version_id, before.traffic, after.traffic)
    if after.version_id is not None and after.version_id != before.version_id:
        came.add(after.version_id)
    return came


def _is_left(before: Deployment, after: Deployment) -> bool:
    """Whether traffic is what a promotion alone leaves of it."""
    return after.version_id is not None and after.traffic == without(before.traffic, after.version_id)
