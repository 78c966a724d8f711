"""Verifies an audit trail of Modelkeep, with nothing but Python's standard library: read it, then run it.

    python verify_audit.py trail.jsonl [--against copy.jsonl] [--public-key HEX] [--json]

Entry number i of a trail has a public record and a hash: SHA-256 of the hash before it (32 bytes of zero before the first)
and the record as canonical JSON (RFC 8785; texts and whole numbers alone). The record holds a commitment: HMAC-SHA256 of the
entry's payload, also as canonical JSON, with a key of its own. Payload and key of an entry that names an erased person are
gone; the entry of the erasure lists the numbers. Checkpoints are hashes of entries, signed with Ed25519; that needs the
package `cryptography`, and where it is missing they are compared and their signatures are not checked, which is said.

A trail that was written anew from some entry on, hashes included, is only told by a checkpoint or a copy from before:
`--against`. Whoever can write to both can write what they like. Exit code: 0 whole, 1 broken, 2 not read.

`entry_of` reads one line and looks at nothing else; `Verifier` takes what was read, in its order, and says what is found. So
several processes read a long trail, and one verifies it. What stands in its line just as Modelkeep writes it is not parsed and
encoded again. `--plain` does without both, takes longer, and reports the same.
"""

import argparse
import hashlib
import hmac
import json
import os
import re
import signal
import sys
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Final

