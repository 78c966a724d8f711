"""Before the control plane is answered for: the database is brought up to date, as soon as it is there."""

import asyncio

import structlog

from modelkeep.app.control_plane import ControlPlane
from modelkeep.app.places import Places
from modelkeep.contracts.errors import StorageFull, Unavailable
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate

_POLL_S = 0.5

log = structlog.get_logger(__name__)


async def wait(db: Database, control: ControlPlane, places: Places, opened: asyncio.Event, trouble: str) -> None:
    """Prepare the database, which has this trouble, as soon as it answers, and set `opened`."""
    if opened.is_set():
        return
    log.warning("waits_for_the_database", reason=trouble)
    while trouble:
        await asyncio.sleep(_POLL_S)
        trouble = await prepare(db, control, places)
    log.info("database_is_back")
    opened.set()


async def prepare(db: Database, control: ControlPlane, places: Places) -> str:
    """Bring the database up to date, and what is made from it; returns why that cannot be now, or nothing."""
    try:
        await migrate(db)
        await control.deployments.publish()
        await _offer_setup(control, places)
    except (Unavailable, StorageFull) as error:
        return error.message
    return ""


async def _offer_setup(control: ControlPlane, places: Places) -> None:
    """Leave a one-time token for the first administrator in a file that only this user reads."""
    token = await control.users.ensure_setup_token(utc_now())
    places.forget_setup_token()
    if token is not None:
        places.keep_setup_token(token)
