"""The job `validate_version`: a received version becomes ready or rejected, by what an inspector finds out about it.

All it needs is the version's row, so it can be done again from the start whenever a worker dies over it; a version that has
been decided stays as it is.
"""

import asyncio

from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.rejections import Reason, Rejection, reject
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.models.rules import Findings, Sample, Version
from modelkeep.control.models.service import Models
from modelkeep.control.safety.service import Switches
from modelkeep.infra.jobs import Job
from modelkeep.sandbox import loader
from modelkeep.worker.inspection import Inspection, InspectionRequest, Inspector


class Validation:
    """Validates versions. Every `look_s` seconds it looks whether files that run code are still allowed."""

    def __init__(
        self,
        models: Models,
        switches: Switches,
        blobs: BlobStore,
        inspector: Inspector,
        limits: Limits,
        *,
        look_s: float = 1.0,
    ) -> None:
        self._models = models
        self._switches = switches
        self._blobs = blobs
        self._inspector = inspector
        self._limits = limits
        self._look_s = look_s
        self._why: dict[str, str] = {}

    async def run(self, job: Job) -> None:
        """Validate the version that the job is about."""
        version = await self._models.begin_validation(job.subject)
        if version is None:
            await self._models.finish_job(job.id)
            return
        try:
            outcome = await self._inspected(await self._request(version))
        except Unavailable as error:
            self._why[job.id] = error.message
            raise
        self._why.pop(job.id, None)
        match outcome:
            case Inspection() as found:
                findings = Findings(found.signature, found.report, found.image, found.scores, found.compiled, found.hooks)
                await self._models.accept(version.id, findings, job.id)
            case Rejection() as rejection:
                await self._models.reject(version.id, rejection, job.id)

    async def give_up(self, job: Job) -> None:
        """Reject the version with a code that says it was not its uploader's fault."""
        why = self._why.pop(job.id, "")
        detail = f"It was begun {job.attempts - 1} times and never came to an end.{' The last time: ' + why if why else ''}"
        await self._models.reject(job.subject, reject(Reason.VALIDATION_FAILED, detail), job.id, failed=True)

    async def _inspected(self, request: InspectionRequest) -> Inspection | Rejection:
        """Inspect. What may run code is refused, and its runners end, as soon as an administrator allows it no more."""
        if not loader.runs_code(request.spec):
            return await self._inspector.inspect(request)
        inspecting: asyncio.Task[Inspection | Rejection] | None = None
        try:
            while (await self._switches.safety()).code_allowed:
                if inspecting is None:
                    inspecting = asyncio.create_task(self._inspector.inspect(request))
                elif inspecting.done():
                    return inspecting.result()
                await asyncio.wait({inspecting}, timeout=self._look_s)
        finally:
            if inspecting is not None:
                inspecting.cancel()
                await asyncio.gather(inspecting, return_exceptions=True)
        return reject(Reason.CODE_REFUSED)

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
