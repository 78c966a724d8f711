"""Decides whether an upload is fit to serve, by letting it show so in a runner of its own.

Loads? What goes in and comes out? Do rows run, twice with the same answer, one at a time as well as together? How fast, in how
much memory? The answer is an `Inspection`, or the `Rejection` that tells the uploader what to change.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.rejections import Reason, Rejection
from modelkeep.contracts.report import Check, Compilation, CompiledArtifact, Optimise, Report
from modelkeep.contracts.runner import ModelFacts
from modelkeep.contracts.signature import FLOATS, Dtype, ImageSpec, Layout, Signature, TensorSpec
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.sandbox import frames, golden
from modelkeep.sandbox.agreement import Differs, differing
from modelkeep.sandbox.scores import are_probabilities, score_output, softmax
from modelkeep.worker.calibration import fit_calibration, read_calibration
from modelkeep.worker.compilation import Compiler, Keep
from modelkeep.worker.optimisation import Goal, Optimiser, Subject
from modelkeep.worker.outputs import refined, told_left
from modelkeep.worker.rehearsal import of_hooks, rehearsed
from modelkeep.worker.samples import RefusedError, Sample, as_texts, fit, make_up, read_sample
from modelkeep.worker.trial import StartRunner, Trial, repeated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

_EXAMPLE = "example.json"
_ROWS_MADE_UP = 8
_LENGTHS = (8, 32, 224)
_ROWS_ALONE = 8
_MANY_ROWS = 64
_MISSING_ALLOWED = FLOATS | {Dtype.BYTES}
_NO_CLASSES = frozenset({"regressor", "transformer", "clusterer", "outlier detector"})


class InspectionRequest(msgspec.Struct, frozen=True):
    """One upload to inspect: how to run it, what came with it, whether to compile it and how to optimise it.

    `labels` are in class order; `budget` is the share of accuracy that optimising may cost. `brought`: the sample came in the
    artifact.
    """

    spec: RunnerSpec
    sample: bytes | None = None
    sample_filename: str = ""
    labels: tuple[str, ...] = ()
    compile: bool = True
    optimise: Optimise = "auto"
    calibration: bytes | None = None
    calibration_filename: str = ""
    budget: float = 0.0
    brought: bool = False


class Inspection(msgspec.Struct, frozen=True):
    """What a version that is fit to serve turned out to be.

    `image` has its activation resolved; `scores` names an output; `compiled` is what serves instead of the uploaded file;
    `hooks` are known with their functions and what they go around.
    """

    signature: Signature
    report: Report
    image: ImageSpec | None = None
    scores: str = ""
    compiled: CompiledArtifact | None = None
    hooks: Hooks | None = None


class Inspector(Protocol):
    """Finds out whether an upload is fit to serve."""

    async def inspect(self, request: InspectionRequest) -> Inspection | Rejection:
        """Return the findings, or why the version is refused. Raises `Unavailable` when it could not be tried at all."""
        ...


class RunnerInspector:
    """Inspects uploads in real runners.

    `limits`, where given, replace those of every request. Without `compiler` nothing is compiled, without `optimiser` nothing
    is optimised, without `keep` no golden rows are kept.
    """

    def __init__(
        self,
        start_runner: StartRunner,
        limits: Limits | None = None,
        compiler: Compiler | None = None,
        keep: Keep | None = None,
        optimiser: Optimiser | None = None,
    ) -> None:
        self._start_runner = start_runner
        self._keep = keep
        self._limits = limits
        self._compiler = compiler
        self._optimiser = optimiser

    async def inspect(self, request: InspectionRequest) -> Inspection | Rejection:
        """Return the findings, or why the version is refused. Raises `Unavailable` when it could not be tried at all."""
        spec = request.spec if self._limits is None else msgspec.structs.replace(request.spec, limits=self._limits)
        try:
            sample = None
            if request.sample is not None:
                sample = read_sample(request.sample, request.sample_filename, picture=spec.image is not None)
            return await self._inspected(request, spec, sample)
        except RefusedError as error:
            if error.example and request.sample is None:
                brought = msgspec.structs.replace(request, sample=error.example, sample_filename=_EXAMPLE, brought=True)
                return await self.inspect(brought)
            plain = as_texts(sample) if sample is not None and error.rejection.code is Reason.PREDICT_FAILED else sample
            if plain is sample:
                return error.rejection
            try:  # its dates are not taken as dates: perhaps it was trained on the texts
                return await self._inspected(request, spec, plain)
            except RefusedError:
                return error.rejection

    async def _inspected(self, request: InspectionRequest, spec: RunnerSpec, sample: Sample | None) -> Inspection:
        calibration = None
        if request.calibration is not None:
            calibration = read_calibration(request.calibration, request.calibration_filename, picture=spec.image is not None)
        inspected = self._model_inspected if spec.hooks is None else self._hooked
        return await self._with_golden(*await inspected(request, spec, sample, calibration))

    async def _hooked(
        self, request: InspectionRequest, spec: RunnerSpec, sample: Sample | None, calibration: Sample | None
    ) -> tuple[Inspection, bytes]:
        """Inspect hooks alone, then the model inside by itself, then both as they will serve; the golden rows are those."""
        tried = await rehearsed(self._start_runner, spec, sample, calibration)
        plain = msgspec.structs.replace(request, labels=())
        inside = msgspec.structs.replace(spec, hooks=None)
        try:
            model, _answers = await self._model_inspected(plain, inside, tried.sample, tried.calibration)
        except RefusedError as error:
            raise of_hooks(error) if tried.sample is not sample else error from error
        hooks = msgspec.structs.replace(tried.hooks, inner=model.signature)
        form = msgspec.structs.asdict(model.compiled) if model.compiled else {}
        served = msgspec.structs.replace(spec, image=model.image, hooks=hooks, **form)
        async with self._start_runner(served, sample.columns if sample else ()) as session:
            trial = Trial(session, served.limits, given=sample is not None)
            examination = Examination(served, trial, sample, request.labels, brought=request.brought)
            whole = await examination.conduct()
        report = msgspec.structs.replace(
            whole.report,
            framework=model.report.framework,  # of the uploaded file, whatever serves in its place
            framework_version=model.report.framework_version,
            kind=model.report.kind,
            details=model.report.details | {"hooks": ", ".join(hooks.functions)},
            warnings=tuple(dict.fromkeys((*model.report.warnings, *whole.report.warnings))),
            compiled=model.report.compiled,
            optimised=model.report.optimised,
            hooked=True,
        )
        found = msgspec.structs.replace(whole, report=report, image=model.image, compiled=model.compiled, hooks=hooks)
        return found, examination.golden

    async def _model_inspected(
        self, request: InspectionRequest, spec: RunnerSpec, sample: Sample | None, calibration: Sample | None
    ) -> tuple[Inspection, bytes]:
        """Inspect a model, and have it compiled and made faster; with the file of its golden rows."""
        async with self._start_runner(spec, sample.columns if sample else ()) as session:
            trial = Trial(session, spec.limits, given=sample is not None)
            examination = Examination(spec, trial, sample, request.labels, brought=request.brought)
            found = await examination.conduct()
            rows = None if calibration is None else fit_calibration(calibration, found.signature)
            compilation, artifact = await self._compiled(request, spec, trial, found, examination.tensors)
            report = msgspec.structs.replace(found.report, compiled=compilation)
            found = msgspec.structs.replace(found, report=report, compiled=artifact)
            answers = examination.golden
            if self._optimiser is not None:
                goal = Goal(request.optimise, request.budget, rows)
                found = await self._optimised(goal, spec, trial, found, examination.tensors)
                if found.report.optimised is not None and found.report.optimised.used:
                    found, answers = await self._proven(spec, found, examination.tensors)
            return found, answers

    async def _with_golden(self, found: Inspection, answers: bytes) -> Inspection:
        if self._keep is None or not answers:
            return found
        blob = await self._keep(answers)
        return msgspec.structs.replace(found, report=msgspec.structs.replace(found.report, golden=blob.digest))

    async def _optimised(self, goal: Goal, spec: RunnerSpec, trial: Trial, found: Inspection, tensors: "Arrays") -> Inspection:
        """Have what would serve made faster for this host; raises `RefusedError` where the goal is missed."""
        if self._optimiser is None:
            return found
        lacks = "" if found.report.deterministic else "The model gives the same rows different answers."
        subject = Subject(spec, trial, found.signature, tensors, found.scores, lacks)
        optimisation, artifact = await self._optimiser.optimise(goal, subject)
        report = msgspec.structs.replace(found.report, optimised=optimisation)
        return msgspec.structs.replace(found, report=report, compiled=artifact or found.compiled)

    async def _proven(self, spec: RunnerSpec, found: Inspection, tensors: "Arrays") -> tuple[Inspection, bytes]:
        """Load what is to serve as it will be loaded then, and have it answer the golden rows: a fresh runner answers as it."""
        if found.compiled is None or found.report.optimised is None:
            return found, b""
        form = msgspec.structs.asdict(found.compiled)
        served = msgspec.structs.replace(spec, signature=found.signature, image=found.image, **form)
        async with self._start_runner(served, ()) as session:
            trial = Trial(session, served.limits)
            loaded = await trial.load()
            answers = await packed(trial, tensors)
        optimised = msgspec.structs.replace(found.report.optimised, memory_bytes=max(0, loaded.rss_after - loaded.rss_before))
        details = found.report.details | {
            "served_by": loaded.facts.details.get("provider", ""),
            "served_in": loaded.facts.details.get("precision", ""),
        }
        report = msgspec.structs.replace(found.report, optimised=optimised, details=details)
        return msgspec.structs.replace(found, report=report), answers

    async def _compiled(
        self, request: InspectionRequest, spec: RunnerSpec, trial: Trial, found: Inspection, tensors: "Arrays"
    ) -> tuple[Compilation | None, CompiledArtifact | None]:
        if self._compiler is None:
            return None, None
        if not request.compile:
            return Compilation(used=False, reason="It was switched off with the upload."), None
        if not found.report.deterministic:
            return Compilation(used=False, reason="The model gives the same rows different answers."), None
        return await self._compiler.compile(spec, trial, found.signature, tensors, found.report.latency_ms)


class Examination:
    """One runner, examined step by step; `tensors` are the rows that it ran, `golden` is the file of a few with their answers.

    Steps that refuse raise `RefusedError`; the others leave a `Check`.
    """

    def __init__(
        self, spec: RunnerSpec, trial: Trial, sample: Sample | None, labels: tuple[str, ...], *, brought: bool = False
    ) -> None:
        self._spec = spec
        self._trial = trial
        self._sample = sample
        self._labels = labels
        self._checks: list[Check] = []
        self._depends = False
        self._brought = brought
        self._warnings: list[str] = []
        self.tensors: Arrays = {}
        self.golden = b""

    async def conduct(self) -> Inspection:
        """Take all steps, the ones that may end the process last."""
        loaded = await self._trial.load()
        self._take_example(loaded.facts)
        inputs = self._named(loaded.facts.signature)
        tensors, outputs = await self._first_run(inputs)
        self.tensors = tensors
        rows = len(next(iter(tensors.values())))
        deterministic = await self._again(tensors, outputs)
        single = await self._alone(tensors, outputs, comparable=deterministic)
        await self._check_pieces(loaded.facts.batch, inputs, tensors, single)
        specs = refined(loaded.facts.signature.outputs, outputs, single)
        scores = "" if loaded.facts.kind in _NO_CLASSES else score_output(specs)
        image = self._resolved(scores, outputs)
        self._check_labels(scores, specs)
        if deterministic:
            self.golden = await self._golden(tensors, scores if image is not None and image.activation == "softmax" else "")
        latency = await self._latency(tensors)
        nullable = await self._missing_values(inputs, tensors, outputs)
        signature = msgspec.structs.replace(inputs, inputs=nullable, outputs=specs)
        facts = loaded.facts
        report = Report(
            framework=facts.framework,
            framework_version=facts.framework_version,
            kind=facts.kind,
            details=facts.details,
            warnings=(*facts.warnings, *self._warnings, *told_left(self._trial.left)),
            load_s=round(loaded.seconds, 4),
            memory_bytes=max(0, loaded.rss_after - loaded.rss_before) + loaded.placed,
            peak_bytes=self._trial.peak,
            deterministic=deterministic,
            sample="made up" if self._sample is None else "brought" if self._brought else "given",
            rows_tested=rows,
            latency_ms=latency,
            checks=tuple(self._checks),
            independent=not self._depends,
        )
        return Inspection(signature, report, image, scores)

    # ---- steps

    def _take_example(self, facts: ModelFacts) -> None:
        """Take the rows that the artifact brings for a sample, where the uploader gave none and they can be one."""
        if self._sample is not None or not facts.example or self._spec.image is not None:
            return
        try:
            sample = read_sample(facts.example, _EXAMPLE, picture=False)
            fit(sample, facts.signature)
        except RefusedError as error:
            self._leave_example(error)
        else:
            self._sample, self._brought = sample, True

    def _leave_example(self, error: RefusedError) -> None:
        self._warnings.append(f"The example that came in the folder is not used. {error.rejection.detail}"[:500])

    def _named(self, signature: Signature) -> Signature:
        """The signature, with the sample's column names for a matrix whose columns have none: rows may come as records."""
        sample = self._sample
        if sample is None or signature.layout is not Layout.MATRIX or signature.inputs[0].columns:
            return signature
        names = tuple(one.name for one in sample.columns)
        spec = signature.inputs[0]
        if not names or "" in names or spec.shape[1] not in {-1, len(names)}:
            return signature
        named = msgspec.structs.replace(spec, columns=names, shape=(-1, len(names)))
        return msgspec.structs.replace(signature, inputs=(named,))

    async def _first_run(self, signature: Signature) -> "tuple[Arrays, Arrays]":
        if self._sample is not None:
            tensors: Arrays = fit(self._sample, signature)
            try:
                return tensors, await self._trial.run(tensors)
            except RefusedError as error:
                if not self._brought or self._trial.lost:
                    raise
                self._leave_example(error)
                self._sample, self._brought = None, False
        refused: RefusedError | None = None
        open_axes = any(-1 in one.shape[1:] for one in signature.inputs)
        for length in _LENGTHS if open_axes else _LENGTHS[:1]:
            tensors = make_up(signature, 1 if signature.image else _ROWS_MADE_UP, length)
            try:
                return tensors, await self._trial.run(tensors)
            except RefusedError as error:
                if self._trial.lost or error.rejection.code is not Reason.PREDICT_FAILED:
                    raise
                refused = error
        detail = refused.rejection.detail if refused else ""
        raise RefusedError(Reason.PREDICT_FAILED, f"On made-up rows, as no sample came with the upload: {detail}")

    async def _again(self, tensors: "Arrays", outputs: "Arrays") -> bool:
        second = await self._trial.run(tensors)
        same = set(second) == set(outputs) and all(_equal(outputs[name], second[name]) for name in outputs)
        self._note("the same rows give the same answer", ok=same)
        return same

    async def _alone(self, tensors: "Arrays", outputs: "Arrays", *, comparable: bool) -> "Arrays":
        """Run rows one at a time; returns the answer to the first."""
        name = "a row's answer does not depend on the other rows"
        rows = len(next(iter(tensors.values())))
        single = [{key: array[at : at + 1] for key, array in tensors.items()} for at in range(min(rows, _ROWS_ALONE))]
        answers = [await self._trial.run(row) for row in single]
        if comparable and rows > 1:
            apart = [at for at, one in enumerate(answers) if not close_rows(outputs, one, at)]
            self._depends = bool(apart)
            self._note(name, ok=not apart, detail=f"rows {apart} differ" if apart else "")
        return answers[0]

    async def _check_pieces(self, batch: int, signature: Signature, tensors: "Arrays", single: "Arrays") -> None:
        """Refuse a graph of a fixed batch whose rows are not independent: filled up, it would answer something else.

        The sample may be one row, or have equal ones: so its first row is also run beside made-up ones.
        """
        if batch < 2:  # noqa: PLR2004 - a run of one row has no other rows
            return
        if not self._depends:
            import numpy as np

            others = make_up(signature, batch - 1, _LENGTHS[0])
            alike = all(array.shape[1:] == others[name].shape[1:] for name, array in tensors.items())
            for place in (0, batch - 1) if alike else ():
                mixed = {name: np.insert(others[name], place, array[0], axis=0) for name, array in tensors.items()}
                with contextlib.suppress(RefusedError):  # the model need not take what was made up
                    beside = await self._trial.run(mixed)
                    self._depends |= not close_rows(beside, single, place)
        if self._depends:
            raise RefusedError(
                Reason.SIGNATURE_UNSUPPORTED,
                f"The model takes exactly {batch} rows, and the answer to one of them depends on the others: "
                "its first axis is no batch.",
            )

    def _resolved(self, scores: str, outputs: "Arrays") -> ImageSpec | None:
        image = self._spec.image
        if image is None:
            return None
        if not scores:
            self._note("one output has one score a class", ok=False, detail="Classes cannot be named.")
        if image.activation != "auto":
            return image
        raw = bool(scores) and not are_probabilities(outputs[scores])
        return msgspec.structs.replace(image, activation="softmax" if raw else "none")

    async def _golden(self, tensors: "Arrays", activated: str) -> bytes:
        """Have as many of the rows as may be kept answered together, as they will be when the version serves."""
        softened = activated and self._spec.image is not None and self._spec.image.activation != "softmax"
        answers = await packed(self._trial, tensors, activated if softened else "")
        if not answers:
            detail = "One alone is larger than may be kept."
            self._note("rows are kept, to be asked again at every load", ok=False, detail=detail)
        return answers

    def _check_labels(self, scores: str, specs: tuple[TensorSpec, ...]) -> None:
        if not self._labels:
            return
        if not scores:
            raise RefusedError(Reason.LABELS_MISMATCH, "No output of the model has one score a class.")
        classes = next(one.shape[1] for one in specs if one.name == scores)
        if classes not in {-1, len(self._labels)}:
            raise RefusedError(
                Reason.LABELS_MISMATCH, f"There are {len(self._labels)} labels; the output {scores!r} has {classes} classes."
            )

    async def _latency(self, tensors: "Arrays") -> dict[str, float]:
        latency: dict[str, float] = {}
        for count in (1, _MANY_ROWS):
            try:
                latency[str(count)] = round(await self._trial.median_ms(repeated(tensors, count)), 3)
            except (RefusedError, frames.FrameError) as error:
                self._note(f"{count} rows at once", ok=False, detail=str(error))
                break
        return latency

    async def _missing_values(self, signature: Signature, tensors: "Arrays", outputs: "Arrays") -> tuple[TensorSpec, ...]:
        """The inputs, marked `nullable` where a row without that value is answered with a number or a text."""
        if signature.image:
            return signature.inputs
        given = {one.name for one in signature.inputs if _has_missing(tensors[one.name])}
        accepted = []
        for one in signature.inputs:
            takes = one.name in given
            if not takes and one.dtype in _MISSING_ALLOWED and not self._trial.lost:
                takes = await self._takes_missing(one, tensors, outputs)
            accepted.append(msgspec.structs.replace(one, nullable=takes))
        return tuple(accepted)

    async def _takes_missing(self, spec: TensorSpec, tensors: "Arrays", outputs: "Arrays") -> bool:
        row = {name: array[:1].copy() for name, array in tensors.items()}
        row[spec.name].fill(None if spec.dtype is Dtype.BYTES else float("nan"))
        try:
            answer = await self._trial.run(row)
        except RefusedError as error:
            if self._trial.lost:
                self._note(f"a missing {spec.name} is refused or answered", ok=False, detail=str(error))
            return False
        return not any(_has_missing(array) for name, array in answer.items() if not _has_missing(outputs[name]))

    def _note(self, name: str, *, ok: bool, detail: str = "") -> None:
        self._checks.append(Check(name, ok, detail))


