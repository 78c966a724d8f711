"""Has a model compiled to a faster form, and lets that serve only where it shows to be the same model, and faster.

The model's own runner converts; a second runner loads the result; both answer the same rows. Whatever fails or differs
leaves the original in use, and the report says why: no version is refused over this.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.report import Compilation, CompiledArtifact
from modelkeep.contracts.signature import FLOATS, Dtype, Layout, Signature
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.contracts.storage import Blob, BlobStore
from modelkeep.sandbox import frames, loader
from modelkeep.sandbox.agreement import ABSOLUTE, RELATIVE, Differs, differing
from modelkeep.worker.drawn import drawn_rows
from modelkeep.worker.samples import RefusedError
from modelkeep.worker.trial import StartRunner, Trial, repeated, speed_of

if TYPE_CHECKING:
    from modelkeep.worker.trial import Arrays

Keep = Callable[[bytes], Awaitable[Blob]]
"""Stores what validation made, a compiled artifact or golden rows, where the supervisor finds it."""

_AT_ONCE = 64


class NotUsedError(Exception):
    """The compiled form is not to serve; the sentence says why."""


def keep_in(blobs: BlobStore) -> Keep:
    """Return how to store what validation made among the blobs."""

    async def keep(data: bytes) -> Blob:
        async def once() -> AsyncIterator[bytes]:
            yield data

        return await blobs.put(once(), max_bytes=len(data))

    return keep


class Compiler:
    """Compiles models. `convert_s` bounds the conversion, `compare_s` all that follows; runners bound the memory."""

    def __init__(self, start_runner: StartRunner, keep: Keep, *, convert_s: float = 120.0, compare_s: float = 180.0) -> None:
        self._start_runner = start_runner
        self._keep = keep
        self._convert_s = convert_s
        self._compare_s = compare_s

    async def compile(
        self, spec: RunnerSpec, original: Trial, signature: Signature, rows: "Arrays", latency_ms: dict[str, float]
    ) -> tuple[Compilation, CompiledArtifact | None]:
        """Return what came of it, and the artifact that is to serve instead of the one that `original` runs, if any.

        `rows` are the sample by input name, `latency_ms` what runs of the original take.
        """
        attempt = _Attempt(spec, original, signature, rows, latency_ms)
        try:
            message, data = await attempt.convert(self._convert_s)
            async with asyncio.timeout(self._compare_s):
                artifact = await self._compared(attempt, message, data)
        except NotUsedError as error:
            return attempt.outcome(str(error)), None
        except TimeoutError:
            return attempt.outcome(f"Comparing took longer than {self._compare_s:g} s."), None
        except RefusedError as error:
            rejection = error.rejection
            return attempt.outcome(f"A runner failed over it: {rejection.detail or rejection.code}"), None
        except (ModelkeepError, frames.FrameError, OSError) as error:
            return attempt.outcome(f"It could not be tried: {error}"), None
        return attempt.outcome(), artifact

    async def _compared(self, attempt: "_Attempt", message: frames.Compiled, data: bytes) -> CompiledArtifact:
        blob = await self._keep(data)
        artifact = CompiledArtifact(blob.digest, blob.size, message.format, message.runner)
        async with self._start_runner(attempt.spec_of(artifact), ()) as session:
            trial = Trial(session, attempt.spec.limits)
            await trial.load()
            await attempt.compare(trial, message.edges)
            await attempt.time(trial)
        return artifact


class _Attempt:
    """One model's way to its compiled form, and what was seen on it."""

    def __init__(
        self, spec: RunnerSpec, original: Trial, signature: Signature, rows: "Arrays", latency_ms: dict[str, float]
    ) -> None:
        self.spec = spec
        self._original = original
        self._signature = signature
        self._rows = rows
        self._original_ms = latency_ms
        self._compared = 0
        self._first: dict[str, object] = {}
        self._varied = False
        self._largest = 0.0
        self._latency_ms: dict[str, float] = {}

    def outcome(self, reason: str = "") -> Compilation:
        """Return what is known so far; used, unless there is a reason against it."""
        return Compilation(
            used=not reason,
            reason=reason,
            rows_compared=self._compared,
            largest_difference=self._largest,
            relative_tolerance=RELATIVE,
            absolute_tolerance=ABSOLUTE,
            latency_ms=self._latency_ms,
            speed=0.0 if reason else speed_of(self._latency_ms, self._original_ms),
        )

    def spec_of(self, artifact: CompiledArtifact) -> RunnerSpec:
        """Return how to run the compiled form: another file, the same signature."""
        return msgspec.structs.replace(self.spec, signature=self._signature, **msgspec.structs.asdict(artifact))

    async def convert(self, within_s: float) -> tuple[frames.Compiled, bytes]:
        """Have the original's runner convert it."""
        if not _is_tabular(self._signature):
            raise NotUsedError("Only models of one matrix of numbers or of a table are compiled.")
        if self._original.lost:
            raise NotUsedError("The runner was lost before, over a row with missing values.")
        message, tensors = await self._original.compile(within_s)
        if isinstance(message, frames.NotCompiled):
            raise NotUsedError(message.reason)
        artifact = tensors.get(frames.ARTIFACT)
        if artifact is None or artifact.dtype.name != Dtype.UINT8.numpy or not len(artifact):
            raise NotUsedError("The converter returned no file.")
        if not _parses_only(message):
            raise NotUsedError(f"The converter returned {message.format[:40]!r}, which is no format that is only parsed.")
        return message, artifact.tobytes()

    async def compare(self, compiled: Trial, edges: Sequence[Sequence[float]]) -> None:
        """Run the sample and drawn rows through both; raises `NotUsedError` at the first difference.

        It does so, too, where every row got the same answer: a form that says the same whatever it is asked would pass.
        """
        import numpy as np

        drawn = drawn_rows(self._signature, self._rows, edges)
        rows = {
            name: np.concatenate([sample.reshape(-1, *drawn[name].shape[1:]), drawn[name]])
            for name, sample in self._rows.items()
        }
        count = len(next(iter(rows.values())))
        for start in range(0, count, _AT_ONCE):
            await self._compare(compiled, {name: array[start : start + _AT_ONCE] for name, array in rows.items()})
        if not self._varied:
            raise NotUsedError(
                f"All {self._compared} rows compared got one answer, which proves little: "
                "a sample of rows that are answered differently would."
            )

    async def _compare(self, compiled: Trial, rows: "Arrays") -> None:
        """Compare the answers to some rows. Where one is refused, each is asked by itself: both must refuse the same."""
        import numpy as np

        rows = {name: np.ascontiguousarray(array) for name, array in rows.items()}
        count = len(next(iter(rows.values())))
        wanted, given = await _answered(self._original, rows), await _answered(compiled, rows)
        if isinstance(wanted, RefusedError) or isinstance(given, RefusedError):
            if count > 1:
                for half in (slice(0, count // 2), slice(count // 2, count)):
                    await self._compare(compiled, {name: array[half] for name, array in rows.items()})
                return
            if not isinstance(wanted, RefusedError) and isinstance(given, RefusedError):
                raise given
            if isinstance(wanted, RefusedError) and not isinstance(given, RefusedError):
                raise NotUsedError(f"It answers a row that the model refuses: {wanted.rejection.detail}")
        else:
            try:
                self._largest = max(self._largest, differing(wanted, given))
            except Differs as error:
                raise NotUsedError(str(error)) from error
            self._varied = self._varied or self._vary(wanted)
        self._compared += count

    def _vary(self, answers: "Arrays") -> bool:
        """Whether these answers differ among themselves, or from the first of all."""
        rows = {name: array.tolist() for name, array in answers.items()}
        self._first = self._first or {name: values[0] for name, values in rows.items()}
        return any(one != self._first[name] for name, values in rows.items() for one in values)

    async def time(self, compiled: Trial) -> None:
        """Measure the compiled form; raises `NotUsedError` unless it is faster with every number of rows."""
        for count, original_ms in self._original_ms.items():
            self._latency_ms[count] = round(await compiled.median_ms(repeated(self._rows, int(count))), 4)
            if self._latency_ms[count] >= original_ms:
                raise NotUsedError(
                    f"It is not faster: {self._latency_ms[count]:g} ms for {count} rows, not {original_ms:g} ms."
                )


def _is_tabular(signature: Signature) -> bool:
    """Whether the inputs are one matrix of floats of a known width, or columns."""
    source = signature.inputs[0]
    if signature.layout is Layout.MATRIX:
        return source.dtype in FLOATS and -1 not in source.shape[1:]
    return signature.layout is Layout.TABLE


async def _answered(trial: Trial, rows: "Arrays") -> "Arrays | RefusedError":
    """The answers to these rows, or the refusal; raises `RefusedError` where it is not about the rows."""
    try:
        return await trial.run(rows)
    except RefusedError as error:
        if trial.lost or error.rejection.code is not Reason.PREDICT_FAILED:
            raise
        return error


def _parses_only(message: frames.Compiled) -> bool:
    """Whether what came is of a format that an installed runner only parses."""
    return any(
        form.name == message.format and form.safety == "data" and plugin.manifest.name == message.runner
        for plugin in loader.installed()
        for form in plugin.manifest.formats
    )
