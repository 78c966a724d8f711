"""Wire shapes of deployments."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Self

import msgspec
from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask, Number
from modelkeep.contracts.snapshot import BatchMode, CacheMode, CacheShare, GoldenCheck, Keep, KeepLoaded, NotFinite
from modelkeep.control.deployments.rules import Deployment, Serving


class Promote(Ask):
    """Have a deployment answer with a version."""

    version: Number


class Configure(Ask):
    """Change settings, by a JSON merge patch."""

    settings: Annotated[
        dict[str, Any],
        Field(description="The settings to change, in the groups that an answer shows; null brings a default back."),
    ]


class BatchingAnswer(Answer):
    """How requests that wait together share a run."""

    mode: BatchMode
    max_rows: int
    max_wait_ms: float
    latency_target_ms: float


class ReplicasAnswer(Answer):
    """How many runners one server keeps."""

    min: int
    max: int


class MemoryAnswer(Answer):
    """When there are runners at all."""

    keep: KeepLoaded
    idle_s: float


class RecordingAnswer(Answer):
    """What is written down of predictions, and for how long."""

    enabled: bool
    sample: float
    inputs: Keep
    outputs: Keep
    fields: dict[str, Keep]
    keep_days: int


class RateAnswer(Answer):
    """How often the deployment may be asked by all callers together; 0 a minute is unlimited."""

    per_minute: int
    burst: int


class CachingAnswer(Answer):
    """Whether answers are kept and given again to equal questions, and to whom."""

    mode: CacheMode
    ttl_s: float
    share: CacheShare


class SettingsAnswer(Answer):
    """What is set for one deployment alone."""

    deadline_s: float
    batching: BatchingAnswer
    replicas: ReplicasAnswer
    concurrency: int
    recording: RecordingAnswer
    memory: MemoryAnswer
    not_finite: NotFinite
    golden: GoldenCheck
    rate: RateAnswer
    cache: CachingAnswer


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
    settings: SettingsAnswer
    serving: list[ServingAnswer]

    @classmethod
    def of(cls, deployment: Deployment, serving: Iterable[Serving]) -> Self:
        """Put both together."""
        return cls.model_validate(msgspec.structs.asdict(deployment) | {"serving": list(serving)})
