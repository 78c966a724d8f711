"""What the server answers, as small frozen values. Each keeps the document it was made from as `raw`.

In a notebook they show themselves as tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from modelkeep.client import notebook, outputs
from modelkeep.client.errors import Invalid

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True, repr=False)
class _FromDocument:
    """Takes the fields it knows from a JSON object and ignores the others, so that a newer server stays readable."""

    SHOWN: ClassVar[tuple[str, ...]] = ()
    """The fields that say what it is, in the order in which they are shown."""

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the value for a JSON object."""
        known = {one.name for one in fields(cls)} - {"raw"}
        return cls(**{name: value for name, value in document.items() if name in known}, raw=document)

    def facts(self) -> dict[str, object]:
        """Return what is shown of it: the fields that have something to say."""
        plain = {one.name: one.default for one in fields(self) if one.default is not MISSING}
        found = {name: getattr(self, name) for name in self.SHOWN}
        return {name: value for name, value in found.items() if name not in plain or value != plain[name]}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.facts().items())})"

    def _repr_html_(self) -> str:
        return notebook.facts(type(self).__name__, self.facts())


Shown = TypeVar("Shown", bound=_FromDocument)


class Listing(list[Shown]):
    """A list that shows itself as a table in a notebook."""

    def _repr_html_(self) -> str:
        columns = list(self[0].SHOWN) if self else []
        rows = [[getattr(one, name) for name in columns] for one in self[: notebook.ROWS]]
        left = len(self) - len(rows)
        return notebook.table(columns, rows, f"and {left} more" if left else "" if self else "none")


@dataclass(frozen=True, repr=False)
class Rejection(_FromDocument):
    """Why a version was refused: a stable code, what to do about it, and what was seen."""

    SHOWN: ClassVar[tuple[str, ...]] = ("code", "detail", "advice")

    code: str
    advice: str = ""
    detail: str = ""


