"""The database's schema, brought up to date by Alembic: all steps in one transaction, one process at a time."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import structlog

from modelkeep.infra.db import Database, DatabaseUnavailable

HEAD: Final = "0028"  # the newest step: known here so that a start with nothing to do need not import Alembic
_LOCK: Final = 0x6D6F64656C  # any number that nobody else takes in this database ("model")
_log = structlog.get_logger(__name__)
_version = sa.table("alembic_version", sa.column("version_num"))


async def migrate(db: Database) -> None:
    """Bring the schema up to date; whoever comes second waits and finds nothing left to do."""
    if await current(db) == HEAD:
        return
    async with db.begin() as tx:  # SQLite: this is the lock, for the transaction begins by writing
        if not db.sqlite:
            await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        await tx.connection.run_sync(_upgrade)


async def current(db: Database) -> str | None:
    """Return the step that the schema is at; None for an empty database."""
    async with db.read() as tx:
        if not await tx.connection.run_sync(lambda connection: sa.inspect(connection).has_table("alembic_version")):
            return None
        row = await tx.one(sa.select(_version.c.version_num))
        return None if row is None else str(row.version_num)


async def wait_until_current(
    db: Database, stop: asyncio.Event | None = None, *, poll_s: float = 0.05, away_poll_s: float = 0.5
) -> None:
    """Wait until the database answers and another process has brought its schema up to date, or until `stop`."""
    stop = stop or asyncio.Event()
    waited = False
    while not stop.is_set():
        try:
            if await current(db) == HEAD:
                if waited:
                    _log.info("database_is_back")
                return
            pause_s = poll_s
        except DatabaseUnavailable as error:
            if not waited:
                _log.warning("waits_for_the_database", reason=error.message)
            waited, pause_s = True, away_poll_s
        with suppress(TimeoutError):  # a database that is away, or being made, cannot tell anyone
            async with asyncio.timeout(pause_s):
                await stop.wait()


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
