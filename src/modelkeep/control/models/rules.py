r"""Models and versions as values, the life of a version, and how an upload is understood.

received -> validating -> ready
                      \-> rejected
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final, Literal, Self, get_args

import msgspec

from modelkeep.contracts.access import INSTALLATION, Place, Scope
from modelkeep.contracts.errors import Invalid, UnsupportedFormat
from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.rejections import Rejection
from modelkeep.contracts.report import CompiledArtifact, Optimise, Report
from modelkeep.contracts.runner import Format, Manifest
from modelkeep.contracts.signature import ImageSpec, Signature
from modelkeep.contracts.storage import Blob
from modelkeep.control.access.rules import DEFAULT_WORKSPACE, Workspace
from modelkeep.control.approvals.rules import Act
from modelkeep.control.models.errors import (
    InvalidLabels,
    InvalidPreprocess,
    ModelArchived,
    ModelTrashed,
    VersionArchived,
    VersionNotReady,
    VersionTrashed,
)
from modelkeep.control.models.life import Deprecation, Hold, Life, Training, life_of

LONGEST_DESCRIPTION: Final = 10_000
LONGEST_FILENAME: Final = 255
LONGEST_LABEL: Final = 1000
LARGEST_PICTURE: Final = 4096


Compile = Literal["auto", "off"]
"""Whether a version may be served in a faster form than the uploaded file: "auto" where validation finds one, or "off"."""


class State(StrEnum):
    """Where a version stands."""

    RECEIVED = "received"
    VALIDATING = "validating"
    READY = "ready"
    REJECTED = "rejected"

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self in {State.READY, State.REJECTED}


UNVALIDATED: Final = (State.RECEIVED, State.VALIDATING)


class Model(msgspec.Struct, frozen=True):
    """A named line of versions. `aliases` are numbers of versions by the names that point to them.

    It lies in a workspace, and belongs to whoever made it; `owner_id` is None where the installation itself did. What was
    purged has lost its name, and `former_name` is what it was.
    """

    id: str
    name: str
    description: str
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None
    latest_version: int | None = None
    serving_version: int | None = None
    workspace_id: str = DEFAULT_WORKSPACE
    owner_id: str | None = None
    deprecation: Deprecation | None = None
    hold: Hold | None = None
    trashed_at: datetime | None = None
    purging_at: datetime | None = None
    purged_at: datetime | None = None
    former_name: str | None = None
    aliases: dict[str, int] = {}

    @property
    def place(self) -> Place:
        """What is asked about it, when it is asked who may do what."""
        return Place(self.workspace_id, self.id, self.owner_id or "")

    @property
    def life(self) -> Life:
        """Where it stands."""
        return _life(self)


class Version(msgspec.Struct, frozen=True):
    """One numbered release of a model. `labels` is their count; the labels themselves stay in the store.

    `compiled` is what serves instead of the uploaded file as it is, where validation found a faster form that is the same, or
    within the `accuracy_budget`: a share from 0 to 1. `calibration` are the rows that this is measured on. `hooks` go around
    the model. `parent_id` is the version that this one was made from.
    """

    id: str
    model_id: str
    model: str
    number: int
    state: State
    format: str
    runner: str
    filename: str
    size: int
    digest: str
    description: str
    created_at: datetime
    created_by: str
    labels: int | None = None
    image: ImageSpec | None = None
    signature: Signature | None = None
    report: Report | None = None
    rejection: Rejection | None = None
    scores: str = ""
    sample: "Sample | None" = None
    compile: Compile = "auto"
    compiled: CompiledArtifact | None = None
    optimise: Optimise = "auto"
    calibration: "Sample | None" = None
    accuracy_budget: float = 0.0
    hooks: Hooks | None = None
    validated_at: datetime | None = None
    archived_at: datetime | None = None
    deprecation: Deprecation | None = None
    hold: Hold | None = None
    trashed_at: datetime | None = None
    purging_at: datetime | None = None
    purged_at: datetime | None = None
    parent_id: str | None = None
    training: Training | None = None

    @property
    def life(self) -> Life:
        """Where it stands."""
        return _life(self)


class Sample(msgspec.Struct, frozen=True):
    """The uploader's sample rows or picture, kept as a blob; the file name tells its format."""

    digest: str
    filename: str


