"""The only message from the control plane down to serving: everything it needs to answer, numbered, immutable, complete."""

from typing import Literal

import msgspec

from modelkeep.contracts.access import Place, Standing
from modelkeep.contracts.certificates import KeyCertificate
from modelkeep.contracts.confinement import Level
from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.runner import Precision
from modelkeep.contracts.signature import ImageSpec, Signature
from modelkeep.contracts.traffic import Traffic, Trial


class Limits(msgspec.Struct, frozen=True):
    """What one runner may use: address space in MiB, seconds for loading and for one run, threads."""

    memory_mb: int = 4096
    load_timeout_s: float = 60.0
    run_timeout_s: float = 30.0
    threads: int = 1


class RunnerSpec(msgspec.Struct, frozen=True):
    """All that is needed to start a runner for one version. `runner` is the plugin's name, `digest` the artifact's SHA-256.

    `accepted` is a level of the lock-down that administrators accept for every format, below what the format needs; of what
    serves the supervisor says so at each start, since it may be taken back.
    `memory_bytes` is what loading added to a runner at validation, 0 where that is not known; `golden` the SHA-256 of the file
    with the version's golden rows, "" for none. `precision` is what the model computes in: a runner that finds it otherwise
    does not load. `threads` is how many it computes with, 0 as many as the limits say. `quantises`: validation will ask the
    runner for a form in 8-bit integers. `hooks` go before and after the model; `signature` is what callers see, `hooks.inner`
    the model's own. `spare`: it runs for a shadow, on spare capacity alone: it gets the processor when nothing else wants it,
    and the memory that nothing else does.
    """

    version_id: str
    digest: str
    size: int
    format: str
    runner: str
    signature: Signature | None = None
    image: ImageSpec | None = None
    limits: Limits = Limits()
    accepted: Level | None = None
    memory_bytes: int = 0
    golden: str = ""
    precision: Precision = "f32"
    quantises: bool = False
    hooks: Hooks | None = None
    threads: int = 0
    spare: bool = False

    @property
    def threads_used(self) -> int:
        """With how many threads it computes."""
        return self.threads or self.limits.threads


class ServedVersion(msgspec.Struct, frozen=True):
    """A version as serving sees it. `labels` name the classes of the score output; `scores` names that output ("" for none).

    `spec` is of the file that serves, which may be a compiled form of the uploaded one. `cost_ms` is the median time of one of
    its runs, by the number of rows in it ("1" and "64", as far as measured). Where it is not `independent`, a row's answer
    depends on the rows beside it, so requests must not share a run. It is `repeatable` where it answered equal rows equally at
    validation and no code of its uploader's has a say in the answer, which might look at a clock or ask somebody.
    Answers say since when it is deprecated, and when it will answer no more (Unix seconds; None: it is not, or nobody has
    said), and which version is its `successor` (0 for none).
    """

    id: str
    model: str
    number: int
    spec: RunnerSpec
    signature: Signature
    framework: str = ""
    labels: tuple[str, ...] = ()
    scores: str = ""
    created_at: str = ""
    cost_ms: dict[str, float] = {}
    independent: bool = True
    repeatable: bool = False
    deprecated_at: float | None = None
    sunset_at: float | None = None
    successor: int = 0


BatchMode = Literal["auto", "off", "cheap", "flat", "compute"]
Keep = Literal["keep", "hash", "drop"]
KeepLoaded = Literal["auto", "always", "on_demand"]
NotFinite = Literal["null", "refuse", "text"]
GoldenCheck = Literal["enforce", "warn", "off"]
CacheMode = Literal["auto", "on", "off"]
CacheShare = Literal["caller", "deployment"]


class Batching(msgspec.Struct, frozen=True, omit_defaults=True):
    """How requests that wait together share a run.

    `mode` is "off", or how the model's cost grows with rows: "cheap" (never wait), "flat" (wait a little for others),
    "compute" (one request a run, spread over replicas); "auto" takes what validation measured. `max_rows` 0 is the
    installation's bound, `max_wait_ms` -1 follows the cost, `latency_target_ms` 0 is none.
    """

    mode: BatchMode = "auto"
    max_rows: int = 0
    max_wait_ms: float = -1.0
    latency_target_ms: float = 0.0


