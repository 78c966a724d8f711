"""Turns an artifact's descriptor into a loaded model: read, check, recognise, load. Runs only inside a locked-down runner."""

import gc
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from modelkeep.contracts import discovery
from modelkeep.contracts.confinement import NEEDED, Confinement
from modelkeep.contracts.hooks import FILE
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import (
    Artifact,
    CannotLoad,
    Column,
    Format,
    LoadOptions,
    Model,
    Prepares,
    RecognisesFiles,
    Runner,
)
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import archive
from modelkeep.sandbox.advice import advice
from modelkeep.sandbox.place import Place
from modelkeep.sandbox.unpacking import Unpacking

EDGE = 4096
"""How many bytes of either end of an artifact a runner plugin recognises it by."""

MAX_DETAIL = 500
_CHUNK = 64 * 1024 * 1024
_NO_MEMORY = re.compile(
    r"bad_alloc|MemoryError|failed to allocate|cannot allocate memory|out of memory|unable to allocate", re.IGNORECASE
)
_PATHS = re.compile(r"(?<![\w.])(?:/[\w.@+-]+){2,}/?")
_TO_ONNX = "convert it to ONNX with tf2onnx, where it was made"
_IN_ARCHIVES = (
    (b"saved_model.pb", f"a TensorFlow SavedModel: {_TO_ONNX}"),
    (b"model.weights.h5", f"a Keras model: {_TO_ONNX}"),
)
_OTHER_CONTENT = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", f"an HDF5 file, as Keras writes: {_TO_ONNX}"),
    (b"GGUF", "a GGUF file"),
    (b"PAR1", "a Parquet table"),
    (b"\x7fELF", "a program"),
    (b"<", "HTML or XML, perhaps an error page that was saved instead of the model"),
    (b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded"),
    (b"{", "JSON"),
    (b"PK\x03\x04", "a ZIP archive"),
)


def load(
    spec: RunnerSpec,
    sample: tuple[Column, ...],
    artifact: int,
    runners: Sequence[type[Runner]] | None = None,
    *,
    place: Place | None = None,
    told: list[str] | None = None,
    close: bool = False,
) -> Model:
    """Return the model in the file behind the descriptor; raises `CannotLoad` with the reason for its uploader.

    `place` is for archives that are unpacked; it is sealed before anything of them runs. What there is to say to people of a
    file that may run code is added to `told`, where there is somebody to tell. `close`: the descriptor is closed once it is
    read, so that nothing of the file can hold on to it.
    """
    data = (taken if close else read)(artifact, spec.size, spec.digest)
    plugins = installed() if runners is None else runners
    owner, declared = _find(plugins, spec.format)
    runner = _named(plugins, owner, spec)
    unpacking = Unpacking(place) if place is not None else None
    uploaded = _opened(plugins, declared, data, spec.limits.memory_mb << 20, unpacking)
    del data  # an archive's is not needed any more, but for what is a view of it
    warning = advice(uploaded.data, uploaded.files) if told is not None and declared.safety == "code" else ""
    if told is not None and warning:
        told.append(warning)
    options = LoadOptions(_known(spec), sample or _of_pictures(spec), spec.threads_used, spec.precision, spec.quantises)
    try:
        chosen = runner()
        if unpacking is not None and isinstance(chosen, Prepares):
            chosen.prepare(uploaded, unpacking)
        if place is not None:
            place.seal()
        model = chosen.load(uploaded, options)
    except CannotLoad as error:
        raise CannotLoad(error.reason, _with(warning, for_people(error.detail)), error.example) from error
    except Exception as error:
        refusal = _explain(error)
        raise CannotLoad(refusal.reason, _with(warning, refusal.detail)) from error
    gc.collect()
    gc.freeze()
    return model


def _known(spec: RunnerSpec) -> Signature | None:
    """The model's own signature, where it is known: a version of pictures or with hooks has another outside."""
    if spec.image:
        return None
    return spec.signature if spec.hooks is None else spec.hooks.inner


def _with(warning: str, detail: str) -> str:
    return f"{detail} {warning}".strip() if warning else detail


def may_load(spec: RunnerSpec, held: Confinement) -> bool:
    """Whether a process that is locked in so well may load a file of this format."""
    try:
        require(spec, held)
    except CannotLoad:
        return False
    return True


