"""What the routes call: the nouns' services, the blob store, and what can be uploaded. Handed in when the app is made."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from modelkeep.api.settings import ApiSettings
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.access.service import Access
from modelkeep.control.alerts.service import Alerts
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.feedback.service import Feedback
from modelkeep.control.identities.service import Identities
from modelkeep.control.links.service import Links
from modelkeep.control.models.lifecycle import Lifecycle
from modelkeep.control.models.rules import Formats
from modelkeep.control.models.service import Models
from modelkeep.control.predictions.service import Predictions
from modelkeep.control.replays.service import Replays
from modelkeep.control.rollouts.service import Rollouts
from modelkeep.control.safety.service import Switches
from modelkeep.control.schedules.service import Schedules
from modelkeep.control.sessions.rules import BROWSERS, Life
from modelkeep.control.sessions.service import Sessions
from modelkeep.control.shadows.service import Shadows
from modelkeep.control.users.service import Users
from modelkeep.infra.clock import Clock, utc_now
from modelkeep.infra.idempotency import Idempotency


@dataclass(frozen=True)
class Services:
    """Everything behind the door."""

    users: Users
    access: Access
    approvals: Approvals
    switches: Switches
    models: Models
    lifecycle: Lifecycle
    deployments: Deployments
    audit: Audit
    predictions: Predictions
    feedback: Feedback
    replays: Replays
    rollouts: Rollouts
    alerts: Alerts
    shadows: Shadows
    schedules: Schedules
    blobs: BlobStore
    formats: Formats
    settings: ApiSettings
    idempotency: Idempotency
    sessions: Sessions
    links: Links
    identities: Identities
    browsers: Life = BROWSERS
    clock: Clock = utc_now


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Behind = Annotated[Services, Depends(_services)]
