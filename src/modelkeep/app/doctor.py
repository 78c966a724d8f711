"""`modelkeep doctor`: looks at what Modelkeep needs, one thing after the other, and says what to do where it is missing.

Each check is a function that yields findings. A check that cannot look says so in its own finding; none stops the others.
"""

import asyncio
import os
import platform
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.app import grpc_port
from modelkeep.app import settings as settings_room
from modelkeep.app.census import budget_of_machine
from modelkeep.app.places import Places
from modelkeep.app.secrecy import without_secrets
from modelkeep.app.settings import Explained, InvalidSettings, ServerSettings, Settings
from modelkeep.contracts import discovery
from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.runner import Manifest
from modelkeep.contracts.storage import BlobStore
from modelkeep.infra import tls
from modelkeep.infra.settings import DatabaseSettings, sqlite_file
from modelkeep.sandbox.lockdown import ENVIRONMENT
from modelkeep.sandbox.memory import machine_bytes

if TYPE_CHECKING:
    from modelkeep.client import SessionFile

OK, INFO, WARN, FAIL = "ok", "info", "warn", "fail"
GIB = 1024**3
FULL_SOON = 1 * GIB
FULL = 100 * 1024**2
EXPIRES_SOON = timedelta(days=14)
OLDEST_SQLITE = (3, 35, 0)  # the first with RETURNING
_TRIAL_S = 30.0
_NEWER_KERNEL = "Use Linux 6.2 or newer, and let this user have Landlock and seccomp (container runtimes do by default)."
_CONFINED = {
    Level.SEPARATED: (OK, "runners see no other files, processes or networks", ""),
    Level.WALLED: (OK, "runners reach no other files, processes or networks", ""),
    Level.FILTERED: (WARN, "only models that are data are loaded, not those that may run code", _NEWER_KERNEL),
    Level.OPEN: (FAIL, "no model is loaded", _NEWER_KERNEL),
}
PACKAGES = (
    *("uvicorn", "msgspec", "sqlalchemy", "dbos", "obstore", "cryptography", "numpy", "pandas", "pillow"),
    *("onnxruntime", "scikit-learn", "skops", "skl2onnx", "xgboost", "lightgbm", "catboost", "torch", "openvino"),
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `info`, `warn` or `fail`; what was seen; what to do about it."""

    status: str
    subject: str
    detail: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return asdict(self)


def examine(
    config: Path | None, overrides: Mapping[str, Any], *, url: str, key: str, session_of: "Callable[[str], SessionFile]"
) -> list[Finding]:
    """Look at everything and return what was found; `session_of` returns where a login at an address is kept."""
    findings = [*packages(), *sqlite(), *plugins(), *memory(), *isolation()]
    try:
        loaded = settings_room.load(config, overrides)
        explained = settings_room.explain(config, overrides)
    except InvalidSettings as error:
        findings.append(Finding(FAIL, "settings", error.message, "Correct it in modelkeep.toml, .env or the environment."))
    else:
        local = [
            *(
                effective(explained),
                budget(loaded),
                data_directory(loaded.data),
                port(loaded),
                certificate(loaded),
                grpc(loaded),
            ),
            *(database(loaded), storage(loaded)),
        ]
        findings += [finding for group in local for finding in group]
    return [*findings, *server(url, key, session_of)]


def packages() -> Iterator[Finding]:
    """Python and the packages that matter."""
    yield Finding(INFO, "python", f"{platform.python_version()} at {sys.executable}, modelkeep {version('modelkeep')}")
    present, absent = [], []
    for name in PACKAGES:
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    yield Finding(INFO, "packages", ", ".join(present) + (f"; not installed: {', '.join(absent)}" if absent else ""))


def sqlite() -> Iterator[Finding]:
    """The SQLite that Python was built with."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        yield Finding(
            FAIL, "sqlite", sqlite3.sqlite_version, f"{needed} or newer is needed: use another Python, or PostgreSQL."
        )
    else:
        yield Finding(OK, "sqlite", sqlite3.sqlite_version)


