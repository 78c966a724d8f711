"""Verifies an audit trail of Modelkeep, with nothing but Python's standard library: read it, then run it.

    python verify_audit.py trail.jsonl [--against copy.jsonl] [--public-key HEX] [--json]

Entry number i of a trail has a public record and a hash: SHA-256 of the hash before it (32 bytes of zero before the first)
and the record as canonical JSON (RFC 8785; texts and whole numbers alone). The record holds a commitment: HMAC-SHA256 of the
entry's payload, also as canonical JSON, with a key of its own. Payload and key of an entry that names an erased person are
gone; the entry of the erasure lists the numbers. Checkpoints are hashes of entries, signed with Ed25519; that needs the
package `cryptography`, and where it is missing they are compared and their signatures are not checked, which is said.

A trail that was written anew from some entry on, hashes included, is only told by a checkpoint or a copy from before:
`--against`. Whoever can write to both can write what they like. Exit code: 0 whole, 1 broken, 2 not read.
"""

import argparse
import hashlib
import hmac
import json
import re
import sys
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

GENESIS: Final = "0" * 64
ERASURE: Final = "audit.erase"
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_decode = json.JSONDecoder().decode
_ENTRY: Final = b'{"record":'
"""How lines begin that are entries and nothing else: half of the work is not to read them twice."""
_NOT_THERE: Final = object()
_NOT_ITS_HASH: Final = "its record does not give its hash"
_TITLE: Final = b"modelkeep audit checkpoint\n"
_is_hash = re.compile("[0-9a-f]{64}").fullmatch
_HOSTILE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading raises where somebody has written something else than an entry."""
Span = tuple[int, int]
"""Numbers from the first to the last: what is said of a billion entries must cost no more than what is said of one."""


def canonical(value: object) -> bytes:
    """Return canonical JSON of texts, whole numbers, nulls and objects whose names are ASCII."""
    return _encode(value).encode()


def link(previous: str, record: bytes) -> str:
    """Return the hash of an entry: over the hash before it and its record."""
    return hashlib.sha256(bytes.fromhex(previous) + record).hexdigest()


def commitment(key: bytes, payload: bytes) -> str:
    """Return what a record holds in the place of its payload."""
    return hmac.digest(key, payload, "sha256").hex()


def checkpoint_message(seq: int, head: str, at: str) -> bytes:
    """Return what the signature of a checkpoint is made over."""
    return _TITLE + canonical({"seq": seq, "head": head, "time": at})


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans in their order, without overlaps."""
    parts: list[Span] = []
    for first, last in sorted(spans):
        if parts and first <= parts[-1][1] + 1:
            parts[-1] = parts[-1][0], max(parts[-1][1], last)
        else:
            parts.append((first, last))
    return parts


