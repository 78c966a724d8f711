"""Wire shapes of deployments."""

from collections.abc import Iterable
from datetime import datetime
from typing import Self

import msgspec

from modelkeep.api.schemas.wire import Answer, Ask, Number
from modelkeep.control.deployments.rules import Deployment, Serving


class Promote(Ask):
    """Have a deployment answer with a version."""

    version: Number


class ServingAnswer(Answer):
    """What one server says it answers with."""

    server: str
    snapshot: int
    version: int | None
    at: datetime
    failing: str


class DeploymentAnswer(Answer):
    """A deployment, and what the servers that were heard of in the last minute say."""

    name: str
    model: str
    version: int | None
    version_id: str | None
    previous_version: int | None
    revision: int
    updated_at: datetime
    updated_by: str
    serving: list[ServingAnswer]

    @classmethod
    def of(cls, deployment: Deployment, serving: Iterable[Serving]) -> Self:
        """Put both together."""
        return cls.model_validate(msgspec.structs.asdict(deployment) | {"serving": list(serving)})
