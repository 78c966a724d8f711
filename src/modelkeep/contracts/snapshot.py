"""The only message from the control plane down to serving: everything it needs to answer, numbered, immutable, complete."""

from enum import StrEnum

import msgspec

from modelkeep.contracts.signature import ImageSpec, Signature


class Scope(StrEnum):
    """What an API key may do. `admin` includes all others."""

    PREDICT = "predict"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


class Limits(msgspec.Struct, frozen=True):
    """What one runner may use: address space in MiB, seconds for loading and for one run, threads."""

    memory_mb: int = 4096
    load_timeout_s: float = 60.0
    run_timeout_s: float = 30.0
    threads: int = 1


class RunnerSpec(msgspec.Struct, frozen=True):
    """All that is needed to start a runner for one version. `runner` is the plugin's name, `digest` the artifact's SHA-256."""

    version_id: str
    digest: str
    size: int
    format: str
    runner: str
    signature: Signature | None = None
    image: ImageSpec | None = None
    limits: Limits = Limits()


class ServedVersion(msgspec.Struct, frozen=True):
    """A version as serving sees it. `labels` name the classes of the score output; `scores` names that output ("" for none)."""

    id: str
    model: str
    number: int
    spec: RunnerSpec
    signature: Signature
    framework: str = ""
    labels: tuple[str, ...] = ()
    scores: str = ""
    created_at: str = ""


class ServedDeployment(msgspec.Struct, frozen=True):
    """A named place that answers with one version."""

    name: str
    version_id: str
    revision: int


class ServedKey(msgspec.Struct, frozen=True):
    """An API key as serving knows it: never the key, only its SHA-256. `expires_at` is Unix seconds, None for never."""

    id: str
    digest: bytes
    name: str
    scopes: frozenset[Scope]
    expires_at: float | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the key carries `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class Snapshot(msgspec.Struct, frozen=True):
    """News for serving. A higher number replaces a lower one whole."""

    number: int
    made_at: float
    deployments: tuple[ServedDeployment, ...] = ()
    versions: tuple[ServedVersion, ...] = ()
    keys: tuple[ServedKey, ...] = ()


class News(msgspec.Struct, frozen=True):
    """The courier's bell: at `at` (Unix seconds) snapshot `number` was the newest."""

    number: int
    at: float


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the snapshot's bytes (msgpack)."""
    return msgspec.msgpack.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Read a snapshot; raises `msgspec.DecodeError` for anything else."""
    return msgspec.msgpack.decode(data, type=Snapshot)
