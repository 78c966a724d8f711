"""What an entry of the audit trail says, and how it is sealed into the chain."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from modelkeep.contracts.audit_chain import canonical, commitment, link

Outcome = Literal["done", "refused"]
NOBODY: Final = frozenset({"", "system", "unknown"})
_KINDS: Final = {
    "usr": "user",
    "key": "key",
    "mdl": "model",
    "ver": "version",
    "dep": "deployment",
    "rpl": "replay",
    "apr": "approval",
}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change or refusal: who, from where, what, to what, when, asked by which request, and how things were and are.

    Of an erased entry `erased` is set, and what named people is empty. `seq` and `hash` are its place in the chain.
    """

    id: str
    at: datetime
    action: str
    target_kind: str
    outcome: Outcome = "done"
    request_id: str = ""
    actor: str = ""
    actor_name: str = ""
    user: str = ""
    address: str = ""
    target: str = ""
    details: dict[str, str] = {}
    before: str | None = None
    after: str | None = None
    about: str = ""
    seq: int = 0
    hash: str = ""
    erased: bool = False

    def record(self, seq: int, committed: str) -> dict[str, str | int]:
        """Return the public part, which stays for good."""
        return {
            "seq": seq,
            "id": self.id,
            "at": written(self.at),
            "action": self.action,
            "target_kind": self.target_kind,
            "outcome": self.outcome,
            "request_id": self.request_id,
            "commitment": committed,
        }

    def payload(self) -> dict[str, Any]:
        """Return what can be erased."""
        return {name: getattr(self, name) for name in _PAYLOAD}

    @property
    def subjects(self) -> frozenset[str]:
        """The ids of those whom it names."""
        return frozenset({self.actor, self.user, self.target, *self.about.split()}) - NOBODY


_PAYLOAD: Final = ("actor", "actor_name", "user", "address", "target", "details", "before", "after")


class Head(msgspec.Struct, frozen=True):
    """The newest entry's number and hash; 0 and zeros before the first."""

    seq: int
    hash: str


class Sealed(msgspec.Struct, frozen=True):
    """An entry as it is kept: its record's fields, its hash, and apart from them key and payload, None when erased."""

    record: dict[str, str | int]
    hash: str
    key: bytes | None
    payload: bytes | None

    @property
    def seq(self) -> int:
        """Its number."""
        return int(self.record["seq"])

    def read(self) -> Entry:
        """Return it as an entry."""
        public = {name: value for name, value in self.record.items() if name not in {"commitment", "at"}}
        said = {} if self.payload is None else json.loads(self.payload)
        at = datetime.fromisoformat(str(self.record["at"]))
        return Entry(**(public | said), at=at, hash=self.hash, erased=self.payload is None)


class Checkpoint(msgspec.Struct, frozen=True):
    """A signed word on how the chain was at a moment."""

    seq: int
    at: datetime
    head: str
    signature: str
    public_key: str

    def document(self) -> dict[str, str | int]:
        """Return it as files have it."""
        return {
            "seq": self.seq,
            "head": self.head,
            "time": written(self.at),
            "signature": self.signature,
            "public_key": self.public_key,
        }


class Carried(msgspec.Struct, frozen=True):
    """What of the trail has come from one site key to the next: checkpoints, and places at which people are found.

    `late`: the newest checkpoint was the older key's, so that a process that has not been started again may still sign.
    """

    checkpoints: int = 0
    subjects: int = 0
    late: bool = False


class Mark(msgspec.Struct, frozen=True):
    """How far something has come with the trail, when, and whose turn it is."""

    name: str
    seq: int
    at: datetime
    holder: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """Which entries: all that are named must be right."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    outcome: Outcome | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def everything(self) -> bool:
        """Whether no entry is left out."""
        return self == Wanted()


def seal(entry: Entry, head: Head, key: bytes) -> Sealed:
    """Return the entry as the next after `head`."""
    payload = canonical(entry.payload())
    record = entry.record(head.seq + 1, commitment(key, payload))
    return Sealed(record, link(head.hash, canonical(record)), key, payload)


def kind_of(target: str, action: str) -> str:
    """Return what kind of thing an id names; where the id does not tell, the action does."""
    return _KINDS.get(target.partition("_")[0], action.partition(".")[0])


def written(at: datetime) -> str:
    """Return a moment as records have it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def lines(entries: list[Sealed], *, keys: bool) -> Iterator[bytes]:
    """Yield entries as lines of JSON; without `keys`, only what is never erased, marked as a copy."""
    for one in entries:
        said: dict[str, Any] = {"record": one.record, "hash": one.hash}
        if keys:
            said["payload"] = None if one.payload is None else msgspec.Raw(one.payload)
            said["key"] = None if one.key is None else one.key.hex()
        else:
            said["copy"] = True
        yield msgspec.json.encode(said) + b"\n"
