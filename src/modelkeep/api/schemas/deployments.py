"""Wire shapes of deployments."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Self

import msgspec
from pydantic import Field

from modelkeep.api.paging import LARGEST_NUMBER
from modelkeep.api.schemas.wire import Answer, Ask, Name, Number
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.snapshot import BatchMode, CacheMode, CacheShare, GoldenCheck, Keep, KeepLoaded, NotFinite
from modelkeep.control.deployments.caching import State, cached
from modelkeep.control.deployments.planning import Change
from modelkeep.control.deployments.revisions import Action, Moment, Revision
from modelkeep.control.deployments.rules import LONGEST_REASON, Deployment, Serving
from modelkeep.control.deployments.traffic import document

Reason = Annotated[str, Field(max_length=LONGEST_REASON, description="Why: it stands with the revision that this makes.")]
Settings = Annotated[
    dict[str, Any],
    Field(description="The settings to change, in the groups that an answer shows; null brings a default back."),
]
Shares = Annotated[
    dict[str, Any],
    Field(
        description="What to change of the traffic, as an answer shows it; null brings a default back. Versions are numbers or "
        "aliases, shares are in percent."
    ),
]


class Promote(Ask):
    """Have a deployment answer with a version."""

    version: Number
    reason: Reason = ""


class PlanChange(Ask):
    """What one would change: settings and traffic, by JSON merge patches, and a version to promote, all at once."""

    version: Number | None = None
    settings: Settings | None = None
    traffic: Shares | None = None

    def read(self) -> Change:
        """Return it as a change; raises `Invalid` where it names nothing."""
        return _change(Change(self.version, self.settings, self.traffic))


class ChangeDeployment(PlanChange):
    """Change settings and traffic by JSON merge patches, and promote a version, all at once."""

    reason: Reason = ""


class NewDeployment(Ask):
    """Give a model another deployment. Without a version it answers once one is promoted."""

    name: Name
    model: Annotated[str, Field(max_length=200)]
    version: Number | None = None
    settings: Settings | None = None
    traffic: Shares | None = None
    reason: Reason = ""

    def read(self) -> Change:
        """Return how it is to be made."""
        return Change(self.version, self.settings, self.traffic)


class RollBack(Ask):
    """Go back: to a revision, or to what answered before the newest version came in."""

    revision: Annotated[int, Field(strict=True, ge=0, le=LARGEST_NUMBER)] | None = None
    reason: Reason = ""


def _change(change: Change) -> Change:
    if change == Change():
        raise Invalid("Say what to change: `settings`, `traffic`, or both.")
    return change


class RuleAnswer(Answer):
    """Requests that a version answers whatever the shares are: those for which all that is named holds."""

    version: int
    name: str
    callers: list[str]
    header: str
    values: list[str]
    percent: float


class ShadowedAnswer(Answer):
    """A version that is asked the same beside the others, for a part of the requests, and answers nobody."""

    version: int
    share: float


class TrafficAnswer(Answer):
    """What versions beside the promoted one answer: shares in percent by number, and rules, which come before them."""

    split: dict[str, float]
    rules: list[RuleAnswer]
    sticky: str
    shadow: ShadowedAnswer | None


class TrialAnswer(Answer):
    """The step at which a rollout is."""

    rollout: str
    step: int
    share: float


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
    bake_s: float
    cache: CachingAnswer


class ServingAnswer(Answer):
    """What one server says it answers with."""

    server: str
    snapshot: int
    version: int | None
    at: datetime
    failing: str


class CachedAnswer(Answer):
    """What the cache did in the last minutes on all servers: requests by what became of them, and bytes that answers take now.

    `ratio` is the share of requests that the model was not asked for, null where there were none; `said` is it all in words.
    """

    state: State
    said: str
    seconds: int
    hits: int
    shared: int
    misses: int
    bypassed: int
    bytes: int
    ratio: float | None


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
    traffic: TrafficAnswer
    trial: TrialAnswer | None
    serving: list[ServingAnswer]
    cache: CachedAnswer

    @classmethod
    def of(cls, deployment: Deployment, serving: Iterable[Serving], numbers: Mapping[str, int]) -> Self:
        """Put them together; `numbers` are those of versions by id."""
        heard = list(serving)
        cache = cached(deployment.settings.cache, (one.cache for one in heard if one.cache is not None))
        told = {"serving": heard, "cache": cache, "traffic": document(deployment.traffic, numbers)}
        return cls.model_validate(msgspec.structs.asdict(deployment) | told)


class RevisionAnswer(Answer):
    """What a deployment was from one change to the next. `restored` is the revision that a rollback went back to."""

    name: str
    revision: int
    at: datetime
    by: str
    action: Action
    reason: str
    version: int | None
    version_id: str | None
    settings: SettingsAnswer
    traffic: TrafficAnswer
    trial: TrialAnswer | None
    restored: int | None

    @classmethod
    def of(cls, revision: Revision, numbers: Mapping[str, int]) -> Self:
        """Put them together; `numbers` are those of versions by id."""
        return cls.model_validate(
            msgspec.structs.asdict(revision) | {"traffic": document(revision.traffic, numbers)},
        )


class MomentAnswer(RevisionAnswer):
    """What a deployment was at a moment; `settings_revision` is the revision that brought its settings."""

    settings_revision: int

    @classmethod
    def at_that_time(cls, moment: Moment, numbers: Mapping[str, int]) -> Self:
        """Put them together, as `of`."""
        told = {"traffic": document(moment.revision.traffic, numbers), "settings_revision": moment.settings_revision}
        return cls.model_validate(msgspec.structs.asdict(moment.revision) | told)


class AsOfAnswer(Answer):
    """What answered for a model at a moment, and where its aliases pointed."""

    model: str
    at: datetime
    deployments: list[MomentAnswer]
    aliases: dict[str, int]


class DifferenceAnswer(Answer):
    """One thing that would be otherwise; null where it is not there."""

    path: str
    before: Any
    after: Any


class PartAnswer(Answer):
    """What a version answers before and after: a share in percent of those whom no rule is for, and so many rules."""

    version: int
    share_before: float
    share_after: float
    rules_before: int
    rules_after: int
    begins: bool
    stops: bool


class PlanAnswer(Answer):
    """What a change would do to the deployment, which is at this revision."""

    revision: int
    changes: list[DifferenceAnswer]
    answering: list[PartAnswer]
    needs_approval: bool