class Upload(msgspec.Struct, frozen=True):
    """Everything that came with an uploaded file, already stored and understood. `parent`: a number, MODEL/NUMBER, or an id."""

    blob: Blob
    filename: str
    format: str
    runner: str
    description: str = ""
    labels: tuple[str, ...] | None = None
    image: ImageSpec | None = None
    sample: Sample | None = None
    compile: Compile = "auto"
    optimise: Optimise = "auto"
    calibration: Sample | None = None
    accuracy_budget: float = 0.0
    hooks: Hooks | None = None
    parent: str = ""
    training: Training | None = None

    def fingerprint(self) -> bytes:
        """Return a digest that is equal for equal uploads."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).digest()


class Files(msgspec.Struct, frozen=True):
    """The files that versions name: those in use by what they are (`FILES`), and those that only rejected versions name."""

    used: Mapping[str, str]
    released: frozenset[str]


FILES: Final = {
    "digest": "artifact",
    "compiled": "compiled",
    "hooks": "hooks",
    "sample": "sample",
    "calibration": "sample",
    "report": "golden",
}
"""What a file is, by the column of a version that names it; of several, the first holds. One in any other column is "other"."""


def files_of(version: Version) -> set[str]:
    """Return the files that a version is made of; texts of people's that look like a digest are none."""
    parts = (version.sample, version.calibration, version.hooks, version.compiled)
    found = {version.digest, version.report.golden if version.report else "", *(one.digest for one in parts if one is not None)}
    return found - {""}


class Findings(msgspec.Struct, frozen=True):
    """What validation found out about a version that is fit to serve. `scores` names the output that labels belong to."""

    signature: Signature
    report: Report
    image: ImageSpec | None = None
    scores: str = ""
    compiled: CompiledArtifact | None = None
    hooks: Hooks | None = None


_TO_ONNX = (
    "Convert TensorFlow and Keras models to ONNX where they were made: python -m tf2onnx.convert --saved-model FOLDER "
    "--output model.onnx, or model.export('model.onnx', format='onnx')."
)
_ELSEWHERE = {
    (".pb", ".keras", ".h5", ".hdf5", ".tflite"): _TO_ONNX,
    (".safetensors", ".ckpt"): (
        "They hold weights without the model they belong to. Save the model itself, with torch.export.save or "
        "torch.jit.script(model).save, or push the weights in a folder with their class: model.py."
    ),
}
"""What to do with files of suffixes that models are known by and that no runner takes."""


_NOT_YET = {"tensorflow": _TO_ONNX, "keras": _TO_ONNX}
"""What to do with formats that have a name and no runner; the client names SavedModels so."""


class Formats:
    """The file formats that can be served here, from the manifests of the installed runners."""

    def __init__(self, formats: Iterable[tuple[Format, str]]) -> None:
        self._by_name = {form.name: (form, runner) for form, runner in formats}

    @classmethod
    def of(cls, manifests: Iterable[Manifest]) -> Self:
        """Collect the formats of these runners."""
        return cls((form, manifest.name) for manifest in manifests for form in manifest.formats)

    def choose(self, filename: str, declared: str = "") -> tuple[Format, str]:
        """Return format and runner for a file: the declared format, or the one its suffix belongs to."""
        if declared:
            if declared in _NOT_YET:
                raise UnsupportedFormat(f"The format {declared!r} cannot be served as it is. {_NOT_YET[declared]}")
            if declared not in self._by_name:
                raise UnsupportedFormat(f"The format {declared[:40]!r} cannot be served here. {self._supported()}")
            return self._by_name[declared]
        suffix = PurePosixPath(filename.lower()).suffix
        for form, runner in self._by_name.values():
            if suffix and suffix in form.suffixes:
                return form, runner
        for suffixes, advice in _ELSEWHERE.items():
            if suffix in suffixes:
                raise UnsupportedFormat(f"Files of the suffix {suffix!r} cannot be served as they are. {advice}")
        raise UnsupportedFormat(
            f"The file name's suffix {suffix[:20]!r} tells no format that can be served here. {self._supported()} "
            "Rename the file, or name its format in `format`."
        )

    def _supported(self) -> str:
        offered = sorted((name, form) for name, (form, _runner) in self._by_name.items() if not form.for_tests)
        listed = (f"{name} ({', '.join(form.suffixes) or 'a folder'})" for name, form in offered)
        return f"Supported: {'; '.join(listed)}."


def plain_filename(given: str) -> str:
    """Return the last part of an uploaded file's name; it is shown to people and never becomes a path."""
    name = given.replace("\\", "/").rsplit("/", 1)[-1].strip()
    if not name or len(name) > LONGEST_FILENAME or not name.isprintable():
        raise Invalid(f"The file needs a name of 1 to {LONGEST_FILENAME} printable characters.")
    return name


def read_labels(data: bytes) -> tuple[str, ...]:
    """Return the labels of a text file, one a line; empty lines at the end do not count."""
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InvalidLabels from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or any(not line or len(line) > LONGEST_LABEL for line in lines):
        raise InvalidLabels
    return tuple(lines)


def read_preprocess(text: str) -> ImageSpec:
    """Return the picture preprocessing that `imagenet`, or a JSON object of an image specification's fields, stands for."""
    if text.strip() == "imagenet":
        return ImageSpec()
    try:
        given = msgspec.json.decode(text)
        spec = msgspec.convert(given, ImageSpec)
    except msgspec.DecodeError as error:
        raise InvalidPreprocess from error
    unknown = sorted(set(given) - set(ImageSpec.__struct_fields__))
    if unknown:
        raise InvalidPreprocess(f"An image specification has no field {unknown[0][:40]!r}.")
    if not 1 <= spec.size <= LARGEST_PICTURE or not 0 < spec.crop <= 1 or 0 in spec.std:
        raise InvalidPreprocess(f"The size is 1 to {LARGEST_PICTURE} pixels, the crop above 0 up to 1, and no std is 0.")
    for field, known in _CHOICES.items():
        if getattr(spec, field) not in known:
            raise InvalidPreprocess(f"{field} is one of: {', '.join(known)}.")
    return spec


