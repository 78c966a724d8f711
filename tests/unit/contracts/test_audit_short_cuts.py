"""The short cuts of the verifier find what it finds without them, whatever somebody has made of the trail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.contracts import audit_chain
from modelkeep.contracts.audit_chain import ERASURE, GENESIS, canonical, commitment, link, verify_file
from modelkeep.control.audit.rules import Entry, Head, Sealed, lines, seal

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COUNT = 12
ERASED = 4
ODD = 'Zoë \x00 \x07 \b\f\n\r\t \x7f = | / \\ " \u2028 \U0001f600'
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.just(ODD)


def sealed(entries: list[Entry], erased: int = 0) -> list[Sealed]:
    """Entries as the service keeps them; payload and key of one are gone."""
    made, head = [], Head(0, GENESIS)
    for entry in entries:
        made.append(seal(entry, head, bytes([len(made) % 256]) * 32))
        head = Head(made[-1].seq, made[-1].hash)
    return [msgspec.structs.replace(one, key=None, payload=None) if one.seq == erased else one for one in made]


def entry(number: int) -> Entry:
    details: dict[str, str] = {"b": "x", "a": "y"} if number % 2 else {"name": ODD}
    if number == COUNT:
        details = {"numbers": str(ERASED), "reason": "asked for"}
    return Entry(
        id=f"aud_{number}",
        at=AT + timedelta(microseconds=number),
        action=ERASURE if number == COUNT else "model.describe",
        target_kind="model",
        actor="key_1",
        actor_name="Zoë",
        details=details,
        before=None if number == 1 else f"was {number}",
        after=f'{{"is": {number}}}',
    )


GOOD = [line.decode() for line in lines(sealed([entry(number) for number in range(1, COUNT + 1)], ERASED), keys=True)]
COPY = [line.decode() for line in lines(sealed([entry(number) for number in range(1, COUNT + 1)], ERASED), keys=False)]


# ---- what somebody may do to it


def parts(line: str) -> tuple[str, str]:
    """The record and the payload of a line, as they stand there."""
    record, rest = line.removeprefix('{"record":').split(',"hash":', 1)
    return record, rest.partition('"payload":')[2].rpartition(',"key":')[0]


def anew(record: str, payload: str, previous: str) -> str:
    """A line of these texts just as they are, with hash and commitment over them: not over what they say."""
    record = record.replace(record.partition('"commitment":"')[2][:64], commitment(bytes(32), payload.encode()))
    stored = link(previous, record.encode())
    return f'{{"record":{record},"hash":"{stored}","payload":{payload},"key":"{bytes(32).hex()}"}}\n'


TWISTS: dict[str, Callable[[str], str]] = {
    "a name twice": lambda text: f"{{{text[1 : text.index(',')]},{text[1:]}",
    "a name twice at the end": lambda text: f"{text[:-1]},{text[1 : text.index(',')]}}}",
    "a blank": lambda text: text.replace(":", ": ", 1),
    "an order": lambda text: json.dumps(dict(reversed(json.loads(text).items())), ensure_ascii=False, separators=(",", ":")),
    "an escape nobody needs": lambda text: text.replace('"m', '"\\u006d', 1).replace("key_", "\\u006bey_", 1),
    "an escaped slash": lambda text: text.replace(" / ", " \\/ "),
    "an escape in capitals": lambda text: text.replace("\\u0007", "\\U0007".lower()).replace("\\u001f", "\\u001F"),
    "a long escape": lambda text: text.replace("\\b", "\\u0008").replace("\\n", "\\u000a"),
    "ASCII alone": lambda text: json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")),
    "half a pair": lambda text: text.replace("Zo", "\\ud83d", 1),
    "details in another order": lambda text: text.replace('{"a":"y","b":"x"}', '{"b":"x","a":"y"}'),
    "details twice": lambda text: text.replace('{"a":"y",', '{"a":"y","a":"y",'),
    "a number with a point": lambda text: text.replace('"seq":', '"seq":1.0,"set":'),
    "a number with a zero": lambda text: text.replace('"seq":', '"seq":0'),
    "a number with a power": lambda text: text.replace('"before":null', '"before":1e0'),
}
CANONICAL: dict[str, Callable[[str], str]] = {
    "nothing": lambda text: text,
    "another action": lambda text: text.replace("model.describe", "model.read"),
    "another person": lambda text: text.replace("key_1", "key_2"),
    "details in details": lambda text: text.replace('"a":"y"', '"a":{"y":"z"}'),
    "no number": lambda text: text.replace('"before":null', '"before":NaN'),
    "another field": lambda text: text.replace('"id"', '"ic":null,"id"').replace('"before"', '"be":null,"before"'),
}
twists = st.sampled_from([*TWISTS.values(), *CANONICAL.values()])


def _anew(draw: st.DrawFn, some: list[str], at: int) -> None:
    before = some[at - 1].partition('"hash":"')[2][:64] if at else GENESIS
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # there is nothing, or it is twisted already
        some[at] = anew(*(draw(twists)(text) for text in parts(some[at])), before)


def _sign(draw: st.DrawFn, some: list[str], at: int) -> None:
    where = draw(st.integers(0, max(0, len(some[at]) - 1)))
    some[at] = some[at][:where] + draw(st.characters(exclude_categories=["Cs"])) + some[at][where + 1 :]


def _blank(draw: st.DrawFn, some: list[str], at: int) -> None:
    where = draw(st.sampled_from([n for n, sign in enumerate(some[at]) if sign in "{}:,\n"] or [0]))
    some[at] = some[at][:where] + draw(st.sampled_from([" ", "\t", "\r", "\ufeff", "\x0b", "\n"])) + some[at][where:]


def _drop(_draw: st.DrawFn, some: list[str], at: int) -> None:
    some[at] = ""


def _twice(draw: st.DrawFn, some: list[str], at: int) -> None:
    some.insert(draw(st.integers(0, len(some))), some[at])


def _exchange(draw: st.DrawFn, some: list[str], at: int) -> None:
    other = draw(st.integers(0, len(some) - 1))
    some[at], some[other] = some[other], some[at]


def _cut(draw: st.DrawFn, some: list[str], at: int) -> None:
    some[at] = some[at][: draw(st.integers(0, len(some[at])))]


def _end(draw: st.DrawFn, some: list[str], at: int) -> None:
    some[at] = some[at].removesuffix("\n") + draw(st.sampled_from(["\r\n", "", "\n\n", "\x00\n"]))


def _said_otherwise(draw: st.DrawFn, some: list[str], at: int) -> None:
    with suppress(ValueError):  # it is no JSON any more
        some[at] = json.dumps(json.loads(some[at]), ensure_ascii=draw(st.booleans())) + "\n"


def _insert(draw: st.DrawFn, some: list[str], at: int) -> None:
    odd = ['{"record":7}', '{"record":{"seq":true}}', "[" * 2000, '{"end":{"seq":3}}', '{"checkpoint":{}}', "\x00", "{}"]
    some.insert(at, draw(st.sampled_from(odd)) + "\n")


def _word(draw: st.DrawFn, some: list[str], at: int) -> None:
    words = {'"copy":true': '"copy":1', '"payload":': '"payload":null,"x":', '"key":"0': '"key":"F', '"seq":': '"seq":9'}
    word = draw(st.sampled_from(sorted(words)))
    some[at] = some[at].replace(word, words[word])


EDITS = [_anew, _anew, _sign, _blank, _drop, _twice, _exchange, _cut, _end, _said_otherwise, _insert, _word]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A trail after somebody had it."""
    some = list(draw(st.sampled_from([GOOD, GOOD, COPY])))
    for edit in draw(st.lists(st.sampled_from(EDITS), min_size=1, max_size=4)):
        edit(draw, some, draw(st.integers(0, len(some) - 1)))
    written = ['{"trail":{"whole":true}}\n', *some, f'{{"end":{{"seq":{COUNT}}}}}\n']
    what = draw(st.sampled_from([b"\xc3\xab", b"\xff", b"\xed\xa0\x80", b"\xc3"]))  # itself, and what is not UTF-8
    return "".join(written).encode().replace("ë".encode(), what, draw(st.integers(0, 3)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trails") / "trail.jsonl"


def compared(path: Path, written: bytes, part: int) -> list[tuple[str, int]]:
    """Return what the verifier finds, which has to be what it finds in the plain way."""
    path.write_bytes(written)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(audit_chain, "_PART", part)
        patched.setattr(os, "cpu_count", lambda: 1)
        quickly = verify_file(path)
    assert asdict(quickly) == asdict(verify_file(path, plain=True))
    return [(one.kind, one.first) for one in quickly.findings]


@given(written=changed(), part=st.integers(1, 6000))
def test_whatever_was_done_to_a_trail_the_short_cuts_find_it(file: Path, written: bytes, part: int):
    compared(file, written, part)


FORGED = [
    (where, name, at)
    for where in (0, 1)
    for name, twist in TWISTS.items()
    for at, line in enumerate(GOOD)
    if at + 1 != ERASED and at < 2 and twist(parts(line)[where]) != parts(line)[where]
]


@pytest.mark.parametrize(("where", "twist", "at"), FORGED)
def test_hashes_over_what_is_not_canonical_are_wrong(file: Path, where: int, twist: str, at: int):
    """Who writes everything anew can give right hashes to the bytes that stand there; the verifier hashes what they say."""
    texts = list(parts(GOOD[at]))
    texts[where] = TWISTS[twist](texts[where])
    line = anew(*texts, json.loads(GOOD[at - 1])["hash"] if at else GENESIS)
    found = compared(file, "".join([*GOOD[:at], line]).encode(), 500)
    kinds = {"edited", "unreadable", "payload edited"}
    assert [one for one in found if one[0] in kinds and one[1] == at + 1]


made = st.builds(
    Entry,
    id=texts,
    at=st.datetimes(timezones=st.just(UTC)),
    action=texts,
    target_kind=texts,
    outcome=st.sampled_from(["done", "refused"]),
    request_id=texts,
    actor=texts,
    actor_name=texts,
    user=texts,
    address=texts,
    target=texts,
    details=st.dictionaries(texts, texts, max_size=4),
    before=st.none() | texts,
    after=st.none() | texts,
)


@given(some=st.lists(made, min_size=1, max_size=3), keys=st.booleans())
@example(some=[entry(1), entry(2)], keys=True)
def test_what_is_written_is_canonical_and_is_never_parsed(some: list[Entry], keys: bool):
    """Counted, not timed: where this fails a long trail takes three times as long."""
    kept = sealed(some)
    for one, line in zip(kept, lines(kept, keys=keys), strict=True):
        assert canonical(json.loads(one.record())).decode() == one.record()
        plainly = audit_chain.entry_of(line, plain=True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(audit_chain, "_decode", lambda _line: pytest.fail("a line of ours was parsed"))
            assert audit_chain.entry_of(line) == plainly
    _seq, _record, _hash, payload, copy = plainly
    assert (payload, copy) == (("kept", False) if keys else ("none", True))
    assert kept[-1].found()[:3] == plainly[:3]


@pytest.mark.parametrize("edited", [None, 3, 700])
def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: int | None):
    kept = sealed([entry(number) for number in range(1, 1001)])
    some = list(lines(kept, keys=True))
    if edited is not None:
        some[edited - 1] = some[edited - 1].replace(b"model.describe", b"model.read")
    path, heard = tmp_path / "trail.jsonl", []
    path.write_bytes(b"".join(some))
    monkeypatch.setattr(audit_chain, "_PART", 5000)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    report = verify_file(path, on_bytes=lambda done, size: heard.append((done, size)))
    assert [(one.kind, one.first, one.last) for one in report.findings] == (
        [] if edited is None else [("edited", edited, edited)]
    )
    assert asdict(report) == asdict(verify_file(path, plain=True))
    size = path.stat().st_size
    assert heard == [(min(done, size), size) for done in range(5000, size + 5000, 5000)]


def test_where_there_can_be_no_further_processes_one_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, asked = tmp_path / "trail.jsonl", []
    path.write_text("".join(GOOD))

    def refused(*_arguments: object) -> None:
        asked.append(1)
        raise OSError("no semaphores")

    monkeypatch.setattr(audit_chain, "_PART", 100)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(audit_chain, "ProcessPoolExecutor", refused)
    report = verify_file(path)
    assert (report.whole, report.entries, asked) == (True, COUNT, [1])


@pytest.mark.timeout(60)
def test_what_reads_a_trail_ends_with_what_verifies_it(tmp_path: Path):
    """Killed as it begins, it leaves nobody behind who holds its output open."""
    source, begins = Path(audit_chain.__file__).read_text(), "    parent: Any = parent_process()\n"
    assert begins in source
    script, path = tmp_path / "verify_audit.py", tmp_path / "trail.jsonl"
    source = source.replace("1 << 20", "100").replace("os.cpu_count() or 1", "2")
    script.write_text(source.replace(begins, f'{begins}    os.write(1, b"a reader\\n")\n'))
    path.write_text("".join(GOOD) * 100)
    with subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "a reader\n"
        run.kill()
        assert "whole" not in run.stdout.read()


@pytest.mark.parametrize("part", [1, 7, 100, 10_000])
def test_each_line_begins_in_one_part(tmp_path: Path, part: int):
    path = tmp_path / "lines"
    written = b"one\n\n" + b"x" * 50 + b"\ntwo\r\n\nno end"
    path.write_bytes(written)
    read = [line for start in range(0, len(written), part) for line in audit_chain.lines_of(path, start, start + part)]
    assert read == written.splitlines(keepends=True)
    assert list(audit_chain.lines_of(path)) == read
