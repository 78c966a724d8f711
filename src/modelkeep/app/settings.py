"""Every setting, and the only place that reads the environment.

Later sources win: defaults, `modelkeep.toml`, `.env`, the environment (`MODELKEEP_SECTION__FIELD`), the command line. Each
room declares what it needs as a dataclass with a sentence and a range a field; here they are put together, and each process is
handed its own and no more. A name that is no setting is an error, not a silence, and so is a value outside its range.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from annotated_types import Interval, MinLen, Predicate
from pydantic import BaseModel, ValidationError

from modelkeep.api.settings import ApiSettings, AuthSettings
from modelkeep.app import allowed, secrecy
from modelkeep.app.sources import Given, InvalidSettings, gather
from modelkeep.contracts.secret import Secret
from modelkeep.contracts.storage import StorageSettings
from modelkeep.infra.addresses import networks_in
from modelkeep.infra.settings import (
    AccessSettings,
    AuditSettings,
    DatabaseSettings,
    HistorySettings,
    LimitSettings,
    LogSettings,
    TrashSettings,
)
from modelkeep.infra.tls import TlsFiles, tls_files
from modelkeep.serving.settings import ServingSettings
from modelkeep.worker.settings import WorkerSettings

_ORIGIN = re.compile(r"https?://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_ALWAYS_PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")

__all__ = ["Described", "Explained", "InvalidSettings", "Settings", "child_environment", "described", "explain", "load"]


def _origins(text: str) -> bool:
    """origins like https://app.example.org with commas between them, or empty"""  # noqa: D403, D415 - part of a sentence
    return not text or all(_ORIGIN.fullmatch(one.strip()) for one in text.split(","))


def _names_networks(text: str) -> bool:
    """networks or addresses with commas between them, such as 10.1.0.0/24, or empty"""  # noqa: D403, D415 - part of a sentence
    return networks_in(text) is not None


@dataclass(frozen=True)
class ServerSettings:
    """The address people and programs talk to, and how it is left."""

    host: Annotated[str, "Address to listen on; 127.0.0.1 admits this machine only.", MinLen(1)] = "127.0.0.1"
    port: Annotated[int, "Port to listen on; 0 takes any free one.", Interval(ge=0, le=65_535)] = 8080
    processes: Annotated[
        int,
        "Processes that answer on this port. One is enough until it fills a core; each further one needs a core of its own.",
        Interval(ge=1, le=64),
    ] = 1
    grpc_port: Annotated[
        int,
        "Port for Open Inference over gRPC, on the same address; 0 is none. It needs the extra `grpc`.",
        Interval(ge=0, le=65_535),
    ] = 0
    grpc_connection_s: Annotated[
        float,
        "After how long a connection of gRPC is made anew, in seconds, which no call notices. An upgrade waits so long.",
        Interval(ge=1, le=86_400),
    ] = 60.0
    tls_certificate: Annotated[
        str, "File with the certificate (PEM) of both ports, and those between; empty: no TLS. Read anew when it changes."
    ] = ""
    tls_key: Annotated[str, "File with the private key (PEM) of that certificate, without a password."] = ""
    tls_client_ca: Annotated[
        str,
        "File with the certificates (PEM) of the authorities that sign callers' certificates; empty: nobody is asked for one.",
    ] = ""
    tls_client: Annotated[
        Literal["none", "optional", "required"],
        "Whether callers show a certificate that server.tls_client_ca has signed. Over gRPC, optional does not ask for one.",
    ] = "none"
    hosts: Annotated[
        str,
        "Host names that requests may be sent to, with commas: models.example.org, *.example.org, or * for any. Addresses, "
        "localhost, this machine's name and those of the certificate always may; for others the answer is 421.",
    ] = ""
    headers_s: Annotated[
        float, "How long a caller may take to send the head of a request, in seconds.", Interval(ge=1, le=3600)
    ] = 10.0
    body_rate: Annotated[
        int,
        "Bytes a second that a caller must send of a body, in any ten seconds; 0 is any rate.",
        Interval(ge=0, le=1_000_000_000),
    ] = 1024
    idle_s: Annotated[float, "How long a connection may be idle between requests, in seconds.", Interval(ge=1, le=86_400)] = (
        75.0
    )
    max_connections: Annotated[
        int,
        "Connections that one server process answers; further ones are told to come again, but for health.",
        Interval(ge=1, le=60_000),
    ] = 8192
    cors_origins: Annotated[
        str,
        "Origins whose pages may ask and read answers in a browser, in full and with commas: https://app.example.org.",
        Predicate(_origins),
    ] = ""
    drain_s: Annotated[
        float, "How long requests in flight may take to finish after SIGTERM, in seconds.", Interval(ge=0, le=86_400)
    ] = 30.0
    notice_s: Annotated[
        float,
        "How long to go on accepting after readiness went off, in seconds, so that a load balancer can notice.",
        Interval(ge=0, le=3600),
    ] = 0.0
    model_folder: Annotated[
        str,
        "Folder of a model that a platform such as SageMaker puts there before it starts the container: at each start, what "
        "lies in it is uploaded and promoted, as `serving.default_model` or `model`. Empty for none.",
    ] = "/opt/ml/model"
    trusted_proxies: Annotated[
        str,
        "Networks of the proxies in front, 10.1.0.0/24 or single addresses, with commas: X-Forwarded-For and Forwarded are "
        "read from them alone. Empty: callers' addresses are those of their connections.",
        Predicate(_names_networks),
    ] = ""
    environment: Annotated[
        str, "Environment variables to pass on to the processes, besides PATH, language and time zone: names with commas."
    ] = ""

    @property
    def tls(self) -> TlsFiles | None:
        """The files of TLS, None without; raises `InvalidCertificate` where half of what is needed is set."""
        return tls_files(self.tls_certificate, self.tls_key, self.tls_client_ca, self.tls_client)


