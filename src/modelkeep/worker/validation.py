"""The job `validate_version`: a received version becomes ready or rejected, by what an inspector finds out about it.

All it needs is the version's row, so it can be done again from the start whenever a worker dies over it; a version that has
been decided stays as it is.
"""

from modelkeep.contracts.rejections import Reason, Rejection, reject
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.models.rules import Findings, Sample, Version
from modelkeep.control.models.service import Models
from modelkeep.control.safety.service import Switches
from modelkeep.infra.jobs import Job
from modelkeep.worker.inspection import Inspection, InspectionRequest, Inspector


class Validation:
    """Validates versions."""

    def __init__(self, models: Models, switches: Switches, blobs: BlobStore, inspector: Inspector, limits: Limits) -> None:
        self._models = models
        self._switches = switches
        self._blobs = blobs
        self._inspector = inspector
        self._limits = limits

    async def run(self, job: Job) -> None:
        """Validate the version that the job is about."""
        version = await self._models.begin_validation(job.subject)
        if version is None:
            await self._models.finish_job(job.id)
            return
        match await self._inspector.inspect(await self._request(version)):
            case Inspection() as found:
                findings = Findings(found.signature, found.report, found.image, found.scores, found.compiled, found.hooks)
                await self._models.accept(version.id, findings, job.id)
            case Rejection() as rejection:
                await self._models.reject(version.id, rejection, job.id)

    async def give_up(self, job: Job) -> None:
        """Reject the version with a code that says it was not its uploader's fault."""
        detail = f"It was begun {job.attempts - 1} times and never came to an end."
        await self._models.reject(job.subject, reject(Reason.VALIDATION_FAILED, detail), job.id, failed=True)

    async def _request(self, version: Version) -> InspectionRequest:
        spec = RunnerSpec(
            version_id=version.id,
            digest=version.digest,
            size=version.size,
            format=version.format,
            runner=version.runner,
            image=version.image,
            limits=self._limits,
            accepted=(await self._switches.safety()).accepted,
            hooks=version.hooks,
        )
        return InspectionRequest(
            spec,
            await self._bytes(version.sample),
            version.sample.filename if version.sample else "",
            await self._models.labels(version.id),
            compile=version.compile != "off",
            optimise=version.optimise,
            calibration=await self._bytes(version.calibration),
            calibration_filename=version.calibration.filename if version.calibration else "",
            budget=version.accuracy_budget,
        )

    async def _bytes(self, kept: Sample | None) -> bytes | None:
        return None if kept is None else b"".join([piece async for piece in self._blobs.read(kept.digest)])
