"""What the server answers, as small frozen values. Each keeps the document it was made from as `raw`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self


@dataclass(frozen=True)
class _FromDocument:
    """Takes the fields it knows from a JSON object and ignores the others, so that a newer server stays readable."""

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the value for a JSON object."""
        known = {one.name for one in fields(cls)} - {"raw"}
        return cls(**{name: value for name, value in document.items() if name in known}, raw=document)


@dataclass(frozen=True)
class Rejection(_FromDocument):
    """Why a version was refused: a stable code, what to do about it, and what was seen."""

    code: str
    advice: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Model(_FromDocument):
    """A named thing with numbered versions."""

    name: str
    id: str = ""
    description: str = ""
    created_at: str = ""
    created_by: str | None = None
    archived_at: str | None = None
    latest_version: int | None = None
    serving_version: int | None = None


@dataclass(frozen=True)
class Version(_FromDocument):
    """A numbered release of a model: `received`, `validating`, then `ready` or `rejected`."""

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
    signature: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    rejection: Rejection | None = None
    created_at: str = ""
    created_by: str | None = None
    validated_at: str | None = None
    archived_at: str | None = None

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


@dataclass(frozen=True)
class Deployment(_FromDocument):
    """A named place that answers predictions with one version of a model."""

    name: str
    model: str = ""
    version: int | None = None
    version_id: str | None = None
    previous_version: int | None = None
    revision: int = 0
    updated_at: str = ""
    updated_by: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    serving: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Key(_FromDocument):
    """An API key; `secret` is known once, when it is made, and is not printed with the others."""

    id: str
    name: str = ""
    scopes: Sequence[str] = ()
    created_at: str = ""
    expires_at: str | None = None
    last_used_at: str | None = None
    rate: str = "unlimited"
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Label:
    """One class of a prediction with its score, and its place among the model's outputs."""

    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Prediction:
    """An answer: which version gave it, under which id it can be found, and what it says.

    A model of rows answers `outputs`; with `top_k`, and for pictures, the best labels of each row are in `predictions`.
    """

    id: str
    deployment: str
    model: str
    version: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the prediction for a JSON object."""
        return cls(document["id"], document["deployment"], document["model"], document["version"], document)

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """Values by the name of the model's output: numpy arrays where numpy is installed, else lists."""
        found = self.raw.get("outputs") or {}
        try:
            import numpy  # noqa: F401, ICN001 - only whether it is there
        except ImportError:
            return found
        return {name: _array(values) for name, values in found.items()}

    @cached_property
    def predictions(self) -> list[list[Label]]:
        """The best labels of each row or picture, best first."""
        rows = self.raw.get("predictions") or []
        return [[Label(str(one["label"]), one["index"], one["score"]) for one in row] for row in rows]

    @property
    def labels(self) -> list[str]:
        """The name of each row's class, where the version was uploaded with labels."""
        return list(self.raw.get("labels") or [])


@dataclass(frozen=True)
class Replay(_FromDocument):
    """Predictions, or rows, answered again: `waiting`, `running`, then `done` or `failed`.

    `summary` says how the answers compare, `details` has the rows that differ and the predictions that were skipped, `failure`
    says why it came to nothing. `progress` counts predictions.
    """

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


def _array(values: list[Any]) -> Any:  # noqa: ANN401 - a numpy array, and numpy may not be installed
    import numpy as np

    try:
        array = np.asarray(values)
    except ValueError:  # rows of different length
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if array.dtype == object and all(value is None or isinstance(value, (int, float)) for value in array.flat):
        return array.astype(float)  # a missing number is null in JSON
    return array


@dataclass(frozen=True)
class Side(_FromDocument):
    """What went into a prediction or came out: `value` where it is JSON, else `base64`; `note` says what was not kept."""

    content_type: str
    value: Any = None
    base64: str | None = None
    note: str = ""


@dataclass(frozen=True)
class RecordedPrediction(_FromDocument):
    """One prediction of the history. Times are milliseconds; `inputs` and `outputs` come with a single one only."""

    id: str
    at: str = ""
    request_id: str = ""
    deployment: str = ""
    version_id: str = ""
    version: int = 0
    key_id: str = ""
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
