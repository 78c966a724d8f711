"""Builds the object graph of each process: the only place that knows every class."""

import errno
import socket
from asyncio import Event
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelkeep.app.places import Places
from modelkeep.app.roles import ControlRole
from modelkeep.contracts import discovery
from modelkeep.contracts.errors import Invalid, ModelkeepError, NotFound
from modelkeep.contracts.secret import hidden_again
from modelkeep.contracts.storage import StorageSettings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from modelkeep.api.services import Services
    from modelkeep.app.control_plane import ControlPlane
    from modelkeep.contracts.runner import Manifest
    from modelkeep.contracts.storage import BlobStore, NotingStore
    from modelkeep.infra.db import Database
    from modelkeep.infra.storage_metrics import StorageMeter
    from modelkeep.worker.runners import Runners

_METERS = ("api", "worker", "courier", "supervisor", "command")


def noting_store(storage: StorageSettings, places: Places) -> "NotingStore":
    """Return the store of files as they lie there; raises `Invalid` for settings that cannot be used."""
    folder = places.blobs if storage.kind == "local" else places.copies
    try:
        store: NotingStore = discovery.find(discovery.STORAGE, storage.kind).create(folder, storage)
    except ImportError as error:
        raise Invalid(f"storage.kind = {storage.kind} needs: pip install 'modelkeep[{storage.kind}]'") from error
    return store


def blob_store(storage: StorageSettings, places: Places, meter: "StorageMeter | None" = None) -> "BlobStore":
    """Return the store of artifacts, counted by `meter`; raises `Invalid` for settings that cannot be used."""
    noting = noting_store(storage, places)
    store: BlobStore = noting
    if storage.master_keys_file:
        from modelkeep.infra.envelopes import MasterKeys
        from modelkeep.infra.sealed_store import SealedStore

        store = SealedStore(noting, MasterKeys.read(Path(storage.master_keys_file)))
    if meter is None:
        return store
    from modelkeep.infra.storage_metrics import MeteredStore

    return MeteredStore(store, meter)


def storage_meter(places: Places, role: str) -> "StorageMeter":
    """Return what counts storage for a process, in a file that the process which replaces it goes on with."""
    from modelkeep.infra.storage_metrics import StorageMeter

    return StorageMeter(places.storage_metrics, _METERS.index(role))


def artifact_opener(storage: StorageSettings, places: Places) -> Callable[[str], Awaitable[int]]:
    """Return how the supervisor opens an artifact: read-only, never looking inside."""
    store = blob_store(storage, places, storage_meter(places, "supervisor"))

    async def open_artifact(digest: str) -> int:
        try:
            return await store.open(digest)
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, "it is not in the store") from error
        except ModelkeepError as error:
            raise OSError(errno.EIO, error.message) from error

    return open_artifact


def manifests() -> "list[Manifest]":
    """Return what the installed runners say of themselves."""
    return [discovery.find(discovery.RUNNERS, name).manifest for name in discovery.names(discovery.RUNNERS)]


async def api(told: bytes, inner: socket.socket, stop: Event, started: Callable[[], None]) -> None:
    """Bring the database up to date, then serve the control plane on `inner` until `stop`.

    While the database is away, requests are refused with 503 and it is tried again and again.
    """
    from modelkeep.api import console
    from modelkeep.api.asgi import create_app
    from modelkeep.api.services import Services
    from modelkeep.app import description, opening, people
    from modelkeep.control.models.rules import Formats
    from modelkeep.control.predictions.service import Predictions
    from modelkeep.infra.blob_claims import ClaimedStore, Claims
    from modelkeep.infra.clock import utc_now
    from modelkeep.infra.prediction_log import history_database

    role, places, db, control = _control(told, "api")
    store = ClaimedStore(blob_store(role.storage, places, storage_meter(places, "api")), Claims(db, utc_now))
    await store.sweep()
    history = history_database(role.database, places.data)
    opened = Event()
    services = Services(
        users=control.users,
        access=control.access,
        approvals=control.approvals,
        switches=control.switches,
        models=control.models,
        lifecycle=control.lifecycle,
        deployments=control.deployments,
        audit=control.audit,
        predictions=Predictions(history, utc_now),
        feedback=control.feedback,
        replays=control.replays,
        rollouts=control.rollouts,
        alerts=control.alerts,
        shadows=control.shadows,
        schedules=control.schedules,
        blobs=store,
        formats=Formats.of(manifests()),
        settings=role.api,
        idempotency=control.idempotency,
        **people.services(control, db, places, role.auth),
    )
    built = console.read(files("modelkeep") / "console")
    app = create_app(services, opened, door=description.door, rates=role.rates, console=built)
    server = _listening(app, role.drain_s)
    trouble = await opening.prepare(db, control, places)
    if not trouble:
        opened.set()  # before anyone is answered: where the database is there, nobody is refused
    coming = opening.wait(db, control, places, opened, trouble)
    await _serve(server, inner, stop, started, _beside(coming, role, services))
    await services.identities.close()
    await history.close()
    await db.close()