_CHOICES: Final = {
    "layout": ("NCHW", "NHWC"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "activation": ("auto", "softmax", "none"),
}


def read_compile(text: str) -> Compile:
    """Return the switch that `text` stands for; nothing stands for "auto"."""
    for one in get_args(Compile):
        if one == (text.strip() or "auto"):
            return one  # type: ignore[no-any-return]
    raise Invalid(f"`compile` is one of: {', '.join(get_args(Compile))}.")


def read_optimise(text: str) -> Optimise:
    """Return the way that `text` stands for; nothing stands for "auto"."""
    for one in get_args(Optimise):
        if one == (text.strip() or "auto"):
            return one  # type: ignore[no-any-return]
    raise Invalid(f"`optimise` is one of: {', '.join(get_args(Optimise))}.")


def read_budget(text: str) -> float:
    """Return the share that `text` stands for: `0.01` or `1%`; nothing stands for 0."""
    plain = text.strip()
    percent = plain.endswith("%")
    try:
        share = float(plain.removesuffix("%") or "0") / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1 or (percent and plain == "%"):
        raise Invalid("`accuracy_budget` is a share from 0 to 1, as 0.01 or 1%.")
    return share


def check_goal(optimise: Optimise, budget: float, *, calibrated: bool) -> None:
    """Refuse an optimisation that could not be judged, or rows and budgets that nothing would be done with."""
    if optimise in {"int8", "bf16"} and not calibrated:
        raise Invalid(f"`optimise` {optimise} needs calibration rows: send them as `calibration`.")
    if optimise == "bf16" and budget == 0:
        raise Invalid("`optimise` bf16 needs an `accuracy_budget` above 0.")
    if optimise in {"off", "openvino", "threads"} and budget > 0:
        raise Invalid(f"`optimise` {optimise} changes no answers, so there is no `accuracy_budget` to give.")
    if budget > 0 and not calibrated:
        raise Invalid("An `accuracy_budget` needs calibration rows to be measured on: send them as `calibration`.")
    if optimise == "off" and calibrated:
        raise Invalid("`optimise` off uses no calibration rows.")


def check_description(text: str) -> str:
    """Return a description that is not too long."""
    if len(text) > LONGEST_DESCRIPTION or "\0" in text:
        raise Invalid(f"A description has at most {LONGEST_DESCRIPTION} characters, and none of them is NUL.")
    return text


def check_open(model: Model) -> None:
    """Refuse a model that was put away."""
    if model.trashed_at is not None:
        raise ModelTrashed
    if model.archived_at is not None:
        raise ModelArchived


def check_promotable(model: Model, version: Version) -> None:
    """Refuse what must not serve."""
    check_open(model)
    if version.trashed_at is not None:
        raise VersionTrashed
    if version.archived_at is not None:
        raise VersionArchived
    if version.state is not State.READY:
        raise VersionNotReady(f"Version {version.number} is {version.state}: only a version that passed validation can serve.")


def putting_away(
    action: Literal["archive", "trash", "purge"],
    model: Model,
    version: Version | None = None,
    scope: Scope = Scope.MODELS_WRITE,
) -> Act:
    """Return archiving, trashing or purging a model, or one of its versions, as what two people may have to agree to."""
    what, subject = ("model", model.id) if version is None else ("version", version.id)
    named = f"the model {model.name}" if version is None else f"version {version.number} of {model.name}"
    said = {"archive": f"Archive {named}.", "trash": f"Put {named} into the trash.", "purge": f"Purge {named} for good."}
    return Act("deletion", f"{what}.{action}", subject, said[action], scope, model.place, seen=(model, version))


def removing(workspace: Workspace) -> Act:
    """Return removing a workspace as what two people may have to agree to."""
    said = f"Remove the workspace {workspace.name}, and the roles on it."
    return Act("deletion", "workspace.remove", workspace.id, said, Scope.ADMIN, INSTALLATION, seen=workspace)


def referring(model: Model, version: Version) -> list[str]:
    """Return what answers with a version, as far as its model knows, in words."""
    answering = [f"{model.name} answers with it"] if model.serving_version == version.number else []
    pointing = sorted(alias for alias, number in model.aliases.items() if number == version.number)
    return answering + [f"the alias {alias} points to it" for alias in pointing]


def _life(one: Model | Version) -> Life:
    return life_of(
        deprecation=one.deprecation,
        archived_at=one.archived_at,
        trashed_at=one.trashed_at,
        purging_at=one.purging_at,
        purged_at=one.purged_at,
    )