def require(spec: RunnerSpec, held: Confinement, runners: Sequence[type[Runner]] | None = None) -> None:
    """Raise `CannotLoad` unless this process is locked in well enough for a file of this format, and for hooks."""
    owner, declared = _find(installed() if runners is None else runners, spec.format)
    if spec.hooks is not None and owner.manifest.cold:
        detail = "A Python class has preprocess and postprocess of its own: write there what the hooks do."
        raise CannotLoad(Reason.HOOKS_UNUSABLE, detail)
    needed = NEEDED[declared.safety if spec.hooks is None else "code"]
    if spec.accepted is not None:
        needed = min(needed, spec.accepted)
    if held.level < needed:
        raise CannotLoad(
            Reason.NOT_CONFINED,
            f"{declared.name if spec.hooks is None else FILE} needs {needed.short}, and this machine gives {held.level.short}: "
            f"{held.missing}",
        )


def runs_code(spec: RunnerSpec) -> bool:
    """Whether what is loaded may run code: by the format of its file, or by its hooks."""
    codes = {one.name for plugin in installed() for one in plugin.manifest.formats if one.safety == "code"}
    return spec.hooks is not None or spec.format in codes


def unpacks(spec: RunnerSpec) -> bool:
    """Whether a runner for this needs a folder of its own."""
    if spec.hooks is not None and spec.hooks.alone:
        return False
    return any(one.name == spec.format and one.archive == "folder" for plugin in installed() for one in plugin.manifest.formats)


def is_cold(spec: RunnerSpec) -> bool:
    """Whether a runner for this starts as a new Python."""
    cold = any(plugin.manifest.cold and plugin.manifest.name == spec.runner for plugin in installed())
    return cold and spec.hooks is None


@cache
def installed() -> tuple[type[Runner], ...]:
    """Return the runner plugins that are installed here. The template asks first, so that no runner has to look again."""
    found = []
    for name in discovery.names(discovery.RUNNERS):
        try:
            found.append(discovery.find(discovery.RUNNERS, name))
        except ImportError as error:
            sys.stderr.write(f"the runner plugin {name} cannot be imported: {error}\n")
    return tuple(found)


def able() -> Iterator[str]:
    """Yield the names of the runner plugins whose frameworks are installed here."""
    for plugin in installed():
        modules = (*plugin.manifest.preload, *plugin.manifest.preload_when_asked, *plugin.manifest.needs)
        if all(importlib.util.find_spec(module.partition(".")[0]) is not None for module in modules):
            yield plugin.manifest.name


def read(artifact: int, size: int, digest: str) -> bytes:
    """Return the file's bytes; raises `CannotLoad` unless they have this size and this SHA-256."""
    try:
        data = b"".join(_chunks(artifact, size))
    except MemoryError as error:
        raise CannotLoad(Reason.MEMORY_LIMIT, f"The file alone has {size} bytes.") from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise CannotLoad(Reason.CORRUPT, f"{len(data)} of {size} bytes were read, with another digest.")
    return data


def taken(artifact: int, size: int, digest: str) -> bytes:
    """Return the file's bytes as `read` does, and close it."""
    try:
        return read(artifact, size, digest)
    finally:
        os.close(artifact)


def _of_pictures(spec: RunnerSpec) -> tuple[Column, ...]:
    """What a model of pictures is given, as the column of a sample: a block of numbers a row."""
    if spec.image is None:
        return ()
    size = spec.image.size
    shape = (3, size, size) if spec.image.layout == "NCHW" else (size, size, 3)
    return (Column("", Dtype.FP32, shape=shape),)


def _chunks(artifact: int, size: int) -> Iterable[bytes]:
    at = 0
    while at < size and (chunk := os.pread(artifact, min(_CHUNK, size - at), at)):
        at += len(chunk)
        yield chunk


def _find(plugins: Sequence[type[Runner]], name: str) -> tuple[type[Runner], Format]:
    for plugin in plugins:
        for one in plugin.manifest.formats:
            if one.name == name:
                return plugin, one
    raise CannotLoad(Reason.LOAD_FAILED, f"No runner for the format {name} is installed here.")


def _named(plugins: Sequence[type[Runner]], owner: type[Runner], spec: RunnerSpec) -> type[Runner]:
    """The plugin that is to run it, in the precision that is asked for; raises `CannotLoad` rather than take another."""
    found = owner
    if spec.runner != owner.manifest.name:
        able = [one for one in plugins if one.manifest.name == spec.runner and spec.format in one.manifest.also_runs]
        if not able:
            raise CannotLoad(Reason.PROVIDER_MISMATCH, f"The runner {spec.runner} does not run the format {spec.format} here.")
        found = able[0]
    if spec.precision not in found.manifest.precisions:
        raise CannotLoad(Reason.PROVIDER_MISMATCH, f"The runner {spec.runner} does not compute in {spec.precision}.")
    return found


