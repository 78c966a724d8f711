"""Which processes an installation has, and what each of them is told when it is started: its settings, and no more."""

import hashlib
import socket
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelkeep.api.settings import ApiSettings, AuthSettings
from modelkeep.app.places import Places, server_name
from modelkeep.app.sharing import check_redis
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.secret import NO_SECRET, Secret, hidden_in
from modelkeep.contracts.snapshot import Limits
from modelkeep.contracts.storage import StorageSettings
from modelkeep.infra.settings import (
    AccessSettings,
    AuditSettings,
    DatabaseSettings,
    HistorySettings,
    LimitSettings,
    LogSettings,
    TrashSettings,
)
from modelkeep.infra.tls import TlsFiles
from modelkeep.serving.grpc.settings import GrpcAddress
from modelkeep.serving.settings import Callers, ServingSettings
from modelkeep.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from modelkeep.app.settings import Settings
    from modelkeep.app.supervisor import Role

_MODEL = "model"  # the deployment of the model folder, where `serving.default_model` names none


@dataclass(frozen=True)
class ServerRole:
    """What a server process is told: it is number `slot`, from 0, of `slots`.

    `generation` is 0 or 1: while one takes the place of another, they differ in it, and in whatever they own by name.
    The addresses of Redis are the only credentials, and `answers_secret` (hexadecimal digits), which seals shared answers.
    `stand_in` is the SHA-256, in hexadecimal digits, of the key that stands for callers without one; "" for none.
    """

    data: str
    name: str
    version: str
    serving: ServingSettings
    history: HistorySettings
    log: LogSettings
    notice_s: float
    drain_s: float
    acceptable: str = ""
    stand_in: str = ""
    slot: int = 0
    slots: int = 1
    generation: int = 0
    grpc: GrpcAddress | None = None
    tls: TlsFiles | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    callers: Callers = field(default_factory=Callers)
    limits: LimitSettings = field(default_factory=LimitSettings)
    trusted_proxies: str = ""
    answers_secret: Secret = NO_SECRET


@dataclass(frozen=True)
class ControlRole:
    """What api, courier and worker are told."""

    data: str
    database: DatabaseSettings
    api: ApiSettings
    worker: WorkerSettings
    limits: Limits
    acceptable: str
    log: LogSettings
    servers: int = field(default=1, kw_only=True)
    drain_s: float = field(default=5.0, kw_only=True)
    model_folder: str = field(default="", kw_only=True)
    model_name: str = field(default="model", kw_only=True)
    history: HistorySettings
    storage: StorageSettings = field(default_factory=StorageSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    trash: TrashSettings = field(default_factory=TrashSettings)
    rates: LimitSettings = field(default_factory=LimitSettings, kw_only=True)


def roles(
    settings: "Settings",
    places: Places,
    doors: list[socket.socket],
    inner: socket.socket,
    grpc: GrpcAddress | None = None,
    *,
    generation: int = 0,
    worker: str = "",
) -> "list[Role]":
    """Return the processes of an installation, each with its own settings.

    `worker` is the name under which jobs go on; "" for that of the settings. Raises `Invalid` for a file that holds no key, and
    for Redis where there is no client of it or the address is none.
    """
    from modelkeep.app.supervisor import Role

    check_redis(settings.limits.redis_url)
    check_redis(settings.serving.cache_redis_url, "serving.cache_redis_url")
    server = ServerRole(
        data=str(places.data),
        name=socket.gethostname(),
        version=version("modelkeep"),
        serving=settings.serving,
        history=settings.history,
        log=settings.log,
        notice_s=settings.server.notice_s,
        drain_s=settings.server.drain_s,
        acceptable=settings.runners.unsafe_allow_level,
        stand_in=key_digest(settings.serving.stand_in_key_file),
        slots=settings.server.processes,
        generation=generation,
        grpc=grpc,
        tls=settings.server.tls,
        hosts=(*settings.server.hosts.split(","), *settings.serving.deployments_by_host),
        callers=Callers(
            settings.server.headers_s, settings.server.body_rate, settings.server.idle_s, settings.server.max_connections
        ),
        origins=tuple(settings.server.cors_origins.split(",")),
        limits=settings.limits,
        trusted_proxies=settings.server.trusted_proxies,
        answers_secret=_answers_secret(settings, places),
    )
    told = _told(_control_role(settings, places, worker))
    # Started one after the other, for predictions need the server alone, and the api is reached only through it. On a busy
    # machine with two cores the first prediction came after 1.5 s so, and after 1.8 s when all were started at once.
    return [
        *(
            Role(
                f"server-{slot + 1}",
                _told(replace(server, slot=slot, name=server_name(server.name, slot, generation))),
                (door,),
            )
            for slot, door in enumerate(doors)
        ),
        Role("api", told, (inner,), after="server-1"),
        Role("courier", told, after="api"),
        Role("worker", told, after="api"),
    ]


def _control_role(settings: "Settings", places: Places, worker: str) -> ControlRole:
    return ControlRole(
        data=str(places.data),
        database=database_settings(settings, places),
        api=settings.api,
        worker=replace(settings.worker, name=worker or settings.worker.name),
        limits=limits(settings),
        acceptable=settings.runners.unsafe_allow_level,
        log=settings.log,
        servers=settings.server.processes,
        drain_s=settings.server.drain_s,
        model_folder=settings.server.model_folder,
        model_name=settings.serving.default_model or _MODEL,
        history=settings.history,
        storage=settings.storage,
        auth=settings.auth,
        audit=settings.audit,
        access=settings.access,
        trash=settings.trash,
        rates=replace(settings.limits, redis_url=NO_SECRET),
    )


def _answers_secret(settings: "Settings", places: Places) -> Secret:
    """Return what seals answers that servers share; nothing where they share none. All machines of an installation have one."""
    if not settings.serving.cache_redis_url:
        return NO_SECRET
    from modelkeep.infra.site_key import opened

    return Secret(opened(places.site_key).derive("shared answers").hex())


def key_digest(file: str) -> str:
    """Return the SHA-256 of the API key in a file, in hexadecimal digits, "" for no file; raises `Invalid`."""
    if not file:
        return ""
    try:
        key = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("The file of serving.stand_in_key_file cannot be read.") from error
    if not key or len(key.split()) > 1:
        raise Invalid("The file of serving.stand_in_key_file must hold one API key and nothing else.")
    return hashlib.sha256(key.encode()).hexdigest()


def limits(settings: "Settings") -> Limits:
    """Return what a runner may use. One thread, unless told otherwise: more would wait for each other on a busy machine."""
    runners = settings.runners
    return Limits(runners.memory_mb, runners.load_timeout_s, runners.run_timeout_s, runners.threads or 1)


def database_settings(settings: "Settings", places: Places) -> DatabaseSettings:
    """Return where the database is: in the data directory, unless another is configured."""
    if settings.database.url:
        return settings.database
    return replace(settings.database, url=Secret(f"sqlite:///{places.database}"))


def _told(role: ServerRole | ControlRole) -> bytes:
    return msgspec.json.encode(role, enc_hook=hidden_in)