def plugins() -> Iterator[Finding]:
    """Runners and the formats they load."""
    for name in discovery.names(discovery.RUNNERS):
        try:
            manifest = discovery.find(discovery.RUNNERS, name).manifest
        except (ImportError, AttributeError) as error:
            yield Finding(WARN, f"runner {name}", f"cannot be used: {error}", "Install it again, or remove it.")
            continue
        if all(one.for_tests for one in manifest.formats):
            continue
        missing = [module for module in _frameworks(manifest) if not _installed(module)]
        formats = ", ".join(f"{one.name} ({' '.join(one.suffixes) or 'a folder'})" for one in manifest.formats)
        if missing:
            advice = f"Install it with: pip install 'modelkeep[{manifest.extra}]'" if manifest.extra else ""
            yield Finding(WARN, f"runner {name}", f"{formats}; not installed: {', '.join(missing)}", advice)
        else:
            yield Finding(OK, f"runner {name}", formats)


def memory() -> Iterator[Finding]:
    """How much memory there is, and what limits it."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    parts = [f"{machine_bytes() / GIB:.1f} GiB in this machine or container"]
    if soft != resource.RLIM_INFINITY:
        parts.append(f"{soft / GIB:.1f} GiB for a process (ulimit -v)")
    yield Finding(INFO, "memory", ", ".join(parts))


def budget(loaded: Settings) -> Iterator[Finding]:
    """How much of it models may have together, and whether one runner may have more."""
    together = budget_of_machine(loaded.runners.budget_mb, loaded.runners.min_idle_s).limit_bytes
    said = f"{together / GIB:.1f} GiB for all runners together, {loaded.runners.memory_mb / 1024:.1f} GiB for one"
    if together > machine_bytes():
        yield Finding(WARN, "memory for models", said, "The machine has less: lower runners.budget_mb.")
    else:
        yield Finding(OK, "memory for models", said)


def isolation() -> Iterator[Finding]:
    """How well runners can be locked in here: the lock-down is tried, and what then still works is looked at."""
    try:
        confinement = _tried()
    except (subprocess.SubprocessError, msgspec.DecodeError, OSError) as error:
        yield Finding(FAIL, "sandbox", f"could not be tried: {error}", "Without it no model is loaded.")
        return
    status, said, advice = _CONFINED[confinement.level]
    missing = f"; not in force: {confinement.missing}" if confinement.missing else ""
    yield Finding(status, "sandbox", f"{confinement.level.short}, {said} (Linux {platform.release()}{missing})", advice)


def _tried() -> Confinement:
    """Try the lock-down in a process of its own, as the runners' template does."""
    command = [sys.executable, "-I", "-m", "modelkeep.sandbox.cells"]
    done = subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_S, check=True)
    return msgspec.json.decode(done.stdout, type=Confinement)


def effective(explained: Iterable[Explained]) -> Iterator[Finding]:
    """Settings that are not their defaults, with where they come from."""
    changed = [one for one in explained if one.source != "default"]
    for one in changed:
        yield Finding(INFO, f"setting {one.name}", f"{one.value} (from {one.source})")
    if not changed:
        yield Finding(INFO, "settings", "all at their defaults")


def data_directory(data: Path) -> Iterator[Finding]:
    """Whether the data directory can be written, and how much room it has."""
    subject = f"data directory {data}"
    folder = data if data.exists() else next(parent for parent in data.absolute().parents if parent.exists())
    if not folder.is_dir():
        yield Finding(FAIL, subject, f"{folder} is not a directory", "Name another with --data or MODELKEEP_DATA.")
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"modelkeep")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield Finding(
            FAIL, subject, f"cannot be written: {error.strerror}", "Give this user the right to, or name another with --data."
        )
        return
    free = shutil.disk_usage(folder).free
    said = f"writable, {free / GIB:.1f} GiB free{'' if data.exists() else ' (made at the first start)'}"
    if free < FULL:
        yield Finding(FAIL, subject, said, "Make room: uploads and records will be refused.")
    elif free < FULL_SOON:
        yield Finding(WARN, subject, said, "Make room soon: models and records are kept here.")
    else:
        yield Finding(OK, subject, said)


