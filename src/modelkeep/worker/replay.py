"""The job `replay_predictions`: recorded predictions, or rows of somebody's own, answered again by both files of a version.

Both files get fresh runners, locked in as those of a validation are, with the same limits. All it needs is the replay's row
and the history, so it can be done again from the start whenever a worker dies over it; a replay that has ended stays as it is.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from typing import Final

import msgspec

from modelkeep.contracts.actor import SYSTEM
from modelkeep.contracts.confinement import Level
from modelkeep.contracts.errors import ModelkeepError, NotFound, Unavailable
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.snapshot import Limits, Recording, ServedVersion
from modelkeep.control.deployments.rules import served_version
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.models.rules import Version
from modelkeep.control.models.service import Models
from modelkeep.control.predictions.errors import PredictionNotFound
from modelkeep.control.predictions.rules import Wanted
from modelkeep.control.predictions.service import Predictions
from modelkeep.control.replays.rules import (
    MOST,
    Compared,
    Details,
    Failure,
    File,
    Pair,
    Replay,
    Skip,
    SkippedPrediction,
    Summary,
    compared_as,
    counted,
    expiry,
    may_quote,
    may_show,
)
from modelkeep.control.replays.service import Replays
from modelkeep.control.safety.service import Switches
from modelkeep.infra.clock import Clock
from modelkeep.infra.jobs import Job
from modelkeep.sandbox.agreement import ABSOLUTE, RELATIVE, RELATIVE_TO_ROW
from modelkeep.serving.codec import tensors_from_json
from modelkeep.worker.candidate import NAMES, Beside, same_inputs
from modelkeep.worker.comparing import Part, Tally
from modelkeep.worker.forms import Forms, FormsFailedError
from modelkeep.worker.recorded import Question, SkippedError, question_of
from modelkeep.worker.trial import StartRunner

WITHIN_S: Final = 300.0
_PAGE: Final = 200
_MOST_LOOKED_AT: Final = 20_000
_TELL_EVERY_S: Final = 1.0
_TOLERANCES: Final[Mapping[Compared, tuple[float | None, float | None]]] = {
    Compared.NUMBERS: (RELATIVE, ABSOLUTE),
    Compared.NUMBERS_BY_ROW: (RELATIVE_TO_ROW, ABSOLUTE),
    Compared.CLASSES: (None, None),
}
"""Relative and absolute tolerance, by what is compared."""


class CameToNothingError(Exception):
    """The replay cannot be done; the failure says why."""

    def __init__(self, code: str, message: str) -> None:
        self.failure = Failure(code, message)
        super().__init__(message)


class Replaying:
    """Does replays. `within_s` bounds each of them, runners bound the memory."""

    def __init__(
        self,
        *,
        replays: Replays,
        models: Models,
        deployments: Deployments,
        predictions: Predictions,
        switches: Switches,
        start_runner: StartRunner,
        limits: Limits,
        clock: Clock,
        within_s: float = WITHIN_S,
    ) -> None:
        self._replays = replays
        self._models = models
        self._deployments = deployments
        self._predictions = predictions
        self._switches = switches
        self._start_runner = start_runner
        self._limits = limits
        self._clock = clock
        self._within_s = within_s

    async def run(self, job: Job) -> None:
        """Do the replay that the job is about."""
        begun = await self._replays.begin(job.subject)
        if begun is None:
            await self._replays.finish_job(job.id)
            return
        replay, rows = begun
        candidate = replay.asked.candidate
        beside = await self._models.version(SYSTEM, replay.model, candidate) if candidate else None
        attempt = _Attempt(replay, await self._models.version(SYSTEM, replay.model, replay.version), beside)
        await self._attempt(attempt, rows, job)
        # What left the history before this was written down was not there to be removed from it; what leaves it later is.
        await self._replays.forget_shown(self._predictions.missing, replay.id)

    async def _attempt(self, attempt: "_Attempt", rows: str | None, job: Job) -> None:
        replay = attempt.replay
        try:
            async with asyncio.timeout(self._within_s):
                await self._answer_again(attempt, rows)
        except TimeoutError:
            text = f"It was not done after {self._within_s:g} s, at {attempt.replayed} predictions. Ask for fewer."
            await self._replays.fail(replay.id, Failure("replay_timeout", text), job.id)
        except CameToNothingError as error:
            await self._fail(attempt, error.failure, job)
        except FormsFailedError as error:
            quoted = attempt.may_quote()
            of = attempt.asking.prediction if quoted and attempt.asking is not None else None
            failure = Failure(error.code, str(error) if quoted else error.unquoted, of or "")
            await self._fail(attempt, failure, job)
        else:
            await self._replays.finish(replay.id, attempt.summary(), attempt.details(), self._expiry(attempt), job.id)

    async def give_up(self, job: Job) -> None:
        """Write down that it failed, and that this was nobody's fault who asked."""
        text = f"It was begun {job.attempts - 1} times and never came to an end. The worker's log says more."
        await self._replays.fail(job.subject, Failure("replay_failed", text), job.id, failed=True)

    async def _fail(self, attempt: "_Attempt", failure: Failure, job: Job) -> None:
        """Write down that it came to nothing, for as long as what it shows may be kept."""
        shown = attempt.details()
        await self._replays.fail(attempt.replay.id, failure, job.id, details=shown, expires_at=self._expiry(attempt))

    def _expiry(self, attempt: "_Attempt") -> datetime:
        return expiry(self._clock(), attempt.replay.created_at, attempt.shown())

    async def _answer_again(self, attempt: "_Attempt", rows: str | None) -> None:
        questions = self._questions(attempt, rows)
        async with aclosing(questions), AsyncExitStack() as stack:
            forms: Forms | None = None
            told = time.monotonic()
            async for question in questions:
                forms = forms or await self._forms(stack, attempt)
                await attempt.know(question.deployment, self._deployments)
                attempt.asking = question
                async for part in forms.ask(question):
                    await asyncio.to_thread(attempt.take, part)  # many rows take long, and others have jobs
                attempt.asking = None
                attempt.replayed += 1
                if time.monotonic() - told >= _TELL_EVERY_S:
                    await self._replays.note_progress(attempt.replay.id, attempt.replayed)
                    told = time.monotonic()
            if forms is None:
                raise CameToNothingError("nothing_to_replay", attempt.why_nothing())

    async def _forms(self, stack: AsyncExitStack, attempt: "_Attempt") -> Forms:
        """Start the two that answer: a version's two files, or what serves of the version and of a candidate."""
        accepted = (await self._switches.safety()).accepted
        version = attempt.version
        serving = self._served(version, accepted)
        try:
            if attempt.beside is not None:
                candidate = self._served(attempt.beside.candidate, accepted)
                return await Forms.start(stack, self._start_runner, candidate, serving, names=NAMES)
            original = self._served(msgspec.structs.replace(version, compiled=None), accepted)
            return await Forms.start(stack, self._start_runner, serving, original)
        except (Unavailable, NotFound) as error:
            raise CameToNothingError(error.code, f"The replay could not begin: {error.message}") from error

    def _served(self, version: Version, accepted: Level | None) -> ServedVersion:
        served = served_version(version, (), self._limits)
        assert served is not None  # noqa: S101 - a ready version has a signature
        return msgspec.structs.replace(served, spec=msgspec.structs.replace(served.spec, accepted=accepted))

    async def _questions(self, attempt: "_Attempt", rows: str | None) -> AsyncGenerator[Question, None]:
        """Yield what is to be asked again; what cannot be is noted."""
        asked, version = attempt.replay.asked, attempt.version
        signature = version.signature
        if signature is None:
            return
        beside = None if attempt.beside is None else attempt.beside.candidate.signature
        if beside is not None and not same_inputs(signature, beside):
            text = f"Version {asked.candidate} takes other inputs than version {version.number}: it cannot be asked the same."
            raise CameToNothingError("other_inputs", text)
        if asked.rows:
            try:
                yield Question(tensors_from_json(signature, (rows or "[]").encode()), deployment=version.model)
            except ModelkeepError as error:
                raise CameToNothingError(error.code, error.message) from error
            return
        records = self._named(asked.predictions, attempt) if asked.predictions else self._newest(version, attempt)
        async with aclosing(records):
            async for record in records:
                try:
                    of = record.version_id if asked.days and asked.candidate else version.id  # its inputs alone count then
                    question = question_of(record, of, signature)
                except SkippedError as error:
                    attempt.skip(error.skipped)
                    continue
                yield question
                if not asked.predictions and attempt.replayed >= asked.most:
                    return

    async def _named(self, ids: tuple[str, ...], attempt: "_Attempt") -> AsyncGenerator[PredictionRecord, None]:
        for prediction_id in ids:
            try:
                yield await self._predictions.prediction(prediction_id)
            except PredictionNotFound:
                attempt.skip(SkippedPrediction(prediction_id, Skip.NOT_FOUND))

    async def _newest(self, version: Version, attempt: "_Attempt") -> AsyncGenerator[PredictionRecord, None]:
        before: str | None = None
        wanted, days = Wanted(version=version.id), attempt.replay.asked.days
        if days:
            wanted = Wanted(deployment=version.model) if attempt.beside is not None else wanted
            wanted = msgspec.structs.replace(wanted, since=(self._clock() - timedelta(days=days)).timestamp())
        while True:
            page = await self._predictions.page(wanted, limit=_PAGE, before=before)
            for record in page.records:
                yield record
            if page.before is None or attempt.looked_at >= _MOST_LOOKED_AT:
                return
            before = page.before


