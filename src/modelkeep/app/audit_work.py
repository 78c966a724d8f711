"""What the processes do for the audit trail beside their work: sum up refusals (api), keep the trail (worker)."""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.audit.service import Audit
from modelkeep.infra.audit_sinks import FileSink, SyslogSink
from modelkeep.infra.clock import utc_now
from modelkeep.infra.settings import AuditSettings
from modelkeep.infra.storage_metrics import StorageMeter
from modelkeep.worker.audit import Keeper, Sink

_REFUSALS_S: Final = 15.0
_log = structlog.get_logger(__name__)


async def sum_up_refusals(audit: Audit) -> None:
    """Have the refusals that were only counted written down when it is time, and, before this process ends, in any case."""
    ending = False
    while not ending:
        try:
            await asyncio.sleep(_REFUSALS_S)
        except asyncio.CancelledError:
            ending = True
        try:
            await audit.sum_up(now_due=ending)
        except ModelkeepError as error:
            _log.warning("refusals_not_audited", reason=error.message)


def keeper(settings: AuditSettings, audit: Audit, meter: StorageMeter) -> Keeper:
    """Return what keeps the audit trail, with the sinks that are set."""
    sinks: list[Sink] = []
    if settings.file:
        sinks.append(FileSink(Path(settings.file), settings.file_mb))
    if settings.syslog:
        sinks.append(SyslogSink(settings.syslog))
    return Keeper(audit, sinks, utc_now, told=meter, contents=settings.sink_contents == "all")