def port(loaded: Settings) -> Iterator[Finding]:
    """Whether the port is free, or else who answers there."""
    yield _address(loaded.server, loaded.server.port, "", "--port or MODELKEEP_SERVER__PORT")


def certificate(loaded: Settings) -> Iterator[Finding]:
    """Whether the files of TLS can be served, and until when, where there is to be TLS."""
    now = datetime.now(UTC)
    try:
        files = loaded.server.tls
        if files is None:
            return
        found = tls.read(files, now)
    except ModelkeepError as error:
        yield Finding(FAIL, "certificate", error.message, "Correct the settings server.tls_*, or leave them out.")
        return
    soon = found.expires - now < EXPIRES_SOON
    said = f"for {', '.join(sorted(found.names))}, until {found.expires:%Y-%m-%d}"
    yield Finding(WARN if soon else OK, "certificate", said, "Renew it: it is read anew when it changes." if soon else "")


def grpc(loaded: Settings) -> Iterator[Finding]:
    """Whether gRPC can be served, where it is to be."""
    server = loaded.server
    if not server.grpc_port:
        return
    try:
        grpc_port.check()
    except ModelkeepError as error:
        yield Finding(FAIL, "gRPC", error.message, "Correct it, or set server.grpc_port to 0.")
        return
    with_tls = "with TLS" if server.tls_certificate else "without TLS"
    yield _address(server, server.grpc_port, f" for gRPC {with_tls}", "--grpc-port or MODELKEEP_SERVER__GRPC_PORT")