class _Attempt:
    """One replay on its way: what has been answered again, and what was skipped."""

    def __init__(self, replay: Replay, version: Version, candidate: Version | None = None) -> None:
        self.replay = replay
        self.version = version
        self.beside = None if candidate is None else Beside(version, candidate)
        serving = version.compiled
        self._original = File(version.digest, version.format, version.runner)
        self._serving = (
            self._original if serving is None else File(serving.digest, serving.format, serving.runner, serving.precision)
        )
        self._compared = compared_as(self._original, self._serving)
        self.tally = Tally(version.scores, self._may_show, self._compared)
        self.asking: Question | None = None
        self.replayed = 0
        self._skipped: list[SkippedPrediction] = []
        self._counts: dict[str, int] = {}
        self._recordings: dict[str, Recording | None] = {}
        self._deployments: dict[str, str] = {}

    def take(self, part: Part) -> None:
        """Compare the answers to some rows."""
        if self.beside is None:
            self.tally.take(part)
        else:
            self.beside.take(part, self._recordings.get(part.question.deployment))
            if part.question.prediction is not None:
                self._deployments[part.question.prediction] = part.question.deployment

    def _may_show(self, question: Question, output: str) -> bool:
        """Whether policy keeps an output, now and when it was answered."""
        if question.answered.partly and output not in question.answered.outputs:
            return False
        return may_show(output, self._recordings.get(question.deployment), recorded=question.prediction is not None)

    def may_quote(self) -> bool:
        """Whether what a model said over the question in hand may be written down."""
        asking = self.asking
        if asking is None:  # it was not asked anything yet
            return True
        recorded = asking.prediction is not None
        return not asking.answered.partly and may_quote(self._recordings.get(asking.deployment), recorded=recorded)

    @property
    def looked_at(self) -> int:
        """How many predictions were looked at."""
        return self.replayed + sum(self._counts.values())

    def skip(self, skipped: SkippedPrediction) -> None:
        """Note a prediction that is not answered again."""
        for reason, count in counted([skipped]).items():
            self._counts[reason] = self._counts.get(reason, 0) + count
        if len(self._skipped) < MOST:
            self._skipped.append(skipped)

    async def know(self, deployment: str, deployments: Deployments) -> None:
        """Learn the policy of a deployment as it is now."""
        if deployment not in self._recordings:
            try:
                found, _serving = await deployments.deployment(SYSTEM, deployment)
                self._recordings[deployment] = found.settings.recording
            except NotFound:
                self._recordings[deployment] = None

    def why_nothing(self) -> str:
        """Return why there was nothing to answer again."""
        if not self._counts:
            return "The history holds no predictions of this version."
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self._counts.items()))
        return f"None of {self.looked_at} predictions can be answered again: {reasons}."

    def shown(self) -> list[tuple[float, int]]:
        """Return the times of the predictions that are shown, and the days for which they are kept."""
        asking = [] if self.asking is None else [self.asking]  # whose words a failure may hold
        shown = [one for one in (*self.tally.shown_of, *asking) if one.prediction is not None]
        kept = [(one.at, self._recordings.get(one.deployment)) for one in shown]
        if self.beside is not None:
            kept += [(one.at, self._recordings.get(self._deployments[one.prediction])) for one in self.beside.worst]
        return [(at, recording.keep_days) for at, recording in kept if recording is not None]

    def details(self) -> Details:
        """Return the rows that differ, and the predictions that were skipped."""
        worst = () if self.beside is None else self.beside.worst
        return Details(tuple(self.tally.shown), tuple(self._skipped), worst=worst)

    def summary(self) -> Summary:
        """Return how it came out."""
        relative, absolute = _TOLERANCES[self._compared]
        candidate = None if self.beside is None else self.beside.summary()
        return Summary(
            original=self._original,
            serving=self._serving,
            predictions=0 if self.replay.asked.rows else self.looked_at,
            replayed=0 if self.replay.asked.rows else self.replayed,
            skipped=dict(self._counts),
            rows=self.tally.rows if candidate is None else candidate.rows,
            rows_equal=self.tally.equal if candidate is None else candidate.rows - candidate.differ,
            rows_refused=self.tally.refused if self.beside is None else self.beside.refused,
            recorded_serving=self.tally.pair(Pair.RECORDED_SERVING),
            serving_original=self.tally.pair(Pair.SERVING_ORIGINAL),
            recorded_original=self.tally.pair(Pair.RECORDED_ORIGINAL),
            relative_tolerance=relative,
            absolute_tolerance=absolute,
            compared=self._compared,
            candidate=candidate,
        )
