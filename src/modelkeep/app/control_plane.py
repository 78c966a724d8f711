"""The control plane's services, put together: what api, worker and courier share.

Of what they are given, `acceptable` is the lowest level of the lock-down that administrators may accept ("" for none), `alone`
what nobody does alone, `rates` what keys' rate classes are, and `trash` how long it keeps what is put there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from modelkeep.contracts.rates import read, read_classes
from modelkeep.contracts.snapshot import Limits, Rate
from modelkeep.control.access import tasks as of_people
from modelkeep.control.access.service import Access
from modelkeep.control.alerts import tasks as of_rollouts
from modelkeep.control.alerts.service import Alerts
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments import tasks
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.feedback.service import Feedback
from modelkeep.control.models.lifecycle import Lifecycle
from modelkeep.control.models.service import Models
from modelkeep.control.replays.service import Replays
from modelkeep.control.rollouts.service import Rollouts
from modelkeep.control.safety.service import Switches, lower_lock_down
from modelkeep.control.schedules.service import Schedules
from modelkeep.control.sessions import tasks as of_users
from modelkeep.control.sessions.service import Sessions
from modelkeep.control.shadows.service import Shadows
from modelkeep.control.users.rules import Classes
from modelkeep.control.users.service import Users
from modelkeep.infra.broadcast import Broadcast
from modelkeep.infra.clock import Clock, utc_now
from modelkeep.infra.db import Database
from modelkeep.infra.events import Events
from modelkeep.infra.idempotency import Idempotency
from modelkeep.infra.jobs import Jobs
from modelkeep.infra.passwords import Passwords
from modelkeep.infra.settings import AccessSettings, LimitSettings, TrashSettings
from modelkeep.infra.site_key import SiteKey

_RATES = LimitSettings()
_ALONE = AccessSettings()
_TRASH = TrashSettings()


@dataclass(frozen=True)
class ControlPlane:
    """All nouns, wired to each other."""

    audit: Audit
    users: Users
    access: Access
    approvals: Approvals
    sessions: Sessions
    switches: Switches
    models: Models
    lifecycle: Lifecycle
    deployments: Deployments
    feedback: Feedback
    replays: Replays
    rollouts: Rollouts
    alerts: Alerts
    shadows: Shadows
    schedules: Schedules
    jobs: Jobs
    events: Events
    idempotency: Idempotency
    passwords: Passwords

    async def tidy(self) -> None:
        """Forget replays and resolved alerts, and purge from the trash, what has had its time."""
        await self.replays.forget()
        await self.alerts.forget()
        await self.lifecycle.expire()


class _Common(TypedDict):
    """What nearly every noun stands on."""

    db: Database
    audit: Audit
    clock: Clock


def control_plane(
    db: Database,
    *,
    ring_worker: Callable[[], object],
    ring_courier: Callable[[], object],
    limits: Limits,
    site: SiteKey,
    acceptable: str = "",
    rates: LimitSettings = _RATES,
    alone: AccessSettings = _ALONE,
    trash: TrashSettings = _TRASH,
    clock: Clock = utc_now,
    passwords: Passwords | None = None,
) -> ControlPlane:
    """Build the nouns over a database; the bells ring after commits that concern worker and courier. See the module."""
    events, jobs = Events(), Jobs(ring_worker, clock)
    audit = Audit(db, clock, lower_lock_down(acceptable), site)
    common: _Common = {"db": db, "audit": audit, "clock": clock}
    passwords = passwords or Passwords()
    users = Users(db, audit, events, clock, passwords, classes=_classes(rates))
    access = Access(db, audit, users, events, clock)
    sessions = Sessions(**common, users=users, events=events, passwords=passwords, site_key=site)
    approvals = Approvals(**common, access=access, users=users, settings=alone)
    switches = Switches(db, audit, approvals, events, clock, acceptable=acceptable)
    models = Models(**common, access=access, approvals=approvals, events=events, jobs=jobs)
    deployments = Deployments(
        **common,
        access=access,
        approvals=approvals,
        models=models,
        switches=switches,
        sessions=sessions,
        events=events,
        broadcast=Broadcast(ring_courier),
        limits=limits,
    )
    feedback = Feedback(**common, access=access, deployments=deployments)
    made = ControlPlane(
        audit=audit,
        users=users,
        access=access,
        approvals=approvals,
        sessions=sessions,
        switches=switches,
        models=models,
        lifecycle=Lifecycle(**common, approvals=approvals, events=events, jobs=jobs, trash=trash),
        deployments=deployments,
        feedback=feedback,
        replays=Replays(**common, models=models, deployments=deployments, jobs=jobs),
        rollouts=Rollouts(
            **common, approvals=approvals, models=models, deployments=deployments, feedback=feedback, events=events
        ),
        alerts=Alerts(**common, models=models, events=events),
        shadows=Shadows(db=db, models=models, deployments=deployments, clock=clock),
        schedules=Schedules(**common, access=access, approvals=approvals, deployments=deployments),
        jobs=jobs,
        events=events,
        idempotency=Idempotency(db, clock),
        passwords=passwords,
    )
    return _listening(made)


def _listening(made: ControlPlane) -> ControlPlane:
    """Have nouns hear what happens below them."""
    of_users.subscribe(made.events, made.sessions)
    of_people.subscribe(made.events, made.access)
    tasks.subscribe(made.events, made.deployments, made.lifecycle)
    of_rollouts.subscribe(made.events, made.alerts, made.rollouts)
    return made


def _classes(rates: LimitSettings) -> Classes:
    return Classes(read(rates.user_rate) or Rate(), read_classes(rates.classes) or {})