def _opened(
    plugins: Sequence[type[Runner]], declared: Format, data: bytes, memory: int, unpacking: Unpacking | None
) -> Artifact:
    """The artifact as its runner gets it, of the declared format by its content too; an archive unpacks to `memory` bytes."""
    if not data:
        raise CannotLoad(Reason.TRUNCATED, "The file is empty.")
    if not declared.archive or archive.kind(data) is None:
        found = _recognised(plugins, data)
        if not found & {declared.name, *declared.also}:
            found |= _recognised_inside(plugins, data)
        _check_content(declared, found, plugins, data)
        return Artifact(data, declared.name)
    if declared.archive == "folder":
        return _unpacked(plugins, declared, data, memory, unpacking)
    files = archive.contents(data, memory)
    found = _recognised_files(plugins, tuple(files))
    _check_content(declared, found or _recognised(plugins, data), plugins, data)
    return Artifact(b"", declared.name, files)


def _unpacked(
    plugins: Sequence[type[Runner]], declared: Format, data: bytes, memory: int, unpacking: Unpacking | None
) -> Artifact:
    """The artifact in the runner's own folder."""
    found = _recognised_files(plugins, tuple(entry.name for entry in archive.listed(data, memory)))
    _check_content(declared, found or _recognised(plugins, data), plugins, data)
    if unpacking is None:
        raise CannotLoad(
            Reason.NOT_CONFINED,
            f"{declared.name} is unpacked into a folder of the runner's own, and this machine gives none that could be closed "
            "to writing afterwards.",
        )
    unpacking.uploaded(data)
    return Artifact(b"", declared.name, folder=unpacking.folder)


def _recognised(plugins: Sequence[type[Runner]], data: bytes) -> set[str]:
    head, tail = data[:EDGE], data[-EDGE:]
    return {name for plugin in plugins if (name := plugin.recognise(head, tail)) is not None}


def _recognised_inside(plugins: Sequence[type[Runner]], data: bytes) -> set[str]:
    """The formats that an archive is of, where the file is a whole one and was declared to be something else."""
    try:
        return _recognised_files(plugins, tuple(entry.name for entry in archive.listed(data)))
    except CannotLoad:
        return set()


def _recognised_files(plugins: Sequence[type[Runner]], names: tuple[str, ...]) -> set[str]:
    asking = [one for one in map(_with_files, plugins) if one is not None]
    return {name for one in asking if (name := one.recognise_files(names)) is not None}


def _with_files(plugin: type) -> type[RecognisesFiles] | None:
    return plugin if issubclass(plugin, RecognisesFiles) else None


def _check_content(declared: Format, found: set[str], plugins: Sequence[type[Runner]], data: bytes) -> None:
    if found & {declared.name, *declared.also}:
        return
    if found:
        seems = " or ".join(sorted(found))
        formats = [one for plugin in plugins for one in plugin.manifest.formats if one.name in found]
        suffixes = ", ".join(suffix for one in formats for suffix in one.suffixes or ("an archive",))
        detail = f"The file was declared as {declared.name}; its content seems to be {seems} ({suffixes})."
        raise CannotLoad(Reason.MISMATCH, detail)
    raise CannotLoad(Reason.UNRECOGNISED, f"The file was declared as {declared.name}; its content {_describe(data)}.")


def _describe(data: bytes) -> str:
    if data.startswith(b"PK\x03\x04") or data[257:262] == b"ustar":
        for name, words in _IN_ARCHIVES:
            if name in data[:EDGE] or name in data[-EDGE:]:
                return f"seems to be {words}"
    start = data[:64].lstrip()
    for magic, words in _OTHER_CONTENT:
        if start.startswith(magic):
            return f"seems to be {words}"
    if not any(data[:EDGE]):
        return "is nothing but zeros"
    try:
        data[:EDGE].decode()
    except UnicodeDecodeError:
        return "is of no kind known here"
    return "seems to be plain text"


def _explain(error: Exception) -> CannotLoad:
    if is_out_of_memory(error):
        return CannotLoad(Reason.MEMORY_LIMIT, for_people(describe(error)))
    if isinstance(error, ModuleNotFoundError):
        return CannotLoad(Reason.MISSING_DEPENDENCY, f"The module {error.name!r} is not installed here.")
    return CannotLoad(Reason.LOAD_FAILED, for_people(describe(error)))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory could not be had, in Python's words or in those of a C++ framework."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_out_of_memory(str(error)))


def says_out_of_memory(text: str) -> bool:
    """Whether a framework's words, or the last words of a process, mean that memory could not be had."""
    return bool(_NO_MEMORY.search(text))


def describe(error: Exception) -> str:
    """Return an exception as one line: its class and its text."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def for_people(text: str) -> str:
    """Return what a model or a framework said, fit for an answer: one short paragraph without paths."""
    return " ".join(_PATHS.sub("...", text).split())[:MAX_DETAIL]
