"""What can be set about the database, the prediction history, the limits, what nobody does alone, the trash, and the logs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from annotated_types import Interval, Predicate

from modelkeep.contracts import rates
from modelkeep.contracts.access import Guarded
from modelkeep.contracts.secret import NO_SECRET, Secret


def _names_a_database(url: Secret) -> bool:
    """an address of the form sqlite:///PATH or postgresql://..., or empty"""  # noqa: D403, D415 - part of a sentence
    file = sqlite_file(url)
    if file is not None:
        return file.name not in {"", ":memory:"}  # every process would have a database of its own
    return not url or url.reveal().startswith(("postgresql://", "postgresql+psycopg://"))


def _names_a_syslog(address: str) -> bool:
    """udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH, or empty"""  # noqa: D415 - part of a sentence
    try:
        given = urlsplit(address)
        return (
            not address
            or (given.scheme in {"udp", "tcp"} and bool(given.hostname and given.port))
            or (given.scheme == "unix" and not given.netloc and len(given.path) > 1)
        )
    except ValueError:
        return False


def sqlite_file(url: Secret) -> Path | None:
    """Return the file that a database address names; None for another kind of database."""
    path = url.reveal().removeprefix("sqlite:///")
    return None if path == url.reveal() else Path(path.partition("?")[0])


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the control plane keeps what it knows."""

    url: Annotated[
        Secret,
        "Database address: sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/NAME; empty means SQLite in the data directory.",
        Predicate(_names_a_database),
    ] = NO_SECRET
    password_file: Annotated[
        str,
        "File with PostgreSQL's password, in the place of one in the address; read again for each connection, so that it may "
        "be changed while Modelkeep runs.",
    ] = ""
    pool_size: Annotated[int, "Most connections that one process holds open at once.", Interval(ge=1, le=1000)] = 5
    busy_timeout_s: Annotated[
        float,
        "How long to wait for another writer or a free connection, in seconds, before giving up.",
        Interval(ge=0.1, le=3600),
    ] = 10.0

    def __post_init__(self) -> None:
        """Hide an address that is given as a text."""
        if isinstance(self.url, str):
            object.__setattr__(self, "url", Secret(self.url))


@dataclass(frozen=True)
class HistorySettings:
    """What is kept of predictions on its way to the database, and in it."""

    spool_mb: Annotated[
        int,
        "Most that one server keeps on disk of predictions that are not in the database yet, in MiB.",
        Interval(ge=1, le=16_777_216),
    ] = 512
    segment_mb: Annotated[int, "Size of one file of that spool, in MiB.", Interval(ge=1, le=1024)] = 16
    when_full: Annotated[
        Literal["drop", "refuse"],
        "When the spool or the disk is full: answer, and count what is not kept (drop), or refuse to predict (refuse).",
    ] = "drop"
    max_payload_kb: Annotated[
        int,
        "Largest request or answer that is kept with its prediction, in KiB; of larger ones only the size is.",
        Interval(ge=0, le=65_536),
    ] = 256
    max_gb: Annotated[
        float,
        "Most that the history takes in the database, in GiB; beyond it the oldest day goes.",
        Interval(ge=0.001, le=1_000_000),
    ] = 10.0
    keep_days: Annotated[
        int, "How long predictions are kept, in days, where the deployment says nothing else.", Interval(ge=1, le=36500)
    ] = 30


def _rate(text: str) -> bool:
    """a rate such as 100/min, or 100/min:20 with the most requests at once"""  # noqa: D403, D415 - part of a sentence
    return rates.read(text) is not None


def _rate_or_none(text: str) -> bool:
    """a rate such as 100/min, or 100/min:20 with the most requests at once, or empty"""  # noqa: D403, D415 - part of a sentence
    return not text or _rate(text)


def _classes(text: str) -> bool:
    """pairs like batch=6000/min with commas between them, or empty"""  # noqa: D403, D415 - part of a sentence
    return rates.read_classes(text) is not None


def names_redis(url: Secret) -> bool:
    """an address of the form redis://..., rediss://... or unix://..., or empty"""  # noqa: D403, D415 - part of a sentence
    return not url or url.reveal().startswith(("redis://", "rediss://", "unix://"))


