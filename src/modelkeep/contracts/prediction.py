"""Messages from serving up to the control plane."""

import re
from typing import Final, Literal

import msgspec

from modelkeep.contracts.traffic import TrialSeen

_JSON_LENGTH: Final = re.compile(r"inference-header-content-length=(\d{1,18})")
NOT_READ: Final = msgspec.Raw(b"\xc0")

Outcome = Literal["ok", "rejected", "error", "degraded"]


class CacheSeen(msgspec.Struct, frozen=True, array_like=True):
    """What became of a deployment's requests in the last minutes where a server keeps its answers, and the bytes of these now.

    `why` there are none: "off", "fast" (the model is, so that to look up would not pay), "unsure" (nobody knows that the
    version repeats itself, or what it costs), "no_room"; "" where they are kept.
    """

    why: str = ""
    hits: int = 0
    shared: int = 0
    misses: int = 0
    bypassed: int = 0
    bytes: int = 0


class Heartbeat(msgspec.Struct, frozen=True):
    """A server says which snapshot it has applied and, for each deployment, the version that answers now.

    `failing`: version id -> why it cannot be served (a sentence); empty when all is well. Times are Unix seconds.
    `trials`: what has been counted of each trial that is under way, by the trial's id. `cache`: what became of requests where
    answers are kept, by deployment; of so many as fit into a datagram, those that are asked most.
    """

    server: str
    at: float
    snapshot: int
    serving: dict[str, str] = {}
    failing: dict[str, str] = {}
    trials: dict[str, TrialSeen] = {}
    cache: dict[str, CacheSeen] = {}


class RecordFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record without what went in and came out.

    `at` is Unix seconds, the other times are milliseconds. `key_id` is the key or the session that it was asked with, `code` an
    error's code or "".
    """

    id: str
    at: float
    request_id: str
    deployment: str
    version_id: str
    version: int
    key_id: str
    dialect: str
    outcome: Outcome
    code: str = ""
    status: int = 200
    rows: int = 1
    total_ms: float = 0.0
    queue_ms: float = 0.0
    run_ms: float = 0.0
    content_type: str = "application/json"


class PredictionRecord(RecordFacts, frozen=True, array_like=True, gc=False):
    """One answered or refused prediction, as serving writes it down.

    `inputs` and `outputs` are the request and the answer as they went over the wire, of `content_type` and `answer_type`, or
    what policy left of them, as JSON; None when nothing is kept, and then `input_note` or `output_note` says why: "hashed",
    "dropped", "sampled out", "too large: N bytes". `user` is the person or service who asked, whatever with. `trial` is the
    trial that counts this prediction, "" for none, and `unit` the place of whoever's requests it keeps together. New fields go
    to the end and have a default: old records lack them.
    """

    inputs: bytes | None = None
    outputs: bytes | None = None
    input_note: str = ""
    output_note: str = ""
    answer_type: str = "application/json"
    user: str = ""
    trial: str = ""
    unit: int | None = None


class RecordFound(RecordFacts, frozen=True, array_like=True, gc=False):
    """A record as a search reads it: what went in and came out stays bytes that nobody has looked at."""

    inputs: msgspec.Raw = NOT_READ
    outputs: msgspec.Raw = NOT_READ
    input_note: str = ""
    output_note: str = ""
    answer_type: str = "application/json"
    user: str = ""
    trial: str = ""
    unit: int | None = None


def mixed_type(json_length: int) -> str:
    """Return the content type under which a body is kept that is JSON of this length and the bytes of tensors behind it."""
    return f"application/octet-stream; inference-header-content-length={json_length}"


def json_length(content_type: str) -> int | None:
    """Return the length of the JSON of a body that is kept under such a content type; None for every other body."""
    found = _JSON_LENGTH.search(content_type)
    return int(found[1]) if found else None
