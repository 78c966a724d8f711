"""Has a model run faster on this host: by OpenVINO, in bfloat16, in integers or with more threads; it serves only with proof.

Every candidate is loaded in a runner of its own, which reads back what it runs on and in. In FP32 it must answer as the
original does, elsewhere it must stay within the user's accuracy budget, on rows that it was not fitted to. Where the user
leaves the choice, the fastest serves, if it is worth it; where the user named one, that one serves or the version is refused.
How many threads are fastest is such a choice, too, made only where it is asked for: replicas spread over cores, and what one
row gains by more threads, others wait for.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.report import Candidate, CompiledArtifact, Optimisation, Optimise
from modelkeep.contracts.runner import Precision
from modelkeep.contracts.signature import FLOATS, Dtype, Layout, Signature
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import frames
from modelkeep.sandbox.agreement import Differs, agreeing
from modelkeep.worker.compilation import Keep, NotUsedError
from modelkeep.worker.drawn import drawn
from modelkeep.worker.heldout import DEVIATION, TOP_CLASS, measure, split
from modelkeep.worker.processor import Processor
from modelkeep.worker.samples import RefusedError
from modelkeep.worker.trial import StartRunner, Trial, per_row, repeated, speed_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

WORTH_IT = 1.1
"""How many times faster than the uploaded file a candidate must be, where the choice is left to us."""

_FORMAT = "onnx"
_AT_ONCE = 64
_PICTURES_AT_ONCE = 8

_NO_ROWS = "It needs calibration rows."
_NO_BUDGET = "It needs an accuracy budget above 0."


class Goal(msgspec.Struct, frozen=True):
    """What the user asks for: which way, how much accuracy it may cost (a share), and calibration rows by input name."""

    asked: Optimise = "auto"
    budget: float = 0.0
    rows: "dict[str, NDArray[np.generic]] | None" = None


class Subject(msgspec.Struct, frozen=True):
    """The model: how to run the uploaded file, and the trial of it, which has the right answers.

    `rows` are the sample by input name; `scores` names the output with one score a class; `lacks` says why nothing else may
    serve in its place, "" where something may.
    """

    spec: RunnerSpec
    original: Trial
    signature: Signature
    rows: "Arrays"
    scores: str = ""
    lacks: str = ""


class Way(msgspec.Struct, frozen=True):
    """One way to run a model: its name in `optimise`, the plugin that runs it, in what, and with how many threads.

    0 threads are as many as the installation says.
    """

    name: Optimise
    provider: str
    precision: Precision
    threads: int = 0

    @property
    def title(self) -> str:
        """What its candidate is called."""
        return f"{self.name}-{self.threads}" if self.threads else self.name


WAYS = (
    Way("openvino", "openvino", "f32"),
    Way("bf16", "openvino", "bf16"),
    Way("int8", "onnx", "int8"),
    Way("int8", "openvino", "int8"),
)

_LEFT_TO_US = frozenset({"auto", "threads"})


def ways(asked: Optimise, processor: Processor, threads: int) -> list[Way]:
    """Return the ways that are asked for, on a machine where a model has so many `threads` otherwise."""
    if asked != "threads":
        return [way for way in WAYS if asked in {"auto", way.name}]
    return [Way("threads", _FORMAT, "f32", number) for number in _numbers(processor.cores) if number != threads]


def _numbers(cores: int) -> list[int]:
    """Which numbers of threads may be best: powers of two, all cores, and one for each pair, which may share a core."""
    doubled = (1 << power for power in range(cores.bit_length()))
    return sorted({*doubled, cores // 2 or 1, cores})


def objection(way: Way, goal: Goal, processor: Processor, installed: frozenset[str], *, pointed: bool = True) -> str:
    """Return why a way need not even be tried, "" where it is to be. `pointed`: pictures or floats are all that it takes."""
    if goal.asked == "auto" and not pointed and way.provider != _FORMAT:
        return "Whole numbers and texts that one library refuses another may answer: it is tried where it is named."
    if way.provider not in installed:
        return f"The extra {way.provider} is not installed here."
    if way.precision == "bf16" and not processor.bfloat16:
        return "This processor does not compute in bfloat16."
    if way.precision != "f32" and goal.rows is None:
        return _NO_ROWS
    if way.precision != "f32" and goal.budget <= 0 and (goal.asked == "auto" or way.precision == "bf16"):
        return _NO_BUDGET
    return ""


def choice(candidates: tuple[Candidate, ...], asked: Optimise) -> int | None:
    """Return the place of the fastest candidate that nothing speaks against; where nobody named it, only if it is worth it."""
    able = [at for at, one in enumerate(candidates) if not one.reason and (asked not in _LEFT_TO_US or one.speed >= WORTH_IT)]
    return min(able, key=lambda at: per_row(candidates[at].latency_ms), default=None)


class Optimiser:
    """Optimises models. `convert_s` bounds the making of integers, `compare_s` all of it; runners bound the memory.

    `installed` are the runner plugins whose frameworks are there.
    """

    def __init__(
        self,
        start_runner: StartRunner,
        keep: Keep,
        installed: frozenset[str],
        processor: Processor,
        *,
        convert_s: float = 300.0,
        compare_s: float = 900.0,
    ) -> None:
        self._start_runner = start_runner
        self._keep = keep
        self._installed = installed
        self._processor = processor
        self._convert_s = convert_s
        self._compare_s = compare_s

    async def optimise(self, goal: Goal, subject: Subject) -> tuple[Optimisation, CompiledArtifact | None]:
        """Return what came of it, and what is to serve, if anything new; raises `RefusedError` where the goal is missed."""
        search = _Search(self._start_runner, self._keep, goal, subject, self._convert_s)
        reason = _unfit(subject)
        if goal.asked == "off":
            reason = "It was switched off with the upload."
        if not reason:
            try:
                async with asyncio.timeout(self._compare_s):
                    reason = await search.through(self._processor, self._installed)
            except TimeoutError:
                reason = f"It took longer than {self._compare_s:g} s."
        outcome, artifact = search.outcome(reason)
        if artifact is None and goal.asked not in {*_LEFT_TO_US, "off"}:
            raise RefusedError(Reason.OPTIMISATION_MISSED, missed(outcome))
        return outcome, artifact


def missed(outcome: Optimisation) -> str:
    """Return in words what was asked for and what was measured instead."""
    tried = "; ".join(f"{one.name} by {one.provider}: {one.reason}" for one in outcome.candidates)
    return f"{outcome.asked} was asked for. {tried or outcome.reason}"


def _unfit(subject: Subject) -> str:
    if subject.spec.format != _FORMAT:
        return "Only graphs that were uploaded as one ONNX file are optimised."
    if subject.original.lost:
        return "The runner was lost before, over a row with missing values."
    return subject.lacks


class _Search:
    """The search for one model: what was tried, and what it is to be compared with."""

    def __init__(self, start_runner: StartRunner, keep: Keep, goal: Goal, subject: Subject, convert_s: float) -> None:
        self._start_runner = start_runner
        self._keep = keep
        self._goal = goal
        self._subject = subject
        self._convert_s = convert_s
        self._before_ms: dict[str, float] = {}
        self._found: list[tuple[Candidate, CompiledArtifact | None]] = []
        self._calibrating, self._held = _halves(goal)

    async def through(self, processor: Processor, installed: frozenset[str]) -> str:
        """Try every way that is asked for; returns why none could be tried, "" where that was not in the way."""
        signature = self._subject.signature
        pointed = signature.layout is Layout.IMAGE or all(one.dtype in FLOATS for one in signature.inputs)
        asked = ways(self._goal.asked, processor, self._subject.spec.threads_used)
        against = {way: objection(way, self._goal, processor, installed, pointed=pointed) for way in asked}
        self._found += [(_named(way, reason=reason), None) for way, reason in against.items() if reason]
        able = [way for way in asked if not against[way]]
        if not able:
            return "Nothing could be tried here."
        try:
            self._before_ms = await self._timed(self._subject.original)  # the machine may have been busier before
        except (RefusedError, ModelkeepError, frames.FrameError, OSError) as error:
            return f"The uploaded file could not be timed: {error}"
        spec = self._subject.spec
        for way in able:
            if way.precision != "int8":
                await self._try(
                    way, CompiledArtifact(spec.digest, spec.size, _FORMAT, way.provider, way.precision, way.threads)
                )
        integers = [way for way in able if way.precision == "int8"]
        for spare_ends in (False, True):
            if integers and not any(one.precision == "int8" and not one.reason for one, _artifact in self._found):
                await self._try_integers(integers, narrow=processor.narrow, spare_ends=spare_ends)
        return ""

    def outcome(self, reason: str) -> tuple[Optimisation, CompiledArtifact | None]:
        """Return what is known so far, and what is to serve by it."""
        candidates = tuple(one for one, _artifact in self._found)
        chosen = None if reason else choice(candidates, self._goal.asked)
        told = tuple(_with_verdict(one, used=at == chosen) for at, one in enumerate(candidates))
        rows = self._goal.rows is not None
        return Optimisation(
            asked=self._goal.asked,
            used=chosen is not None,
            reason="" if chosen is not None else reason or "No candidate was accepted and at least 1.1 times faster.",
            budget=self._goal.budget,
            measured=(TOP_CLASS if self._subject.scores else DEVIATION) if rows else "",
            rows_calibrated=len(self._calibrating),
            rows_held_out=len(self._held),
            before_ms=self._before_ms,
            latency_ms={} if chosen is None else candidates[chosen].latency_ms,
            candidates=told,
        ), None if chosen is None else self._found[chosen][1]

    # ---- steps

    async def _timed(self, trial: Trial) -> dict[str, float]:
        latency = {}
        for count in self._before_ms or ("1", "64"):
            try:
                latency[str(count)] = round(await trial.median_ms(repeated(self._subject.rows, int(count))), 4)
            except (RefusedError, frames.FrameError):
                if not latency or self._before_ms:
                    raise
        return latency

    async def _try(self, way: Way, artifact: CompiledArtifact, name: str = "") -> None:
        """Run one candidate, and keep what was seen of it."""
        seen = _named(way, name=name)
        spec = msgspec.structs.replace(
            self._subject.spec, signature=self._subject.signature, **msgspec.structs.asdict(artifact)
        )
        try:
            async with self._start_runner(spec, ()) as session:
                trial = Trial(session, spec.limits)
                await trial.load()
                seen = await (self._agrees(seen, trial) if way.precision == "f32" else self._measured(seen, trial))
                latency = await self._timed(trial)
                speed = speed_of(latency, self._before_ms)
                seen = msgspec.structs.replace(seen, latency_ms=latency, speed=speed)
        except RefusedError as error:
            rejection = error.rejection
            seen = msgspec.structs.replace(seen, reason=f"A runner failed over it: {rejection.detail or rejection.code}")
        except (ModelkeepError, frames.FrameError, OSError) as error:
            seen = msgspec.structs.replace(seen, reason=f"It could not be tried: {error}")
        self._found.append((seen, artifact))

    async def _try_integers(self, ways: list[Way], *, narrow: bool, spare_ends: bool) -> None:
        name = "int8-ends" if spare_ends else ""
        try:
            data = await self._integers(narrow=narrow, spare_ends=spare_ends)
            blob = await self._keep(data)
        except NotUsedError as error:
            self._found += [(_named(way, name=name, reason=str(error)), None) for way in ways]
            return
        for way in ways:
            await self._try(way, CompiledArtifact(blob.digest, blob.size, _FORMAT, way.provider, way.precision), name)

    async def _integers(self, *, narrow: bool, spare_ends: bool) -> bytes:
        """Have a runner of the uploaded file make its form in integers; raises `NotUsedError`."""
        rows = self._rows(self._calibrating)
        spec = msgspec.structs.replace(self._subject.spec, quantises=True)
        try:
            async with self._start_runner(spec, ()) as session:
                trial = Trial(session, spec.limits)
                await trial.load()
                message, tensors = await trial.quantise(rows, self._convert_s, narrow=narrow, spare_ends=spare_ends)
        except RefusedError as error:
            raise NotUsedError(f"A runner failed over it: {error.rejection.detail or error.rejection.code}") from error
        except (ModelkeepError, frames.FrameError, OSError) as error:
            raise NotUsedError(f"It could not be tried: {error}") from error
        if isinstance(message, frames.NotCompiled):
            raise NotUsedError(message.reason)
        made = tensors.get(frames.ARTIFACT)
        if made is None or made.dtype.name != Dtype.UINT8.numpy or not len(made) or message.format != _FORMAT:
            raise NotUsedError("The runner returned no ONNX file.")
        return made.tobytes()

    # ---- comparisons

    async def _agrees(self, seen: Candidate, trial: Trial) -> Candidate:
        """Compare with the original on the sample, rows drawn around it, and calibration rows; numbers must be the same."""
        largest, compared = 0.0, 0
        for rows in self._all_rows():
            wanted, given = await self._both(rows, trial)
            compared += len(next(iter(rows.values())))
            try:
                largest = max(largest, agreeing(wanted, given))
            except Differs as error:
                return msgspec.structs.replace(seen, rows=compared, largest_difference=largest, reason=str(error))
        return msgspec.structs.replace(seen, rows=compared, largest_difference=largest)

    async def _measured(self, seen: Candidate, trial: Trial) -> Candidate:
        """Compare with the original on the rows that are held out; the measure must be within the budget."""
        import numpy as np

        starts = range(0, len(self._held), self._at_once)
        answers = [await self._both(self._rows(self._held[at : at + self._at_once]), trial) for at in starts]
        names = [set(one) for both in answers for one in both]
        if any(one != names[0] for one in names):
            return msgspec.structs.replace(seen, rows=len(self._held), reason="Its outputs have other names.")
        wanted, given = ({name: np.concatenate([both[at][name] for both in answers]) for name in names[0]} for at in (0, 1))
        share = measure(wanted, given, self._subject.scores)
        reason = "" if share <= self._goal.budget else f"It measures {share:.4g}; the accuracy budget is {self._goal.budget:g}."
        return msgspec.structs.replace(seen, rows=len(self._held), measure=share, reason=reason)

    async def _both(self, rows: "Arrays", trial: Trial) -> "tuple[Arrays, Arrays]":
        return await self._subject.original.run(rows), await trial.run(rows)

    @property
    def _at_once(self) -> int:
        return _PICTURES_AT_ONCE if self._subject.signature.layout in {Layout.IMAGE, Layout.TENSORS} else _AT_ONCE

    def _rows(self, places: "NDArray[np.intp]") -> "Arrays":
        rows = self._goal.rows or {}
        return {name: array[places] for name, array in rows.items()}

    def _all_rows(self) -> "list[Arrays]":
        """The sample, what is drawn around it, and the calibration rows, a few at a time."""
        import numpy as np

        signature, sample = self._subject.signature, self._subject.rows
        parts: list[Arrays] = [sample]
        source = signature.inputs[0]
        if signature.layout is Layout.MATRIX and source.dtype in FLOATS and -1 not in source.shape[1:]:
            parts.append({source.name: drawn(source, sample[source.name])})
        if self._goal.rows is not None:
            parts.append(self._goal.rows)
        return [
            {name: np.ascontiguousarray(array[start : start + self._at_once]) for name, array in part.items()}
            for part in parts
            for start in range(0, len(next(iter(part.values()))), self._at_once)
        ]


def _halves(goal: Goal) -> "tuple[NDArray[np.intp], NDArray[np.intp]]":
    return split(len(next(iter(goal.rows.values()))) if goal.rows else 0)


def _named(way: Way, *, name: str = "", reason: str = "") -> Candidate:
    return Candidate(name or way.title, way.provider, way.precision, reason=reason)


def _with_verdict(one: Candidate, *, used: bool) -> Candidate:
    """The candidate with whether it serves; one that nothing spoke against is told why not."""
    if used or one.reason:
        return msgspec.structs.replace(one, used=used)
    slow = one.speed < WORTH_IT
    reason = f"It is {one.speed:g} times as fast, not {WORTH_IT:g}." if slow else "Another is faster."
    return msgspec.structs.replace(one, reason=reason)
