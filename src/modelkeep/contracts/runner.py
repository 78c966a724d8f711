"""The protocol of runners: adapters that load one file format and run it. Found by entry point (`modelkeep.runners`).

A runner module is cheap to import: its framework is imported in `load`, which only ever happens inside a runner process.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, Signature

if TYPE_CHECKING:
    import numpy as np

Precision = Literal["f32", "bf16", "int8"]
"""In what a model computes: as its file says ("f32"), in bfloat16, or in 8-bit integers that stand for numbers."""

Safety = Literal["data", "guarded", "code"]
Archive = Literal["", "memory", "folder"]


class Format(msgspec.Struct, frozen=True):
    """A file format: its name, its file suffixes, and what loading it may do.

    safety: "data" parses only; "guarded" builds objects from a fixed list of types; "code" may run anything.
    `also`: formats whose content is taken under this name too, because people mix their suffixes (a joblib file as `.pkl`).
    `for_tests`: served like any other, but never offered to people.
    `archive`: "" for a file that is loaded as it is; "memory" for an archive (ZIP or tar) whose files the runner gets as
    bytes, nothing written to disk; "folder" for one that is unpacked into a folder of the runner's own.
    """

    name: str
    suffixes: tuple[str, ...]
    safety: Safety
    also: tuple[str, ...] = ()
    for_tests: bool = False
    archive: Archive = ""


class Manifest(msgspec.Struct, frozen=True):
    """What a runner says of itself without importing its framework.

    `preload`: modules that the template process imports once, so that a runner forked from it is warm. `preload_when_asked`:
    those that it imports when the first runner of this plugin is asked for, because they take long and much memory.
    `needs`: further modules, which a runner imports itself, because they start threads. `extra`: the optional dependency that
    installs the framework ("" for none).
    `cold`: its runners are no forks of the template but start as a new Python, in which no framework is loaded yet, because
    artifacts may bring versions of their own.
    `also_runs`: formats of other runners that this one can run too, where it is named for it. `precisions`: what it can compute
    in; whichever is asked for, a runner proves after loading that it is so.
    """

    name: str
    formats: tuple[Format, ...]
    preload: tuple[str, ...] = ()
    preload_when_asked: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    extra: str = ""
    cold: bool = False
    also_runs: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ("f32",)


class Artifact(msgspec.Struct, frozen=True):
    """The checked bytes of one uploaded file, and the format it was declared to be.

    Of a format that is an archive, `data` is empty: `files` holds what was in it, by relative name with `/` between its parts
    (a folder that holds all the rest is left out of the names), or `folder` is where it was unpacked, and cannot be written to.
    """

    data: bytes
    format: str
    files: "Mapping[str, memoryview | bytes]" = {}
    folder: str = ""


class Column(msgspec.Struct, frozen=True):
    """A column of the uploader's sample: its name ("" for none), its datatype, and whether values are missing in it.

    `kind` is "datetime" where all its texts are dates, to be taken as such where nothing else is known; "wide" where it has
    whole numbers beyond 2^53. `shape` is that of one row's value, where it is no single value but nested lists.
    """

    name: str
    dtype: Dtype
    nullable: bool = False
    kind: str = ""
    shape: tuple[int, ...] = ()


class LoadOptions(msgspec.Struct, frozen=True):
    """How to load.

    `signature`: the one found at validation (None while validating). `sample`: columns of the sample, when there was one.
    `threads`: how many threads the framework may use. `precision`: what it computes in, or does not load. `quantises`: it will
    be asked for its form in 8-bit integers, so it keeps what it needs for that.
    """

    signature: Signature | None = None
    sample: tuple[Column, ...] = ()
    threads: int = 1
    precision: Precision = "f32"
    quantises: bool = False


class ModelFacts(msgspec.Struct, frozen=True):
    """What is known of a loaded model. `warnings` are for people: they do not stop the version.

    `batch`: the number of rows of every run, to which larger requests are cut and smaller ones filled up; 0 for any. `example`:
    rows that the artifact brings, as a sample in JSON ("" for none), told at validation where there is no other sample.
    """

    signature: Signature
    framework: str
    framework_version: str
    kind: str = ""
    details: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    batch: int = 0
    example: bytes = b""


class CannotLoad(Exception):
    """A runner refuses an artifact, with the reason code for its uploader.

    `example`: rows that the artifact brings, as a sample in JSON: with their columns it may be loaded, where there is no other.
    """

    def __init__(self, reason: Reason, detail: str = "", example: bytes = b"") -> None:
        self.reason = reason
        self.detail = detail
        self.example = example
        super().__init__(f"{reason}: {detail}")


class Compiled(msgspec.Struct, frozen=True):
    """The same model in a form that answers faster: a file, and the runner plugin and format that load it.

    It takes the same inputs and gives the same outputs, by name, datatype and shape. `edges` are, for each column of a matrix
    or input of a table, values at which the answer may jump (thresholds of trees), or else some that training showed (means,
    ends of ranges, support vectors): there both forms are compared, too.
    """

    data: bytes
    format: str
    runner: str
    edges: tuple[tuple[float, ...], ...] = ()


class CannotCompile(Exception):
    """A model has no faster form; the sentence says why. It is served as it is."""


class Model(Protocol):
    """A loaded model."""

    @property
    def facts(self) -> ModelFacts:
        """Signature and origin of the model."""
        ...

    def run(self, inputs: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """Answer one micro-batch: arrays by input name, equal first axis; returns arrays by output name, same first axis."""
        ...


@runtime_checkable
class Compilable(Protocol):
    """A model that may have a faster form. A `Model` need not have this method."""

    def compiled(self) -> Compiled:
        """Return the faster form; raises `CannotCompile`, or anything else for the same.

        It is asked for once, after validation, in the same locked-down process. What it returns is not trusted: it is run
        beside the original, and serves only where both agree and it is the faster one.
        """
        ...


@runtime_checkable
class Quantisable(Protocol):
    """A model that may have a form in 8-bit integers. A `Model` need not have this method."""

    def quantised(self, chunks: "Iterable[Mapping[str, np.ndarray]]", *, narrow: bool, spare_ends: bool) -> Compiled:
        """Return the form in integers; raises `CannotCompile`, or anything else for the same.

        `chunks` are calibration rows by input name, a few at a time, which show how large numbers get. `narrow`: weights take
        7 of their 8 bits, for processors that add products of 8 bits up in 16. `spare_ends`: the first and the last operator
        with weights stay as they are. What it returns is not trusted, as with `Compilable`.
        """
        ...


class Runner(Protocol):
    """Loads artifacts of the formats in its manifest."""

    manifest: ClassVar[Manifest]

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return the format that the first and last 4096 bytes are of, or None. No framework, no parsing."""
        ...

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """Load the artifact; raises `CannotLoad`, or anything else for "load_failed"."""
        ...


@runtime_checkable
class RecognisesFiles(Protocol):
    """A runner with formats that are archives tells its own from others by the names of the files. A `Runner` need not."""

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return the format that an archive of files with these relative names is of, or None. No framework, no parsing."""
        ...


class Unpack(Protocol):
    """Unpacks an archive that was in the artifact, while its folder can still be written."""

    def __call__(self, file: str, into: Callable[[str], str], /) -> None:
        """Unpack a file of the folder, and remove it: each file in it to `into(name)` in the folder, "" to leave it out."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A runner with more to unpack in its artifact's folder before that is closed to writing. A `Runner` need not."""

    def prepare(self, artifact: Artifact, unpack: Unpack) -> None:
        """Make the folder ready; raises `CannotLoad`. Nothing that came in the artifact may run yet."""
        ...