async def packed(trial: Trial, tensors: "Arrays", softened: str = "") -> bytes:
    """Have as many of the rows as may be kept answered together; nothing where not even one may be.

    The output `softened` becomes probabilities. Raises `RefusedError`.
    """
    count = min(golden.ROWS, len(next(iter(tensors.values()))))
    while count:
        rows = {name: array[:count] for name, array in tensors.items()}
        outputs = dict(await trial.run(rows))
        if softened:
            outputs[softened] = softmax(outputs[softened])
        try:
            return golden.pack(rows, outputs)
        except frames.FrameError:
            count //= 2
    return b""


def _equal(left: "NDArray[np.generic]", right: "NDArray[np.generic]") -> bool:
    import numpy as np

    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f" == right.dtype.kind)


def close_rows(together: "Arrays", alone: "Arrays", at: int) -> bool:
    """Whether a row's own answer is the one it got among others; sums in another order may differ in the last digits."""
    try:
        differing(alone, {name: array[at : at + 1] for name, array in together.items()})
    except Differs:
        return False
    return True


def _has_missing(array: "NDArray[np.generic]") -> bool:
    if array.dtype.kind == "f":
        return bool((array != array).any())  # noqa: PLR0124 - only NaN differs from itself
    return array.dtype == object and any(value is None for value in array.reshape(-1).tolist())
