"""The model that a platform puts into a folder of its container, as SageMaker does: it is taken up as any upload is.

At each start the folder says what answers. What lies there is stored by its content, and validated in a runner; a file of a
format that can run code is refused unless an administrator takes such files. Once it is ready, it is promoted. The same content
is the same version, so that a restart changes nothing; other content is a new version, and what was there before is that one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import IO, Final

import structlog

from modelkeep.api import uploads
from modelkeep.api.schemas.models import PlannedUpload
from modelkeep.api.services import Services
from modelkeep.client.errors import Invalid as CannotPack
from modelkeep.client.folder import LEFT_OUT
from modelkeep.client.upload import Sent, prepare
from modelkeep.client.upload import Upload as Packed
from modelkeep.contracts.actor import SYSTEM
from modelkeep.contracts.errors import MasterKeyMissing, ModelkeepError, StorageRefused, Unavailable
from modelkeep.control.access.rules import DEFAULT_WORKSPACE
from modelkeep.control.models.errors import ModelNotFound
from modelkeep.control.models.rules import State, Upload, Version

log = structlog.get_logger(__name__)

_MIB: Final = 1024 * 1024
_AGAIN_S: Final = 5.0
_LONGEST_S: Final = 300.0
_LOOK_BACK: Final = 1000  # versions, among which the folder's content is looked for


async def take_up(folder: Path, name: str, services: Services) -> None:
    """Have the model in `folder`, if there is one, answer as the deployment `name`; what is wrong with it goes into the log.

    Where the database or the store is away, it is tried again. Whatever is wrong, the server goes on.
    """
    pause_s = _AGAIN_S
    while True:
        try:
            return await _take_up(folder, name, services)
        except (ModelkeepError, CannotPack, OSError, UnicodeError) as error:
            passes = isinstance(error, Unavailable) and not isinstance(error, StorageRefused | MasterKeyMissing)
            if not passes:  # who sets this right starts the server again
                log.error("the model folder cannot be taken up", folder=str(folder), reason=str(error))  # noqa: TRY400 - it says all
                return None
            log.warning("the model folder waits", folder=str(folder), reason=str(error), seconds=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_S)  # each time the model is packed again
        except Exception:
            log.exception("the model folder cannot be taken up", folder=str(folder))
            return None


async def _take_up(folder: Path, name: str, services: Services) -> None:
    source = await asyncio.to_thread(model_in, folder)
    if source is None:
        return
    str(source).encode()  # a name that is no UTF-8 could be kept nowhere
    log.info("a model lies in the model folder", path=str(source), deployment=name)
    with closing(await asyncio.to_thread(prepare, source)) as packed:
        version = await _stored(packed, name, services)
    while not version.state.final:
        await asyncio.sleep(services.settings.events_poll_s)  # the worker is another process: its row tells
        version = await services.models.version(SYSTEM, name, version.number)
    if version.state is State.READY:
        await services.deployments.promote(SYSTEM, name, version.number)
        log.info("the model folder's model is promoted", deployment=name, version=version.number)
    else:
        log.error("the model in the model folder was rejected", deployment=name, version=version.number)


def model_in(folder: Path) -> Path | None:
    """Return the file or the folder that is the model: what lies in `folder` alone, else all of it; None where nothing does."""
    try:
        found = [one for one in folder.iterdir() if one.name not in LEFT_OUT]
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(found) != 1:
        return folder if found else None
    return model_in(found[0]) if found[0].is_dir() else found[0]


async def _stored(packed: Packed, name: str, services: Services) -> Version:
    """Return the version that has this content: one that there is, or a new one."""
    form = packed.fields.get("format", "")
    place = await services.models.expect_upload(SYSTEM, name, create_in=DEFAULT_WORKSPACE)
    may = await uploads.allowed(services, SYSTEM, place)
    uploads.check(PlannedUpload(filename=packed.filename, format=form, size=packed.size), may, services.settings)
    with packed.parts(Sent(packed.size)) as parts:
        _name, (_filename, content, _type) = parts[-1]
        blob = await services.blobs.put(_pieces(content), max_bytes=services.settings.max_upload_mb * _MIB)
    try:
        versions = await services.models.versions(SYSTEM, name, limit=_LOOK_BACK)
    except ModelNotFound:
        versions = []
    known = next((one for one in versions if one.digest == blob.digest), None)
    if known is not None:
        return known
    chosen, runner = may.choose(packed.filename, form)
    return await services.models.receive(
        SYSTEM, name, Upload(blob, packed.filename, chosen, runner), create_in=DEFAULT_WORKSPACE
    )


async def _pieces(content: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(content.read, _MIB):
        yield piece
