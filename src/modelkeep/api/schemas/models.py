"""Wire shapes of models and versions."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modelkeep.api.schemas.lifecycle import DeprecationAnswer, HoldAnswer, TrainingAnswer
from modelkeep.api.schemas.wire import Answer, Ask, Name
from modelkeep.control.models.life import Life
from modelkeep.control.models.rules import LONGEST_DESCRIPTION, State

Description = Annotated[str, Field(max_length=LONGEST_DESCRIPTION)]


class NewModel(Ask):
    """Make a model."""

    name: Name
    description: Description = ""
    workspace: Annotated[str | None, Field(max_length=100, description="Its workspace; yours, where you have but one.")] = None


class MoveModel(Ask):
    """Move a model into another workspace, or give it to another person; what is left out stays."""

    workspace: Annotated[str | None, Field(max_length=100)] = None
    owner: Annotated[str | None, Field(max_length=100, description="The id of a person.")] = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.workspace is None and self.owner is None:
            raise ValueError("say a workspace, an owner, or both")
        return self


class Describe(Ask):
    """Change a description."""

    description: Description


class PlannedUpload(Ask):
    """A file that is about to be uploaded: its name, its format where the suffix does not tell, and its size in bytes.

    `hooks`: some come with it.
    """

    filename: Annotated[str, Field(max_length=1000)]
    format: Annotated[str, Field(max_length=100)] = ""
    size: Annotated[int, Field(strict=True, ge=0)]
    hooks: Annotated[bool, Field(strict=True)] = False


class ModelAnswer(Answer):
    """A model. `serving_version` is the version that its deployment answers with; `aliases` are numbers of versions by name.

    `owner_id` is null where the installation made it by itself.
    """

    id: str
    name: str
    description: str
    created_at: datetime
    created_by: str
    life: Life
    archived_at: datetime | None
    trashed_at: datetime | None
    deprecation: DeprecationAnswer | None
    hold: HoldAnswer | None
    latest_version: int | None
    serving_version: int | None
    aliases: dict[str, int]
    workspace_id: str
    owner_id: str | None


class TensorAnswer(Answer):
    """One named tensor of a signature; the first axis is the batch, -1 is any length.

    `kind` is "datetime" where the texts are dates; `categories` are those that the artifact tells.
    """

    name: str
    dtype: str
    shape: list[int]
    nullable: bool
    columns: list[str]
    classes: list[str]
    kind: str
    categories: list[int | float | str]


class SignatureAnswer(Answer):
    """What goes in and what comes out."""

    inputs: list[TensorAnswer]
    outputs: list[TensorAnswer]
    image: bool


class ImageAnswer(Answer):
    """How a picture becomes the model's input."""

    size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: str
    interpolation: str
    activation: str


class CheckAnswer(Answer):
    """One thing that validation tried."""

    name: str
    ok: bool
    detail: str


class CompilationAnswer(Answer):
    """What came of compiling a model to a faster form. `reason` says why the original serves, where it does.

    `speed` is how many times faster a row is, as measured: 0 where the original serves or that was not kept.
    """

    used: bool
    reason: str
    rows_compared: int
    largest_difference: float
    relative_tolerance: float
    absolute_tolerance: float
    latency_ms: dict[str, float]
    speed: float


class CandidateAnswer(Answer):
    """One way to run a model that was tried for speed. `measure` is a share, to compare with the budget."""

    name: str
    provider: str
    precision: str
    used: bool
    reason: str
    rows: int
    measure: float | None
    largest_difference: float
    latency_ms: dict[str, float]
    speed: float


class OptimisationAnswer(Answer):
    """What came of making a model faster for the host. `measured` says in words what the candidates' measures are."""

    asked: str
    used: bool
    reason: str
    budget: float
    measured: str
    rows_calibrated: int
    rows_held_out: int
    before_ms: dict[str, float]
    latency_ms: dict[str, float]
    memory_bytes: int
    candidates: list[CandidateAnswer]


class HooksAnswer(Answer):
    """Python around the model: the file's SHA-256 and bytes, and which functions it has, once that is known."""

    digest: str
    size: int
    functions: list[str]


class ReportAnswer(Answer):
    """What validation measured. `hooked`: `latency_ms` and memory are those of what serves, with its hooks around it."""

    framework: str
    framework_version: str
    kind: str
    details: dict[str, str]
    warnings: list[str]
    load_s: float
    memory_bytes: int
    peak_bytes: int
    deterministic: bool
    sample: Literal["given", "brought", "made up"]
    rows_tested: int
    latency_ms: dict[str, float]
    checks: list[CheckAnswer]
    compiled: CompilationAnswer | None
    independent: bool
    optimised: OptimisationAnswer | None
    hooked: bool


class RejectionAnswer(Answer):
    """Why a version was rejected, and what to change."""

    code: str
    advice: str
    detail: str


class VersionAnswer(Answer):
    """A version. `labels` is how many it has, `state` what validation said, `life` where it stands since."""

    id: str
    model: str
    number: int
    state: State
    format: str
    filename: str
    size: int
    digest: str
    description: str
    labels: int | None
    image: ImageAnswer | None
    hooks: HooksAnswer | None
    signature: SignatureAnswer | None
    report: ReportAnswer | None
    rejection: RejectionAnswer | None
    created_at: datetime
    created_by: str
    validated_at: datetime | None
    life: Life
    archived_at: datetime | None
    trashed_at: datetime | None
    deprecation: DeprecationAnswer | None
    hold: HoldAnswer | None
    parent_id: str | None
    training: TrainingAnswer | None