@dataclass(frozen=True, repr=False)
class Model(_FromDocument):
    """A named thing with numbered versions."""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "serving_version", "latest_version", "description", "created_at", "archived_at")

    name: str
    id: str = ""
    description: str = ""
    created_at: str = ""
    created_by: str | None = None
    archived_at: str | None = None
    latest_version: int | None = None
    serving_version: int | None = None
    life: str = "active"
    trashed_at: str | None = None
    deprecation: Mapping[str, Any] | None = None
    hold: Mapping[str, Any] | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Version(_FromDocument):
    """A numbered release of a model: `received`, `validating`, then `ready` or `rejected`."""

    SHOWN: ClassVar[tuple[str, ...]] = (
        "model",
        "number",
        "state",
        "rejection",
        "format",
        "size",
        "description",
        "created_at",
        "archived_at",
    )

    model: str
    number: int
    state: str
    id: str = ""
    format: str = ""
    filename: str = ""
    size: int = 0
    digest: str = ""
    description: str = ""
    labels: int | None = None
    image: Mapping[str, Any] | None = None
    hooks: Mapping[str, Any] | None = None
    signature: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    rejection: Rejection | None = None
    created_at: str = ""
    created_by: str | None = None
    validated_at: str | None = None
    archived_at: str | None = None
    life: str = "active"
    trashed_at: str | None = None
    deprecation: Mapping[str, Any] | None = None
    hold: Mapping[str, Any] | None = None
    parent_id: str | None = None
    training: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the version for a JSON object."""
        refused = document.get("rejection")
        version = super().read(document)
        object.__setattr__(version, "rejection", Rejection.read(refused) if refused else None)
        return version

    @property
    def settled(self) -> bool:
        """Whether validation has come to an end."""
        return self.state in {"ready", "rejected"}


@dataclass(frozen=True, repr=False)
class Deployment(_FromDocument):
    """A named place that answers predictions with one version of a model."""

    SHOWN: ClassVar[tuple[str, ...]] = (
        *("name", "model", "version", "previous_version", "revision", "settings", "traffic", "updated_at"),
    )

    name: str
    model: str = ""
    version: int | None = None
    version_id: str | None = None
    previous_version: int | None = None
    revision: int = 0
    updated_at: str = ""
    updated_by: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    traffic: Mapping[str, Any] = field(default_factory=dict)
    trial: Mapping[str, Any] | None = None
    serving: Sequence[Mapping[str, Any]] = ()
    cache: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Key(_FromDocument):
    """An API key; `secret` is known once, when it is made, and is not printed with the others."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "name", "scopes", "rate", "created_at", "expires_at", "last_used_at")

    id: str
    name: str = ""
    scopes: Sequence[str] = ()
    created_at: str = ""
    expires_at: str | None = None
    last_used_at: str | None = None
    rotated_at: str | None = None
    previous_until: str | None = None
    previous_used_at: str | None = None
    rate: str = "unlimited"
    concurrency: int | None = None
    networks: Sequence[str] = ()
    certificate: Mapping[str, Any] | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Label:
    """One class of a prediction with its score, and its place among the model's outputs."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, repr=False)
class Prediction(_FromDocument):
    """An answer: which version gave it, under which id it can be found, and what it says.

    A model of rows answers `outputs`; with `top_k`, and for pictures, the best labels of each row are in `predictions`.
    """

    id: str
    deployment: str
    model: str
    version: int

    SHOWN: ClassVar[tuple[str, ...]] = ("deployment", "model", "version", "id")

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """Values by the name of the model's output: numpy arrays where numpy is installed, else lists.

        Every value is the one that came: whole numbers beyond int64 are uint64 or objects, never floats.
        """
        found = self.raw.get("outputs") or {}
        if find_spec("numpy") is None:
            return dict(found)
        return {name: outputs.array(values) for name, values in found.items()}

    @cached_property
    def predictions(self) -> list[list[Label]]:
        """The best labels of each row or picture, best first."""
        rows = self.raw.get("predictions") or []
        return [[Label(str(one["label"]), one["index"], one["score"]) for one in row] for row in rows]

    @property
    def labels(self) -> list[str]:
        """The name of each row's class, where the version was uploaded with labels."""
        return list(self.raw.get("labels") or [])

    @property
    def metadata(self) -> Mapping[str, Mapping[str, Any]]:
        """What was asked for of the answer itself: its timings in milliseconds, the file that gave it."""
        return self.raw.get("metadata") or {}

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame with a column for each output; of several numbers a row, a column of lists."""
        return outputs.pandas_frame(outputs.columns(self.raw))

    def to_polars(self) -> "pl.DataFrame":
        """Return the same for polars."""
        frame: pl.DataFrame = outputs.polars_frame(outputs.columns(self.raw))
        return frame

    def to_arrow(self) -> "pa.Table":
        """Return the same as an Arrow table."""
        return outputs.arrow_table(outputs.columns(self.raw))

    def _repr_html_(self) -> str:
        try:
            columns = outputs.columns(self.raw)
        except Invalid:
            return super()._repr_html_()
        rows = list(islice(zip(*columns.values(), strict=True), notebook.ROWS))
        left = max(map(len, columns.values()), default=0) - len(rows)
        return super()._repr_html_() + notebook.table(list(columns), rows, f"and {left} more" if left else "")


@dataclass(frozen=True, repr=False)
class Replay(_FromDocument):
    """Predictions, or rows, answered again: `waiting`, `running`, then `done` or `failed`.

    `summary` says how the answers compare, `details` has the rows that differ and the predictions that were skipped, `failure`
    says why it came to nothing. `progress` counts predictions.
    """

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "model", "version", "state", "progress", "summary", "failure", "created_at")

    id: str
    model: str = ""
    version: int = 0
    state: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""
    created_by: str | None = None
    finished_at: str | None = None
    progress: int = 0
    summary: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    details: Mapping[str, Any] | None = None

    @property
    def settled(self) -> bool:
        """Whether it has come to an end."""
        return self.state in {"done", "failed"}

    @property
    def agrees(self) -> bool:
        """Whether all rows were answered the same by the uploaded file, by the one that serves, and then."""
        return self.state == "done" and self.summary is not None and self.summary["rows_equal"] == self.summary["rows"]


@dataclass(frozen=True, repr=False)
class Side(_FromDocument):
    """What went into a prediction or came out: `value` where it is JSON, else `base64`; `note` says what was not kept."""

    SHOWN: ClassVar[tuple[str, ...]] = ("content_type", "value", "note")

    content_type: str
    value: Any = None
    base64: str | None = None
    note: str = ""


@dataclass(frozen=True, repr=False)
class RecordedPrediction(_FromDocument):
    """One prediction of the history. Times are milliseconds; `inputs` and `outputs` come with a single one only."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "at", "deployment", "version", "outcome", "code", "status", "rows", "total_ms")

    id: str
    at: str = ""
    request_id: str = ""
    deployment: str = ""
    version_id: str = ""
    version: int = 0
    key_id: str = ""
    user: str = ""
    dialect: str = ""
    outcome: str = ""
    code: str = ""
    status: int = 0
    rows: int = 0
    total_ms: float = 0.0
    queue_ms: float = 0.0
    run_ms: float = 0.0
    content_type: str = ""
    inputs: Side | None = None
    outputs: Side | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the value for a JSON object."""
        sides: dict[str, Any] = {name: Side.read(document[name]) for name in ("inputs", "outputs") if document.get(name)}
        known = {one.name for one in fields(cls)} - {"raw", "inputs", "outputs"}
        return cls(**{name: value for name, value in document.items() if name in known}, **sides, raw=document)


@dataclass(frozen=True, repr=False)
class Alias(_FromDocument):
    """A name that points to a version of a model; its revision counts its moves."""

    name: str
    version: int
    version_id: str = ""
    revision: int = 0
    changed_at: str = ""
    changed_by: str = ""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "version", "changed_at", "changed_by")


@dataclass(frozen=True, repr=False)
class Workspace(_FromDocument):
    """A tenant: models lie in one."""

    id: str
    name: str = ""
    created_at: str = ""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "id", "created_at")


@dataclass(frozen=True, repr=False)
class Group(_FromDocument):
    """People who are granted roles together."""

    id: str
    name: str = ""
    created_at: str = ""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "id", "created_at")


@dataclass(frozen=True, repr=False)
class Grant(_FromDocument):
    """A role that was given: to whom (`subject_kind` and an id), and on what (`kind` and an id)."""

    id: str
    role: str = ""
    subject_kind: str = ""
    subject: str = ""
    kind: str = ""
    on: str = ""
    created_at: str = ""
    created_by: str = ""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "role", "subject_kind", "subject", "kind", "on")


@dataclass(frozen=True, repr=False)
class Approval(_FromDocument):
    """What somebody asked for that needs a second person, and how it stands."""

    id: str
    state: str = ""
    kind: str = ""
    action: str = ""
    subject: str = ""
    summary: str = ""
    asked_by: str = ""
    asked_by_name: str = ""
    asked_at: str = ""
    until: str = ""
    approved_by: Sequence[Mapping[str, str]] = ()
    refused_by: Mapping[str, str] | None = None
    reason: str = ""
    used_at: str | None = None

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "state", "summary", "asked_by_name", "until")


@dataclass(frozen=True, repr=False)
class Explanation(_FromDocument):
    """Whether somebody may do something, and why."""

    allowed: bool
    reason: str = ""
    scope: str = ""
    grant: Mapping[str, str] | None = None

    SHOWN: ClassVar[tuple[str, ...]] = ("allowed", "reason", "scope")

    @property
    def role(self) -> str:
        """The role that gives it, "" where none does."""
        return (self.grant or {}).get("role", "")

    @property
    def place(self) -> str:
        """The place that the role is on."""
        grant = self.grant or {}
        return f"{grant.get('kind', '')} {grant.get('on', '')}".strip()

    @property
    def through(self) -> str:
        """The group by which they have the role, "" for one of their own."""
        return (self.grant or {}).get("through", "")


@dataclass(frozen=True, repr=False)
class AliasMove(_FromDocument):
    """One move of an alias; there is no `from_version` where it was new, and no `to_version` where it was deleted."""

    revision: int
    from_version: int | None = None
    to_version: int | None = None
    at: str = ""
    by: str = ""

    SHOWN: ClassVar[tuple[str, ...]] = ("revision", "from_version", "to_version", "at", "by")


@dataclass(frozen=True, repr=False)
class AuditEntry(_FromDocument):
    """One change or refusal; `seq` and `hash` are its place in the chain. Of an `erased` one, who and what is not known."""

    id: str
    seq: int = 0
    at: str = ""
    actor: str = ""
    actor_name: str = ""
    user: str = ""
    address: str = ""
    action: str = ""
    target: str = ""
    target_kind: str = ""
    outcome: str = ""
    request_id: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    before: str | None = None
    after: str | None = None
    hash: str = ""
    erased: bool = False

    SHOWN: ClassVar[tuple[str, ...]] = ("seq", "at", "actor_name", "action", "target", "outcome")