def _address(server: ServerSettings, number: int, what_for: str, options: str) -> Finding:
    """Say whether a port is free; one that is not may be our own, which answers over HTTP."""
    subject = f"port {number} on {server.host}{what_for}"
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(server.host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(address)
    except OSError as error:
        who = _who_answers(f"{'https' if server.tls_certificate else 'http'}://{server.host}:{server.port}")
        if who:
            return Finding(OK, subject, f"in use by {who}")
        return Finding(
            FAIL, subject, f"cannot be used: {error.strerror}", f"Stop what uses it, or choose another with {options}."
        )
    return Finding(OK, subject, "free")


def database(loaded: Settings) -> Iterator[Finding]:
    """Whether the database can be reached."""
    url = loaded.database.url
    path = sqlite_file(url) if url else Places(loaded.data).database
    if path is None:
        yield asyncio.run(_postgres(loaded.database))
        return
    if not path.exists():
        yield Finding(INFO, "database", f"{path} (made at the first start)")
        return
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        yield Finding(FAIL, "database", f"{path}: {error}", "Restore it from a backup, or name another data directory.")
        return
    if answer == "ok":
        yield Finding(OK, "database", f"{path} is sound")
    else:
        yield Finding(FAIL, "database", f"{path}: {answer}", "The file is damaged: restore it from a backup.")


def storage(loaded: Settings) -> Iterator[Finding]:
    """Whether model files can be kept and had back; in an object store by doing so with a few bytes."""
    from modelkeep.app import bootstrap

    settings, places = loaded.storage, Places(loaded.data)
    sealed = ", sealed" if settings.master_keys_file else ""
    if settings.kind != "local":
        subject = f"storage {settings.kind} {settings.bucket}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                took_s = asyncio.run(_probed(bootstrap.blob_store(settings, Places(Path(folder)))))
            except (ModelkeepError, OSError) as error:
                yield Finding(FAIL, subject, str(error), "Check the settings storage.*, and that the object store runs.")
            else:
                yield Finding(OK, subject, f"a file was kept, read back and removed in {took_s:.2f} s{sealed}")
        return
    try:
        bootstrap.blob_store(settings, places)
    except ModelkeepError as error:
        yield Finding(FAIL, "storage", error.message, "Check the settings storage.*.")
        return
    usable = not places.blobs.exists() or os.access(places.blobs, os.R_OK | os.W_OK | os.X_OK)
    said = f"{places.blobs}{sealed}"
    yield (
        Finding(OK, "storage", said)
        if usable
        else Finding(FAIL, "storage", f"{said} cannot be written", "Give this user the right to.")
    )


async def _probed(store: BlobStore) -> float:
    """Keep, read and remove a file that nobody else has; returns the seconds that took."""
    content = b"modelkeep doctor " + os.urandom(16)

    async def once() -> AsyncIterator[bytes]:
        yield content

    began = time.monotonic()
    blob = await store.put(once(), max_bytes=len(content))
    try:
        os.close(await store.open(blob.digest))
        async for _piece in store.read(blob.digest):
            pass
    finally:
        await store.remove(blob.digest)
    return time.monotonic() - began


def server(url: str, key: str, session_of: "Callable[[str], SessionFile]") -> Iterator[Finding]:
    """Whether a server answers at the address that commands use, and whether it is ready."""
    from modelkeep.client import Client, ModelkeepError, ServerUnreachable

    subject = f"server {url}"
    try:
        session = None if key else session_of(url)
        with Client(url, key or None, timeout=5, session=session) as client:
            health = client.health()
            readiness = client.readiness()
            ready = bool(readiness.get("ready"))
            why = ", ".join(map(str, readiness.get("reasons", ())))
            said = f"answers, version {health.get('version', 'unknown')}, {'ready' if ready else f'not ready: {why}'}"
            yield Finding(OK if ready else WARN, subject, said, "" if ready else "Wait a moment; its log says more.")
            yield from _key(client, key) if session is None or session.read() is None else _login(client)
    except ServerUnreachable as error:
        yield Finding(WARN, subject, error.message, "Start it with `modelkeep serve`, or say where it is with --url.")
    except ModelkeepError as error:
        yield Finding(FAIL, subject, error.message)


def _key(client: Any, key: str) -> Iterator[Finding]:  # noqa: ANN401 - a client, which is imported late
    from modelkeep.client import NotAuthenticated

    if not key:
        yield Finding(INFO, "api key", "none given", "Log in, pass --key or set MODELKEEP_API_KEY to have it checked.")
        return
    try:
        known = client.me()
    except NotAuthenticated:
        yield Finding(FAIL, "api key", "not accepted by the server", "Check --key and MODELKEEP_API_KEY.")
    else:
        said = f"{known.key.name}: {', '.join(known.key.scopes)}" if known.key else f"the token of {known.user.name}"
        yield Finding(OK, "api key", said)


def _login(client: Any) -> Iterator[Finding]:  # noqa: ANN401 - a client, which is imported late
    from modelkeep.client import NotAuthenticated

    try:
        known = client.me()
    except NotAuthenticated as error:
        yield Finding(FAIL, "login", error.message, "`modelkeep login` begins another session.")
    else:
        yield Finding(OK, "login", f"{known.user.name}, session {known.session}")


def _who_answers(url: str) -> str:
    from modelkeep.client import Client
    from modelkeep.client import ModelkeepError as ClientError

    try:
        with Client(url, timeout=2, verify=False) as client:  # it is told nothing, and asked at its address, not by its name
            return f"Modelkeep {client.health().get('version', '')}".strip()
    except ClientError:
        return ""


async def _postgres(database: DatabaseSettings) -> Finding:
    from sqlalchemy import text

    from modelkeep.infra.db import Database

    shown = without_secrets(database.url.reveal())
    opened = Database(database)
    try:
        async with opened.read() as tx:
            row = await tx.one(text("SHOW server_version"))
    except ModelkeepError as error:
        return Finding(FAIL, "database", f"{shown}: {error}", "Check database.url, and that PostgreSQL runs and lets us in.")
    finally:
        await opened.close()
    return Finding(OK, "database", f"{shown} answers, PostgreSQL {row[0] if row else 'of unknown version'}")


def _frameworks(manifest: Manifest) -> list[str]:
    modules = (*manifest.preload, *manifest.preload_when_asked, *manifest.needs)
    return sorted({module.partition(".")[0] for module in modules})


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