def ranges(spans: Iterable[Span]) -> str:
    """Return spans as a text: `3-7,9`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in joined(spans))


def spans_in(text: str) -> list[Span]:
    """Return the spans that such a text names; raises `ValueError` where it names none."""
    found: list[Span] = []
    for part in filter(None, text.split(",")):
        first, _dash, last = part.partition("-")
        found.append((int(first), int(last or first)))
        if found[-1][0] > found[-1][1]:
            raise ValueError(part)
    return found


@dataclass
class Finding:
    """Entries, from the first to the last, and what is wrong with them."""

    kind: str
    first: int
    last: int
    about: str


@dataclass
class Report:
    """What a verification found. `signatures` says whether those of the checkpoints were checked."""

    entries: int = 0
    last: int = 0
    head: str = GENESIS
    erased: int = 0
    checkpoints: int = 0
    signatures: str = "there are no checkpoints"
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


class Verifier:
    """Takes the entries of a trail one after the other. What they are to agree with (`expect`, `known`) comes before them.

    `whole`: numbers must be without gaps from 1 on, as they are unless entries were selected.
    """

    def __init__(self, *, whole: bool = True, public_keys: Collection[str] = ()) -> None:
        self._whole = whole
        self._public_keys = tuple(public_keys)
        self._report = Report()
        self._next = 1
        self._before: list[str] = []  # hashes that the entry before the newest may have, and the newest itself
        self._heads: list[str] = [GENESIS]
        self._missing: list[Span] = []  # in their order
        self._edges: dict[int, str] = {1: GENESIS}  # the hash before an entry that has yet to come
        self._loose: dict[int, tuple[bytes, str]] = {}  # entries whose predecessor has yet to come
        self._bare: set[int] = set()
        self._erased: list[Span] = []
        self._expected: dict[int, str] = {}
        self._copies: dict[int, str] = {}
        self._highest = 0
        self._fitting = 0
        self._newest: dict[tuple[str, str], Finding] = {}

    def expect(self, checkpoint: dict[str, Any]) -> None:
        """Hear of a checkpoint: seq, head, time, signature, public_key."""
        seq, head = int(checkpoint["seq"]), str(checkpoint["head"])
        self._report.checkpoints += 1
        said = self._signed(checkpoint, seq, head)
        if said is False:
            self._find("forged checkpoint", seq, "its signature is not this installation's")
            return
        if self._expected.setdefault(seq, head) != head:
            self._find("forged checkpoint", seq, "two checkpoints say different things of one entry")
        self._highest = max(self._highest, seq)

    def known(self, seq: int, found: str) -> None:
        """Hear what hash a copy has for an entry. A copy gets each once, or again as it was: two are two histories."""
        if self._copies.setdefault(seq, found) != found:
            self._find("rewritten", seq, "copies have two hashes of it")
        self._highest = max(self._highest, seq)

    def reaches(self, seq: int) -> None:
        """Hear how far the trail must go at least."""
        self._highest = max(self._highest, seq)

    def unreadable(self, line: int) -> None:
        """Hear that a line is no entry."""
        self._find("unreadable", self._next, f"line {line} is no entry")

    def add(self, record: dict[str, Any], stored: str, payload: object = _NOT_THERE, key: bytes = b"") -> None:
        """Take the next entry. `payload`: None where it was erased; left out where it was never to be here."""
        seq = record.get("seq")
        if not isinstance(seq, int) or seq < 1:
            self._find("edited", self._next, "its number is none")
            return
        if not _is_hash(stored):
            self._find("edited", seq, "its hash is none")
            stored = GENESIS
        raw = canonical(record)
        self._report.entries += 1
        if seq < self._next:
            self._late(seq, raw, stored)
        else:
            self._in_order(seq, raw, stored)
        self._compare(seq, stored)
        if payload is None:
            self._bare.add(seq)
        elif isinstance(payload, bytes):
            self._open(seq, record, payload, key)

    def report(self) -> Report:
        """Return what was found, after the last entry."""
        done = self._report
        done.last, done.head = self._next - 1, self._heads[0]
        for first, last in self._missing:
            self._find("deleted", first, "there is no such entry", last)
        erased = joined(self._erased)
        for seq in sorted(self._bare):
            if _among(erased, seq):
                done.erased += 1
            elif self._whole:
                self._find("payload deleted", seq, "its payload is gone, and no erasure tells of it")
        if self._whole and self._next <= self._highest:
            self._find("cut off", self._next, "the trail ends before it", self._highest)
        done.findings = [one for one in done.findings if one.first <= one.last]
        return done

    def _in_order(self, seq: int, raw: bytes, stored: str) -> None:
        """Take an entry that is newer than all before it, with or without a gap between."""
        spoilt: list[str] = []
        if seq == self._next:
            if not any(link(one, raw) == stored for one in self._heads):
                self._find("edited", seq, _NOT_ITS_HASH)
                spoilt = self._heads[:1]  # where two were exchanged, the next follows the first of them
            self._before = self._heads
        else:
            if self._whole:
                self._missing.append((self._next, seq - 1))
                self._edges[self._next] = self._heads[0]
                self._loose[seq] = (raw, stored)
            self._before = []
        self._heads, self._next = [stored, *spoilt], seq + 1

    def _late(self, seq: int, raw: bytes, stored: str) -> None:
        """Take an entry that stands behind a newer one: out of its place, or a second of its number."""
        if self._was_missing(seq):
            self._find("reordered", seq, "it stands behind a newer one")
            self._settle(seq, raw, stored)
            return
        if seq == self._next - 1:
            if any(link(one, raw) == stored for one in self._before):
                self._take_back("edited", seq, _NOT_ITS_HASH)  # the first was the stranger, and this is the entry
            self._heads.append(stored)
        self._find("inserted", seq, "two entries have this number")

    def _was_missing(self, seq: int) -> bool:
        """Whether an entry was missing, which it is no more."""
        at = bisect_right(self._missing, (seq, self._next)) - 1
        if at < 0 or self._missing[at][1] < seq:
            return False
        first, last = self._missing[at]
        self._missing[at : at + 1] = [one for one in ((first, seq - 1), (seq + 1, last)) if one[0] <= one[1]]
        return True

    def _settle(self, seq: int, raw: bytes, stored: str) -> None:
        """Check an entry that came late, and the one that waited for it."""
        previous = self._edges.pop(seq, None)
        if previous is None:
            self._loose[seq] = (raw, stored)
        elif link(previous, raw) != stored:
            self._find("edited", seq, _NOT_ITS_HASH)
        waiting = self._loose.pop(seq + 1, None)
        if waiting is None:
            self._edges[seq + 1] = stored
        elif link(stored, waiting[0]) != waiting[1]:
            self._find("edited", seq + 1, _NOT_ITS_HASH)

    def _compare(self, seq: int, stored: str) -> None:
        """Compare an entry's hash with what checkpoints and copies say."""
        expected = self._expected.get(seq)
        if expected is not None and expected != stored:
            self._find("rewritten", seq, f"its checkpoint has another hash: changed after entry {self._fitting}")
        elif expected is not None:
            self._fitting = seq
        if self._copies.get(seq, stored) != stored:
            self._find("rewritten", seq, "the copy has another hash")

    def _open(self, seq: int, record: dict[str, Any], payload: bytes, key: bytes) -> None:
        """Compare a payload with its commitment; of an erasure, hear which entries have none."""
        if commitment(key, payload) != record.get("commitment"):
            self._find("payload edited", seq, "it is not what the record committed to")
        elif record.get("action") == ERASURE:
            try:
                self._erased += spans_in(json.loads(payload)["details"]["numbers"])
            except _HOSTILE:
                self._find("payload edited", seq, "an erasure that does not say of what")

    def _signed(self, checkpoint: dict[str, Any], seq: int, head: str) -> bool | None:
        """Whether a checkpoint's signature is right; None where that cannot be told."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            self._report.signatures = "NOT CHECKED: the package `cryptography` is not here"
            return None
        pinned = self._public_keys
        self._report.signatures = "checked" if pinned else "checked with the key in the file; --public-key pins another"
        for key in pinned or [checkpoint.get("public_key", "")]:
            try:
                public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
                public.verify(bytes.fromhex(checkpoint["signature"]), checkpoint_message(seq, head, checkpoint["time"]))
            except (InvalidSignature, *_HOSTILE):
                continue
            return True
        return False

    def _take_back(self, kind: str, seq: int, about: str) -> None:
        newest = self._newest.get((kind, about))
        if newest is not None and newest.last == seq:
            newest.last -= 1  # where none is left, `report` leaves it out

    def _find(self, kind: str, seq: int, about: str, last: int | None = None) -> None:
        """Note what is wrong with an entry, or with those from one to the `last`."""
        newest = self._newest.get((kind, about))
        if newest is not None and newest.last + 1 == seq:
            newest.last = last or seq
            return
        self._newest[kind, about] = found = Finding(kind, seq, last or seq, about)
        self._report.findings.append(found)


def _among(spans: list[Span], seq: int) -> bool:
    """Whether one of some spans, which are in their order, has a number."""
    at = bisect_right(spans, seq, key=lambda span: span[0]) - 1
    return at >= 0 and seq <= spans[at][1]


def lines_of(path: Path, *, entries: bool = True) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the lines of a trail with their numbers, without `entries` only the others; None for one that is no JSON object."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not entries and line.startswith(_ENTRY):
                continue
            try:
                read = _decode(line.decode())
            except (ValueError, RecursionError):
                read = None
            yield number, read if isinstance(read, dict) else None


def verify_file(path: Path, *, against: Iterable[Path] = (), public_keys: Collection[str] = ()) -> Report:
    """Verify an export, or a copy, in a file; `against` are copies from elsewhere. Raises `OSError` for what is no file."""
    head = next((line for _number, line in lines_of(path)), None) or {}
    said = head.get("trail", {"whole": True})
    verifier = Verifier(whole=said["whole"], public_keys=public_keys)
    ended = _promises(path, verifier)
    for copy in against:
        _promises(copy, verifier, hashes=True)
    _entries(path, verifier)
    report = verifier.report()
    if "trail" in head and not ended:
        report.findings.append(Finding("cut off", report.last + 1, report.last + 1, "the file has no last line"))
    return report


def _promises(path: Path, verifier: Verifier, *, hashes: bool = False) -> bool:
    """Tell what a file says that the trail must agree with; returns whether it has its last line."""
    ended = False
    for number, line in lines_of(path, entries=hashes):
        if line is None:
            continue
        try:
            if "checkpoint" in line:
                verifier.expect(line["checkpoint"])
            elif hashes and "record" in line:
                verifier.known(int(line["record"]["seq"]), str(line["hash"]))
            elif "end" in line:
                ended = True
                verifier.reaches(int(line["end"]["seq"]))
        except _HOSTILE:
            verifier.unreadable(number)
    return ended


def _entries(path: Path, verifier: Verifier) -> None:
    """Hand over the entries of a file.

    A copy may hold entries twice, and lines that a crash has torn before they were written again: what was not surely
    delivered is delivered again.
    """
    newest = 0
    torn: dict[int, int] = {}
    for number, line in lines_of(path):
        if line is None:
            torn[newest + 1] = number
            continue
        if "record" not in line:
            continue
        try:
            record, copy = line["record"], line.get("copy", False)
            if copy:
                verifier.known(int(record["seq"]), str(line["hash"]))
                if record["seq"] <= newest:
                    continue
            payload: object = _NOT_THERE
            if "payload" in line:
                payload = None if line["payload"] is None else canonical(line["payload"])
            verifier.add(record, line["hash"], payload, bytes.fromhex(line.get("key") or ""))
            newest = max(newest, record["seq"])
            if copy:
                torn.pop(record["seq"], None)
        except _HOSTILE:
            verifier.unreadable(number)
    for number in torn.values():
        verifier.unreadable(number)


def told(report: Report) -> Iterator[str]:
    """Yield a report as lines for people."""
    for one in report.findings:
        which = f"entry {one.first}" if one.first == one.last else f"entries {one.first} to {one.last}"
        yield f"{one.kind}: {which}: {one.about}"
    yield f"{report.entries} entries, the last is {report.last}, its hash {report.head}"
    yield f"{report.erased} erased; {report.checkpoints} checkpoints, signatures: {report.signatures}"
    yield "The trail is whole." if report.whole else "THE TRAIL IS BROKEN."


def main() -> int:
    """Verify the file that the command line names."""
    parser = argparse.ArgumentParser(description="Verifies an audit trail of Modelkeep.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path, action="append", default=[], metavar="COPY")
    parser.add_argument("--public-key", action="append", default=[], metavar="HEX")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        report = verify_file(given.file, against=given.against, public_keys=given.public_key)
    except (OSError, *_HOSTILE) as error:
        sys.stderr.write(f"{given.file} is not read: {error}\n")
        return 2
    if given.json:
        sys.stdout.write(json.dumps(asdict(report) | {"whole": report.whole}, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in told(report))
    return 0 if report.whole else 1


if __name__ == "__main__":
    sys.exit(main())