@dataclass(frozen=True)
class LimitSettings:
    """How often may be asked. A key that is `unlimited` is bound by the rates of addresses and deployments alone."""

    user_rate: Annotated[
        str, "Predictions of one person, by their sessions and their keys of the class `user`, together.", Predicate(_rate)
    ] = "100/min"
    api_rate: Annotated[
        str, "Requests of one person to the control plane, by sessions and keys that are not `unlimited`.", Predicate(_rate)
    ] = "600/min"
    address_rate: Annotated[
        str, "Predictions from one address, whichever keys it has; empty for any number.", Predicate(_rate_or_none)
    ] = ""
    failure_rate: Annotated[
        str,
        "Requests without a good key or token from one address and, counted apart, logins that fail; beyond it they wait. "
        "Empty for any number.",
        Predicate(_rate_or_none),
    ] = "60/min:20"
    classes: Annotated[str, "Rates by name, which keys then name: batch=6000/min, trial=10/min:2.", Predicate(_classes)] = ""
    redis_url: Annotated[
        Secret,
        "Redis server by which installations share the rates of predictions: redis://:PASSWORD@HOST:6379/0, or rediss:// over "
        "TLS; empty for rates of this installation alone.",
        Predicate(names_redis),
    ] = NO_SECRET

    def __post_init__(self) -> None:
        """Hide an address that is given as a text."""
        if isinstance(self.redis_url, str):
            object.__setattr__(self, "redis_url", Secret(self.redis_url))


@dataclass(frozen=True)
class LogSettings:
    """How the processes tell what they do."""

    format: Annotated[Literal["text", "json"], "Lines for people (text), or one JSON object a line in ECS names (json)."] = (
        "text"
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], "The least important lines that are written."] = "info"


def guarded(text: str) -> tuple[Guarded, ...] | None:
    """Return the kinds of acts that a text names, with commas between them; None where it names anything else."""
    known: tuple[Guarded, ...] = get_args(Guarded)
    named = {one.strip() for one in text.split(",")} - {""}
    return tuple(one for one in known if one in named) if named <= set(known) else None


def _names_guarded(text: str) -> bool:
    """promotion, deletion and override, those that are meant, with commas between them, or empty"""  # noqa: D415 - part of a sentence
    return guarded(text) is not None


@dataclass(frozen=True)
class AccessSettings:
    """What nobody does alone."""

    two_person: Annotated[
        str,
        "What needs a second person who may do it, too: putting a version into service (promotion), archiving and removing "
        "(deletion), allowing what is unsafe (override). Going back, and making safe, never does.",
        Predicate(_names_guarded),
    ] = ""
    approval_hours: Annotated[
        int,
        "How long what was asked may be approved and done, in hours, before it has to be asked anew.",
        Interval(ge=1, le=720),
    ] = 24


@dataclass(frozen=True)
class TrashSettings:
    """What becomes of models and versions in the trash."""

    keep_days: Annotated[
        float,
        "How long models and versions stay in the trash, in days, before they are purged for good; on legal hold they stay.",
        Interval(ge=1, le=36500),
    ] = 30.0


@dataclass(frozen=True)
class AuditSettings:
    """Where the audit trail goes beside the database."""

    file: Annotated[str, "File that each entry is appended to after its commit, as a line of JSON; empty: none."] = ""
    file_mb: Annotated[
        int, "Size at which that file gets a name with the time and a new one begins, in MiB.", Interval(ge=1, le=1_048_576)
    ] = 64
    syslog: Annotated[
        str,
        "Syslog server that each entry is sent to after its commit: udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH; "
        "empty: none.",
        Predicate(_names_a_syslog),
    ] = ""
    sink_contents: Annotated[
        Literal["record", "all"],
        "What file and syslog get: what is never erased, enough to tell a changed trail (record), or also who, from where, to "
        "what, before and after (all), which no erasure reaches there.",
    ] = "record"