class Replicas(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many runners one server keeps for the version; `max` 0 is as many as the machine has cores."""

    min: int = 1
    max: int = 0


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """When the version has runners at all.

    "auto": as long as the memory budget lets it, the least recently used going first. "always": whatever else wants room.
    "on_demand": from the first request until there was none for `idle_s` seconds.
    """

    keep: KeepLoaded = "auto"
    idle_s: float = 300.0


class Recording(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written down of predictions, and for how many days.

    `sample` is the share of predictions whose inputs and outputs are considered at all. `fields` says otherwise for single
    tensors or columns by name.
    """

    enabled: bool = True
    sample: float = 1.0
    inputs: Keep = "keep"
    outputs: Keep = "keep"
    fields: dict[str, Keep] = msgspec.field(default_factory=dict)
    keep_days: int = 30


class Rate(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often one may ask: `per_minute` requests in the long run, 0 for any number, at most `burst` at once."""

    per_minute: int = 0
    burst: int = 0

    @property
    def whole(self) -> "Rate":
        """This rate with a burst: where none is said, what ten seconds allow."""
        return self if self.burst else Rate(self.per_minute, max(1, self.per_minute // 6))


class Caching(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether answers are kept and given again to equal questions, for at most `ttl_s` seconds.

    "auto": where the version is repeatable and slower than to look its answer up. `share`: each caller gets back answers to
    their own questions alone ("caller"), or to those of everybody who may ask the deployment ("deployment").
    """

    mode: CacheMode = "auto"
    ttl_s: float = 3600.0
    share: CacheShare = "caller"


class DeploymentSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is set for one deployment alone.

    `deadline_s` is for requests that bring none, 0 is the installation's. `concurrency` is the most requests in flight on
    all servers together, 0 is the installation's queue bound. `not_finite` says what becomes of NaN and infinity in answers,
    which JSON has no numbers for: "null", "text" ("NaN", "Infinity", "-Infinity"), or "refuse". `golden` says what becomes of
    a runner that answers golden rows otherwise than at validation: it is ended ("enforce"), it is counted and told of and goes
    on ("warn"), or it is not asked ("off"). `rate` is how often the deployment may be asked by all callers together. A version
    that stops answering stays loaded for `bake_s` seconds, so that it can answer again at once.
    """

    deadline_s: float = 0.0
    batching: Batching = Batching()
    replicas: Replicas = Replicas()
    concurrency: int = 0
    recording: Recording = msgspec.field(default_factory=Recording)
    memory: Memory = Memory()
    not_finite: NotFinite = "null"
    golden: GoldenCheck = "enforce"
    rate: Rate = Rate()
    bake_s: float = 600.0
    cache: Caching = Caching()


class ServedDeployment(msgspec.Struct, frozen=True):
    """A named place that answers with one version; on request also with those that `aliases` point to (ids by name).

    `place` says whose it is, for the decision about who may ask it. `traffic` shares requests out among it and other versions,
    by numbers that `id` makes its own; while one of these is on `trial`, servers count how both do.
    """

    name: str
    version_id: str
    revision: int
    settings: DeploymentSettings = msgspec.field(default_factory=DeploymentSettings)
    aliases: dict[str, str] = {}
    place: Place = Place()
    id: str = ""
    traffic: Traffic = Traffic()
    trial: Trial | None = None


class ServedKey(msgspec.Struct, frozen=True):
    """What somebody comes in with, as serving knows it: an API key, never itself but its SHA-256, or a session by its token.

    `id` is the key's or the session's, and `standing.user` whose it is. `expires_at` is Unix seconds, None for never; `rate`
    None is unlimited; `concurrency` is the most requests of this key in flight on all servers together, 0 for no bound of its
    own. `standing` is what its owner may do, within what bounds the key;
    a snapshot that was made before there were standings lets nobody do anything. Keys that share a rate have one `bucket`, and
    where that is "" the rate is this key's alone. `networks` (CIDRs) are those from which alone the key is good; none for all.
    `certificate` says over whose connections alone it is, None for any's.
    """

    id: str
    digest: bytes
    name: str
    standing: Standing = Standing("")
    expires_at: float | None = None
    rate: Rate | None = None
    concurrency: int = 0
    bucket: str = ""
    networks: tuple[str, ...] = ()
    certificate: KeyCertificate | None = None


class ServedPerson(msgspec.Struct, frozen=True):
    """Somebody who may come with an access token: what they may do, and the rate that all their keys and tokens share."""

    name: str
    standing: Standing
    rate: Rate | None = None
    bucket: str = ""


class Signer(msgspec.Struct, frozen=True):
    """A public key for access tokens (Ed25519, 32 bytes), which counts until `good_until` (Unix seconds; None: for good)."""

    kid: str
    public: bytes
    good_until: float | None = None


class Trust(msgspec.Struct, frozen=True):
    """What access tokens are checked by.

    `issuers` are the names that this installation has in them; `people`, by their ids, those who may come at all; `ended` the
    sessions that ended so lately that tokens of theirs would still be good.
    """

    issuers: tuple[str, ...] = ()
    signers: tuple[Signer, ...] = ()
    people: dict[str, ServedPerson] = {}
    ended: frozenset[str] = frozenset()


class Snapshot(msgspec.Struct, frozen=True):
    """News for serving. A higher number replaces a lower one whole. `accepted` is as in a `RunnerSpec`."""

    number: int
    made_at: float
    deployments: tuple[ServedDeployment, ...] = ()
    versions: tuple[ServedVersion, ...] = ()
    keys: tuple[ServedKey, ...] = ()
    accepted: Level | None = None
    trust: Trust = Trust()


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
