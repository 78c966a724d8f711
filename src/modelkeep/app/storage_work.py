"""What commands do to all model files at once, with or without a running installation: rotate keys, remove what is unused."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.app import bootstrap, roles
from modelkeep.app.control_plane import control_plane
from modelkeep.app.places import Places
from modelkeep.contracts.errors import Invalid
from modelkeep.infra.blob_claims import Claims
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database
from modelkeep.infra.envelopes import MasterKeys
from modelkeep.infra.migrations import HEAD, current
from modelkeep.infra.sealed_store import Rotation, SealedStore
from modelkeep.infra.settings import sqlite_file
from modelkeep.infra.site_key import opened
from modelkeep.worker.collector import Collector, Found

if TYPE_CHECKING:
    from modelkeep.app.settings import Settings
    from modelkeep.infra.storage_metrics import StorageMeter


class NotSealed(Invalid):
    """No master key is set here: name their file with storage.master_keys_file."""

    code = "storage_not_sealed"


class NotStarted(Invalid):
    """Nothing is known of these files: this release of Modelkeep has not been started with this database yet."""

    code = "storage_not_started"


class KeysNotSet(Invalid):
    """There are sealed files and no master key is set here, so it cannot be told which files are used."""

    code = "storage_keys_not_set"


async def rotate(settings: "Settings") -> tuple[str, Rotation]:
    """Seal the keys of all files with the newest master key; returns its name and what was done.

    Raises `NotSealed`, and `OthersTurn` while unused files are being removed.
    """
    if not settings.storage.master_keys_file:
        raise NotSealed
    places = Places(settings.data)
    keys = MasterKeys.read(Path(settings.storage.master_keys_file))
    store = SealedStore(bootstrap.noting_store(settings.storage, places), keys)
    async with database(settings, places) as db:
        if db is None:
            return keys.newest, await store.rotate(_alone)
        async with Claims(db, utc_now).turn() as turn:
            done = await store.rotate(turn.keep)
    meter = _meter(places)
    if meter is not None:
        meter.rotated(done.rewritten)
        meter.close()
    return keys.newest, done


async def collect(settings: "Settings", *, dry_run: bool, unknown: bool) -> Found:
    """Remove the files that nothing uses, or with `dry_run` only look; returns what was found.

    `unknown`: also those that this installation has never stored. Raises `NotStarted`, `KeysNotSet`, `OthersTurn`.
    """
    places = Places(settings.data)
    if unknown and not settings.storage.master_keys_file:
        async for _digest in bootstrap.noting_store(settings.storage, places).notes():
            raise KeysNotSet
    async with database(settings, places) as db:
        if db is None:
            raise NotStarted
        control = control_plane(
            db,
            ring_worker=_silent,
            ring_courier=_silent,
            limits=roles.limits(settings),
            site=opened(places.site_key),
            acceptable=settings.runners.unsafe_allow_level,
        )
        meter = _meter(places)
        collector = Collector(
            db,
            control.models,
            Claims(db, utc_now),
            bootstrap.blob_store(settings.storage, places),
            utc_now,
            keep_days=settings.storage.keep_unused_days,
            told=_Untold() if meter is None else meter,
        )
        try:
            return await (collector.look(unknown=unknown) if dry_run else collector.collect(unknown=unknown))
        finally:
            if meter is not None:
                meter.close()


class _Untold:
    """Hears what nobody will ask for: nothing runs here."""

    def keeps(self, kept: Mapping[str, int]) -> None:
        """Forget it."""

    def removed(self, size: int) -> None:
        """Forget it."""


def _meter(places: Places) -> "StorageMeter | None":
    """Return what counts for a command, where there is an installation to count for."""
    return bootstrap.storage_meter(places, "command") if places.storage_metrics.is_dir() else None


@asynccontextmanager
async def database(settings: "Settings", places: Places) -> AsyncIterator[Database | None]:
    """Yield the control plane's database; None where this release has not been started with it: then nobody collects there."""
    chosen = roles.database_settings(settings, places)
    file = sqlite_file(chosen.url)
    if file is not None and not file.exists():
        yield None
        return
    db = Database(chosen)
    try:
        yield db if await current(db) == HEAD else None
    finally:
        await db.close()


async def _alone() -> None:
    """Go on: nobody else works here."""


def _silent() -> None:
    """Ring nobody."""