def _listening(app: "FastAPI", drain_s: float) -> "Server":
    """Return a server of the control plane, which answers the server process alone."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(drain_s) or 1,
    )
    return uvicorn.Server(config)


async def _serve(
    server: "Server", inner: socket.socket, stop: Event, started: Callable[[], None], opening: Coroutine[object, object, None]
) -> None:
    """Answer on `inner` until `stop`, while `opening` goes on beside it; what fails there ends both."""
    import asyncio

    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[inner]))
        beside = tasks.create_task(opening)
        started()
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        stopping.cancel()
        beside.cancel()


async def _beside(opening: Coroutine[object, object, None], role: ControlRole, services: "Services") -> None:
    """Do `opening`, then take up what a platform has put into the model folder."""
    from modelkeep.app.audit_work import sum_up_refusals
    from modelkeep.app.model_folder import take_up

    await opening
    if role.model_folder:
        await take_up(Path(role.model_folder), role.model_name, services)
    await sum_up_refusals(services.audit)


async def courier(told: bytes, stop: Event, started: Callable[[], None]) -> None:
    """Carry snapshots to serving, heartbeats to the database and predictions to the history until `stop`."""
    import asyncio

    from modelkeep.control.predictions.service import Predictions
    from modelkeep.infra.bell import Bell, Bells
    from modelkeep.infra.clock import utc_now
    from modelkeep.infra.db import DatabaseUnavailable
    from modelkeep.infra.migrations import HEAD, current
    from modelkeep.infra.prediction_log import history_database
    from modelkeep.worker.courier import Courier
    from modelkeep.worker.history import HistoryCourier
    from modelkeep.worker.reading import IdleReader
    from modelkeep.worker.shadow_reports import ShadowReports

    role, places, db, control = _control(told, "courier")
    history = history_database(role.database, places.data)
    carrying = Courier(
        db,
        control.deployments,
        places.snapshot,
        places.run,
        Bells(map(Bell, places.bells(role.servers))),
        shadows=ShadowReports(places.shadows, control.shadows.hear),
    )
    idle = IdleReader()
    predictions = Predictions(history, utc_now)
    meter = storage_meter(places, "courier")

    async def forget_shown() -> int:
        if await current(db) != HEAD:  # replays lie where the api first has to make room for them
            raise DatabaseUnavailable
        rows = await control.replays.forget_shown(predictions.missing)
        rows += await control.shadows.forget_shown(predictions.missing)
        meter.rows_forgotten(rows)
        return rows

    loading = HistoryCourier(
        predictions,
        places.spools,
        places.snapshot,
        role.history,
        tell=places.loading,
        idle=idle,
        forget_shown=forget_shown,
    )
    started()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(carrying.run(stop))
        tasks.create_task(loading.run(stop))
    await idle.close()
    await history.close()
    await db.close()


async def worker(told: bytes, runners: "Runners", stop: Event, started: Callable[[], None]) -> None:
    """Do the jobs, and remove the files that nothing uses any more, until `stop`."""
    from modelkeep.app.audit_work import keeper
    from modelkeep.app.people import follower
    from modelkeep.control.models.service import VALIDATE_VERSION
    from modelkeep.control.predictions.service import Predictions
    from modelkeep.control.replays.service import REPLAY_PREDICTIONS
    from modelkeep.infra.blob_claims import ClaimedStore, Claims
    from modelkeep.infra.clock import utc_now
    from modelkeep.infra.migrations import wait_until_current
    from modelkeep.infra.prediction_log import history_database
    from modelkeep.sandbox import loader
    from modelkeep.worker.alerting import Firing
    from modelkeep.worker.collector import Collector
    from modelkeep.worker.compilation import Compiler, keep_in
    from modelkeep.worker.feedback import FeedbackKeeper
    from modelkeep.worker.inspection import RunnerInspector
    from modelkeep.worker.loop import Handler, Worker
    from modelkeep.worker.optimisation import Optimiser
    from modelkeep.worker.processor import Processor
    from modelkeep.worker.purge import Purger
    from modelkeep.worker.releasing import Releaser
    from modelkeep.worker.replay import Replaying
    from modelkeep.worker.scheduling import DueChanges
    from modelkeep.worker.validation import Validation

    role, places, db, control = _control(told, "worker")
    meter, claims = storage_meter(places, "worker"), Claims(db, utc_now)
    blobs = ClaimedStore(blob_store(role.storage, places, meter), claims)
    keep = keep_in(blobs)
    optimiser = Optimiser(runners.start, keep, frozenset(loader.able()), Processor.here())
    inspector = RunnerInspector(runners.start, compiler=Compiler(runners.start, keep), keep=keep, optimiser=optimiser)
    validation = Validation(control.models, control.switches, blobs, inspector, role.limits)
    history = history_database(role.database, places.data)
    predictions = Predictions(history, utc_now)
    replaying = Replaying(
        replays=control.replays,
        models=control.models,
        deployments=control.deployments,
        predictions=predictions,
        switches=control.switches,
        start_runner=runners.start,
        limits=role.limits,
        clock=utc_now,
    )
    started()
    purger = Purger(db, control.lifecycle, claims, blobs, utc_now)
    handlers: dict[str, Handler] = {VALIDATE_VERSION: validation, REPLAY_PREDICTIONS: replaying, Purger.kind: purger}
    patient = frozenset({REPLAY_PREDICTIONS, Purger.kind})
    worker = Worker(db, control.jobs, handlers, role.worker, places.run, patient=patient, tidy=control.tidy)
    collector = Collector(db, control.models, claims, blobs, utc_now, keep_days=role.storage.keep_unused_days, told=meter)
    releaser, due = Releaser(control.rollouts, told=meter), DueChanges(control.schedules)
    beside = (Firing(control.alerts, told=meter), keeper(role.audit, control.audit, meter))
    labels = FeedbackKeeper(control.feedback, predictions)
    others = (collector, due, releaser, labels, *beside, follower(control, db, places, role.auth))
    await wait_until_current(db, stop)  # once for all, so that it is said once
    await _beside_each_other(worker.run(stop), [one.run() for one in others])
    await history.close()
    await db.close()


async def _beside_each_other(work: Coroutine[object, object, None], others: "list[Coroutine[object, object, None]]") -> None:
    """Do the work, and the others for as long as that takes."""
    import asyncio

    beside = [asyncio.create_task(one) for one in others]
    try:
        await work
    finally:
        for one in beside:
            one.cancel()
        for one in beside:
            with suppress(asyncio.CancelledError):
                await one


def _control(told: bytes, role_name: str) -> "tuple[ControlRole, Places, Database, ControlPlane]":
    """Build what api, courier and worker share."""
    from modelkeep.app import people
    from modelkeep.app.control_plane import control_plane
    from modelkeep.infra import telemetry
    from modelkeep.infra.bell import Bell
    from modelkeep.infra.db import Database
    from modelkeep.infra.site_key import opened

    role = msgspec.json.decode(told, type=ControlRole, dec_hook=hidden_again)
    telemetry.configure(role.log, role=role_name)
    places = Places(Path(role.data))
    db = Database(role.database)
    control = control_plane(
        db,
        ring_worker=Bell(places.run / "worker.sock").ring,
        ring_courier=Bell(places.run / "courier.sock").ring,
        limits=role.limits,
        site=opened(places.site_key),
        acceptable=role.acceptable,
        passwords=people.passwords(role.auth),
        rates=role.rates,
        alone=role.access,
        trash=role.trash,
    )
    return role, places, db, control