@dataclass(frozen=True)
class RunnerSettings:
    """What each model's own process may use. They hold for versions validated from now on."""

    memory_mb: Annotated[int, "Memory of a runner, in MiB.", Interval(ge=256, le=16_777_216)] = 4096
    budget_mb: Annotated[
        int,
        "Memory of all runners together, in MiB; models beyond it are loaded when they are asked for, and those that were used "
        "the longest ago go. 0 is three quarters of the machine's.",
        Interval(ge=0, le=1_073_741_824),
    ] = 0
    min_idle_s: Annotated[
        float,
        "How long a model's runners are left alone after it was used, in seconds, before others may have their memory.",
        Interval(ge=0, le=86_400),
    ] = 2.0
    load_timeout_s: Annotated[float, "How long loading a model may take, in seconds.", Interval(ge=0.1, le=86_400)] = 60.0
    run_timeout_s: Annotated[
        float, "How long one run of a model may take, in seconds, before its process is ended.", Interval(ge=0.01, le=86_400)
    ] = 30.0
    threads: Annotated[
        int,
        "Threads that a model's framework may use in each of its processes; 0 is one, since replicas spread over cores.",
        Interval(ge=0, le=1024),
    ] = 0
    unsafe_allow_level: Annotated[
        Literal["", "L1", "L0"],
        "Lowest level of the lock-down that an administrator may accept for every model, where the machine gives no better "
        "(see `modelkeep doctor`); nothing by default.",
    ] = ""


class Settings(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """All sections."""

    data: Annotated[Path, "Directory with everything that is kept: database, models, sockets."] = Path(".modelkeep")
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    api: ApiSettings = ApiSettings()
    auth: AuthSettings = AuthSettings()
    access: AccessSettings = AccessSettings()
    trash: TrashSettings = TrashSettings()
    serving: ServingSettings = ServingSettings()
    runners: RunnerSettings = RunnerSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    history: HistorySettings = HistorySettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()


class Described(NamedTuple):
    """One setting: its dotted name, its value, the sentence about it, and in words which values it may have."""

    name: str
    value: object
    about: str
    allowed: str


@dataclass(frozen=True)
class Explained:
    """One setting: its dotted name, its value as text (secrets hidden), where it comes from, and its sentence."""

    name: str
    value: str
    source: str
    about: str


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read all sources; raises `InvalidSettings` with a sentence that names the setting, what it may be, and the source."""
    return _validated(_given(config, overrides))


def explain(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> list[Explained]:
    """Return every setting with its value and where that comes from."""
    given = _given(config, overrides)
    return [
        Explained(
            one.name, secrecy.shown(one.name, one.value), given[one.name].where if one.name in given else "default", one.about
        )
        for one in described(_validated(given))
    ]


def described(settings: Settings) -> Iterator[Described]:
    """Yield each setting with its value."""
    for section, info in Settings.model_fields.items():
        value = getattr(settings, section)
        if section == "data":
            yield Described(section, value, str(info.metadata[0]), allowed.in_words(Annotated[Path, MinLen(1)]))
            continue
        hints = get_type_hints(type(value), include_extras=True)
        for one in fields(value):
            annotation = hints[one.name]
            yield Described(
                f"{section}.{one.name}", getattr(value, one.name), get_args(annotation)[1], allowed.in_words(annotation)
            )


def child_environment(settings: Settings) -> dict[str, str]:
    """Return all that our own processes see of the environment: no settings, and so no credentials."""
    names = (*_ALWAYS_PASSED, *(name.strip() for name in settings.server.environment.split(",")))
    return {name: os.environ[name] for name in names if name in os.environ}  # noqa: TID251 - this is the one place


def _given(config: Path | None, overrides: Mapping[str, Any] | None) -> dict[str, Given]:
    known = list(described(Settings.model_construct()))
    secret = [one.name for one in known if isinstance(one.value, Secret)]
    return gather([one.name for one in known], config, os.environ, overrides or {}, secret)  # noqa: TID251 - the one place


def _validated(given: Mapping[str, Given]) -> Settings:
    nested: dict[str, Any] = {}
    for one in given.values():
        section, _dot, key = one.name.partition(".")
        if (isinstance(one.value, bool) and "number" in _allowed(one.name)) or (section == "data" and one.value == ""):
            raise _wrong(one)  # pydantic would take true for 1, and no path for the current directory
        if key:
            nested.setdefault(section, {})[key] = _read(one)
        else:
            nested[section] = one.value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise _wrong(given[".".join(map(str, where[:2]))], *where[2:]) from error


def _read(given: Given) -> object:
    """Return a value; of tables, which a variable has as JSON, what that says."""
    if not isinstance(given.value, str) or _allowed(given.name) != "a list of tables":
        return given.value
    try:
        return json.loads(given.value or "[]")
    except ValueError as error:
        raise _wrong(given) from error


def _wrong(given: Given, *inside: object) -> InvalidSettings:
    """Return the error for a value that may not be; the value is not repeated, since it may be a secret in the wrong place."""
    what = "is not"
    if inside:
        number, *names = inside
        what = f"is wrong at its number {int(str(number)) + 1}, {'.'.join(map(str, names)) or 'which is no table'}"
    return InvalidSettings(f"The setting {given.name} must be {_allowed(given.name)}; the value from {given.source} {what}.")


def _allowed(name: str) -> str:
    (words,) = [one.allowed for one in described(Settings.model_construct()) if one.name == name]
    return words