GENESIS: Final = "0" * 64
ERASURE: Final = "audit.erase"
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_decode = json.JSONDecoder().decode
_ENTRY: Final = b'{"record":'  # so lines begin that are entries and nothing else: they need not be read twice
_TEXT: Final = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))[^"\\\x00-\x1f]*+)*"'
"""A text in canonical JSON: what must be escaped is, in the one way there is, and nothing else."""
_SHAPE: Final = (
    r'\{"record":(\{"action":(T),"at":T,"commitment":H,"id":T,"outcome":T,"request_id":T,"seq":N,"target_kind":T\}),"hash":H'
    r'(?:,"payload":(?:(null)|(\{"actor":T,"actor_name":T,"address":T,"after":(?:T|null),"before":(?:T|null),'
    r'"details":(\{(?:T:T(,T:T)*)?\}),"target":T,"user":T\})),"key":(?:null|"((?:[0-9a-f]{2})*)"))?(,"copy":true)?\}\n'
)
_shaped = re.compile(_SHAPE.replace("N", "([1-9][0-9]{0,17})").replace("H", '"([0-9a-f]{64})"').replace("T", _TEXT)).fullmatch
_PART: Final = 1 << 20  # bytes of a file that one process reads at a time
_NOT_ITS_HASH: Final = "its record does not give its hash"
_is_hash = re.compile("[0-9a-f]{64}").fullmatch
_HOSTILE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading raises where somebody has written something else than an entry."""
Span = tuple[int, int]
"""Numbers from the first to the last: what is said of a billion entries must cost no more than what is said of one."""
Entry = tuple[Any, bytes, Any, str | list[Span], bool]
"""Number, record as canonical JSON, hash, payload, and whether it says to be a copy. Payload: "kept", "gone", "none" where
it was never to be there, what is wrong with it, or the numbers that an erasure erased."""
Heard = Callable[[int, int], object] | None  # how many bytes are read, and of how many


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
    return b"modelkeep audit checkpoint\n" + canonical({"seq": seq, "head": head, "time": at})


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans in their order, without overlaps."""
    parts: list[Span] = []
    for first, last in sorted(spans):
        if parts and first <= parts[-1][1] + 1:
            parts[-1] = parts[-1][0], max(parts[-1][1], last)
        else:
            parts.append((first, last))
    return parts


def spans_in(text: str) -> list[Span]:
    """Return the spans that such a text names; raises `ValueError` where it names none."""
    parts = [part.partition("-") for part in text.split(",") if part]
    found = [(int(first), int(last or first)) for first, _dash, last in parts]
    if any(first > last for first, last in found):
        raise ValueError(text)
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
        self._whole, self._public_keys = whole, tuple(public_keys)
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
        self._highest = self._fitting = 0
        self._newest: dict[tuple[str, str], Finding] = {}

    def expect(self, checkpoint: dict[str, Any]) -> None:
        """Hear of a checkpoint: seq, head, time, signature, public_key."""
        seq, head = int(checkpoint["seq"]), str(checkpoint["head"])
        self._report.checkpoints += 1
        if self._signed(checkpoint, seq, head) is False:
            self._find("forged checkpoint", seq, "its signature is not this installation's")
            return
        if self._expected.setdefault(seq, head) != head:
            self._find("forged checkpoint", seq, "two checkpoints say different things of one entry")
        self.reaches(seq)

    def known(self, seq: int, found: str) -> None:
        """Hear what hash a copy has for an entry. A copy gets each once, or again as it was: two are two histories."""
        if self._copies.setdefault(seq, found) != found:
            self._find("rewritten", seq, "copies have two hashes of it")
        self.reaches(seq)

    def reaches(self, seq: int) -> None:
        """Hear how far the trail must go at least."""
        self._highest = max(self._highest, seq)

    def unreadable(self, line: int) -> None:
        """Hear that a line is no entry."""
        self._find("unreadable", self._next, f"line {line} is no entry")

    def add(self, entry: Entry) -> None:
        """Take the next entry."""
        seq, raw, stored, payload, _copy = entry
        if not isinstance(seq, int) or seq < 1:
            self._find("edited", self._next, "its number is none")
            return
        if not _is_hash(stored):
            self._find("edited", seq, "its hash is none")
            stored = GENESIS
        self._report.entries += 1
        if seq < self._next:
            self._late(seq, raw, stored)
        else:
            self._in_order(seq, raw, stored)
        if seq in self._expected or seq in self._copies:
            self._compare(seq, stored)
        if payload == "gone":
            self._bare.add(seq)
        elif isinstance(payload, list):
            self._erased += payload
        elif payload not in {"kept", "none"}:
            self._find("payload edited", seq, payload)

    def report(self) -> Report:
        """Return what was found, after the last entry."""
        done = self._report
        done.last, done.head = self._next - 1, self._heads[0]
        for first, last in self._missing:
            self._find("deleted", first, "there is no such entry", last)
        erased = joined(self._erased)
        for seq in sorted(self._bare):
            at = bisect_right(erased, seq, key=lambda span: span[0]) - 1
            if at >= 0 and seq <= erased[at][1]:
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
        self._before = self._heads if seq == self._next else []
        if self._before:
            if link(self._heads[0], raw) != stored and not any(link(one, raw) == stored for one in self._heads[1:]):
                self._find("edited", seq, _NOT_ITS_HASH)
                spoilt = self._heads[:1]  # where two were exchanged, the next follows the first of them
        elif self._whole:
            self._missing.append((self._next, seq - 1))
            self._edges[self._next] = self._heads[0]
            self._loose[seq] = (raw, stored)
        self._heads, self._next = [stored, *spoilt], seq + 1

    def _late(self, seq: int, raw: bytes, stored: str) -> None:
        """Take an entry that stands behind a newer one: out of its place, or a second of its number."""
        if self._was_missing(seq):
            self._find("reordered", seq, "it stands behind a newer one")
            self._settle(seq, raw, stored)
            return
        if seq == self._next - 1:
            newest = self._newest.get(("edited", _NOT_ITS_HASH))
            if newest is not None and newest.last == seq and any(link(one, raw) == stored for one in self._before):
                newest.last -= 1  # the first was the stranger, and this is the entry; `report` leaves out what is empty
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
        self._fitting = seq if expected == stored else self._fitting
        if self._copies.get(seq, stored) != stored:
            self._find("rewritten", seq, "the copy has another hash")

    def _signed(self, checkpoint: dict[str, Any], seq: int, head: str) -> bool | None:
        """Whether a checkpoint's signature is right; None where that cannot be told."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            self._report.signatures = "NOT CHECKED: the package `cryptography` is not here"
            return None
        self._report.signatures = "checked" if self._public_keys else "checked with the key in the file; --public-key pins one"
        for key in self._public_keys or [checkpoint.get("public_key", "")]:
            try:
                public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
                public.verify(bytes.fromhex(checkpoint["signature"]), checkpoint_message(seq, head, checkpoint["time"]))
            except (InvalidSignature, *_HOSTILE):
                continue
            return True
        return False

    def _find(self, kind: str, seq: int, about: str, last: int | None = None) -> None:
        """Note what is wrong with an entry, or with those from one to the `last`."""
        newest = self._newest.get((kind, about))
        if newest is not None and newest.last + 1 == seq:
            newest.last = last or seq
            return
        self._newest[kind, about] = found = Finding(kind, seq, last or seq, about)
        self._report.findings.append(found)


def opened(action: object, committed: object, payload: bytes | None, key: bytes) -> str | list[Span]:
    """Return what became of the payload of an entry that came with one, or with none where it was erased."""
    if payload is None:
        return "gone"
    if commitment(key, payload) != committed:
        return "it is not what the record committed to"
    if action != ERASURE:
        return "kept"
    try:
        return spans_in(json.loads(payload)["details"]["numbers"])
    except _HOSTILE:
        return "an erasure that does not say of what"


def entry_of(raw: bytes, *, plain: bool = False) -> Entry | str:
    """Return the entry in a line, or that the line is "torn", "other" than an entry, or "hostile"."""
    found = None if plain else _as_written(raw)
    if found is not None:
        return found
    line = _read(raw)
    if line is None or "record" not in line:
        return "torn" if line is None else "other"
    try:
        record = line["record"]
        said: str | list[Span] = "none"
        if "payload" in line:
            payload = None if line["payload"] is None else canonical(line["payload"])
            said = opened(record.get("action"), record.get("commitment"), payload, bytes.fromhex(line.get("key") or ""))
        return record["seq"], canonical(record), line["hash"], said, bool(line.get("copy"))
    except _HOSTILE:
        return "hostile"


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        line = _decode(raw.decode())
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _as_written(raw: bytes) -> Entry | None:
    """Return the entry in a line where record and payload are canonical JSON as they stand, which is what Modelkeep writes."""
    try:
        found = _shaped(raw.decode())
    except UnicodeDecodeError:
        found = None
    if found is None:
        return None
    record, action, committed, seq, stored, gone, payload, details, more, key, copy = found.groups()
    if more and canonical(json.loads(details)) != details.encode():
        return None  # names that are not in their order, or there twice
    said: str | list[Span] = "gone" if gone else "none"
    if payload:
        said = opened(action[1:-1], committed, payload.encode(), bytes.fromhex(key or ""))
    return int(seq), record.encode(), stored, said, copy is not None


def lines_of(path: Path, start: int = 0, end: int = sys.maxsize) -> Iterator[bytes]:
    """Yield the lines of a file that begin in a part of it."""
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            start += len(file.readline(end - start + 1)) - 1  # of a line that began before, and no more than the part has
        while start < end and (line := file.readline()):
            yield line
            start += len(line)


def _attend() -> None:
    """Prepare a process that reads: it ends with its parent, whatever that ended by, and nobody interrupts it by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent: Any = parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _read_part(path: Path, size: int, start: int) -> list[Entry | str]:
    return [entry_of(line) for line in lines_of(path, start, start + size)]


def _read_all(path: Path, on_bytes: Heard) -> Iterator[Entry | str]:
    """Yield what the lines of a file are, in their order, read by several processes where there are many."""
    size = path.stat().st_size
    starts = range(0, size, _PART)
    processes = min(os.cpu_count() or 1, len(starts) // 16, 4)  # the one that verifies keeps up with four
    pool = None
    with suppress(OSError, ImportError, NotImplementedError):  # a machine without semaphores: one process does it all
        pool = ProcessPoolExecutor(processes, get_context("spawn"), _attend) if processes > 1 else None
    with pool or nullcontext():
        read = map if pool is None else pool.map
        for some in (starts[first : first + 32] for first in range(0, len(starts), 32)):  # what is read takes memory
            for start, lines in zip(some, read(partial(_read_part, path, _PART), some), strict=True):
                yield from lines
                if on_bytes is not None:
                    on_bytes(min(start + _PART, size), size)


def verify_file(
    path: Path, *, against: Iterable[Path] = (), public_keys: Collection[str] = (), plain: bool = False, on_bytes: Heard = None
) -> Report:
    """Verify an export, or a copy, in a file, or raise `OSError`. `against`: copies from elsewhere; `plain`: no short cuts."""
    head = next(map(_read, lines_of(path)), None) or {}
    verifier = Verifier(whole=head.get("trail", {"whole": True})["whole"], public_keys=public_keys)
    ended = _promises(path, verifier)
    for copy in against:
        _promises(copy, verifier, hashes=True)
    _entries(map(partial(entry_of, plain=True), lines_of(path)) if plain else _read_all(path, on_bytes), verifier)
    report = verifier.report()
    if "trail" in head and not ended:
        report.findings.append(Finding("cut off", report.last + 1, report.last + 1, "the file has no last line"))
    return report


def _promises(path: Path, verifier: Verifier, *, hashes: bool = False) -> bool:
    """Tell what a file says that the trail must agree with; returns whether it has its last line."""
    ended = False
    for number, raw in enumerate(lines_of(path), 1):
        line = None if raw.startswith(_ENTRY) and not hashes else _read(raw)
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


def _entries(lines: Iterable[Entry | str], verifier: Verifier) -> None:
    """Hand over the entries of a file.

    A copy may hold entries twice, and lines that a crash has torn before they were written again: what was not surely
    delivered is delivered again.
    """
    newest = 0
    torn: dict[int, int] = {}
    for number, entry in enumerate(lines, 1):
        if entry == "torn":
            torn[newest + 1] = number
        elif entry == "hostile":
            verifier.unreadable(number)
        if isinstance(entry, str):
            continue
        seq, _record, stored, _payload, copy = entry
        try:
            if copy:
                verifier.known(int(seq), str(stored))
                if seq <= newest:
                    continue
            verifier.add(entry)
            newest = max(newest, seq)
            if copy:
                torn.pop(seq, None)
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
    parser.add_argument("--plain", action="store_true", help="without short cuts; takes longer")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        report = verify_file(given.file, against=given.against, public_keys=given.public_key, plain=given.plain)
    except (OSError, BrokenExecutor, *_HOSTILE) as error:
        sys.stderr.write(f"{given.file} is not read: {error}\n")
        return 2
    lines = [json.dumps(asdict(report) | {"whole": report.whole}, indent=2)] if given.json else told(report)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0 if report.whole else 1


if __name__ == "__main__":
    sys.exit(main())
