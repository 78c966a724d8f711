"""What an entry of the audit trail says, and how it is sealed into the chain."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from json.encoder import encode_basestring as _quoted
from typing import Any, Final, Literal

import msgspec

from modelkeep.contracts import audit_chain
from modelkeep.contracts.audit_chain import Span, canonical, commitment, joined, link, opened

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
    """An entry as it is kept: what its record says, its hash, and apart from them key and payload, None when erased."""

    seq: int
    id: str
    at: str
    action: str
    target_kind: str
    outcome: str
    request_id: str
    commitment: str
    hash: str = ""
    key: bytes | None = None
    payload: str | None = None

    def record(self) -> str:
        """Return the record as canonical JSON, by hand: an encoder that has to sort the names takes three times as long.

        What somebody has put into the database that is neither text nor number makes it "null", which has nobody's hash.
        """
        try:
            return (
                f'{{"action":{_quoted(self.action)},"at":{_quoted(self.at)},"commitment":{_quoted(self.commitment)},'
                f'"id":{_quoted(self.id)},"outcome":{_quoted(self.outcome)},"request_id":{_quoted(self.request_id)},'
                f'"seq":{self.seq:d},"target_kind":{_quoted(self.target_kind)}}}'
            )
        except (TypeError, ValueError):
            return "null"

    def found(self) -> audit_chain.Entry:
        """Return what a verifier is to know of it."""
        payload = None if self.payload is None else self.payload.encode()
        said = opened(self.action, self.commitment, payload, self.key or b"")
        return self.seq, self.record().encode(), self.hash, said, False

    def read(self) -> Entry:
        """Return it as an entry."""
        said = {} if self.payload is None else json.loads(self.payload)
        public = {name: getattr(self, name) for name in _RECORD}
        return Entry(**(public | said), at=datetime.fromisoformat(self.at), hash=self.hash, erased=self.payload is None)


_RECORD: Final = ("seq", "id", "action", "target_kind", "outcome", "request_id")


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
    sealed = Sealed(
        seq=head.seq + 1,
        id=entry.id,
        at=written(entry.at),
        action=entry.action,
        target_kind=entry.target_kind,
        outcome=entry.outcome,
        request_id=entry.request_id,
        commitment=commitment(key, payload),
        key=key,
        payload=payload.decode(),
    )
    return msgspec.structs.replace(sealed, hash=link(head.hash, sealed.record().encode()))


def kind_of(target: str, action: str) -> str:
    """Return what kind of thing an id names; where the id does not tell, the action does."""
    return _KINDS.get(target.partition("_")[0], action.partition(".")[0])


def written(at: datetime) -> str:
    """Return a moment as records have it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def ranges(spans: Iterable[Span]) -> str:
    """Return spans as a text: `3-7,9`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in joined(spans))


def lines(entries: list[Sealed], *, keys: bool) -> Iterator[bytes]:
    """Yield entries as lines of JSON; without `keys`, only what is never erased, marked as a copy.

    The record stands there just as it was hashed, and the payload as it was committed to.
    """
    for one in entries:
        line = f'{{"record":{one.record()},"hash":{_quoted(str(one.hash))}'
        if keys:
            payload = "null" if one.payload is None else one.payload
            key = "null" if one.key is None else f'"{one.key.hex()}"'
            line += f',"payload":{payload},"key":{key}}}\n'
        else:
            line += ',"copy":true}\n'
        yield line.encode()
