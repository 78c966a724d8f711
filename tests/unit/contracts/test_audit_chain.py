"""The verifier: whatever is edited, deleted, exchanged, inserted or cut off is found, and named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts import audit_chain
from modelkeep.contracts.audit_chain import (
    GENESIS,
    canonical,
    checkpoint_message,
    commitment,
    joined,
    link,
    spans_in,
    verify_file,
)
from modelkeep.control.audit.rules import ranges

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
_PUBLIC = _KEY.public_key().public_bytes_raw().hex()


def entries(count: int) -> list[dict]:
    made, previous = [], GENESIS
    for seq in range(1, count + 1):
        payload = {"actor": f"key_{seq}", "details": {"name": "Zoë \x07 = | \n \u2028 \U0001f600"}, "before": None}
        record = {"seq": seq, "action": "model.create", "commitment": commitment(bytes([seq % 256]) * 32, canonical(payload))}
        previous = link(previous, canonical(record))
        made.append({"record": record, "hash": previous, "payload": payload, "key": (bytes([seq % 256]) * 32).hex()})
    return made


def checkpoint(seq: int, head: str) -> dict:
    at = "2026-01-02T03:04:05.000000Z"
    signature = _KEY.sign(checkpoint_message(seq, head, at)).hex()
    return {"checkpoint": {"seq": seq, "head": head, "time": at, "signature": signature, "public_key": _PUBLIC}}


def trail(some: list[dict], *promises: dict, end: int | None = None) -> list[dict]:
    last = [] if end is None else [{"end": {"seq": end}}]
    return [{"trail": {"whole": True}}, *promises, *some, *last]


def verified(tmp_path: Path, lines: list[dict], **more: object) -> list[tuple[str, int, int]]:
    path = tmp_path / "trail.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [(one.kind, one.first, one.last) for one in verify_file(path, **more).findings]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trails")


COUNT = 30
_seq = st.integers(1, COUNT)


def whole(some: list[dict]) -> list[dict]:
    """A trail with a checkpoint in its middle and at its end."""
    good = entries(COUNT)
    return trail(some, checkpoint(15, good[14]["hash"]), checkpoint(COUNT, good[-1]["hash"]), end=COUNT)


def test_an_untouched_trail_is_whole(folder: Path):
    assert verified(folder, whole(entries(COUNT))) == []


def test_an_entry_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read, decode = [], audit_chain._decode
    monkeypatch.setattr(audit_chain, "_decode", lambda line: read.append(line) or decode(line))
    assert verified(folder, whole(entries(COUNT))) == []
    assert sum('"record"' in line for line in read) == COUNT


@given(seq=_seq, name=st.sampled_from(["action", "seq", "commitment", "new"]))
def test_an_edited_record_is_named(folder: Path, seq: int, name: str):
    some = entries(COUNT)
    some[seq - 1]["record"] |= {name: seq + 1000 if name == "seq" else "other"}
    found = verified(folder, whole(some))
    assert any(first <= seq <= last for _kind, first, last in found)
    if name != "seq":
        assert ("edited", seq, seq) in found


@given(seq=_seq, where=st.sampled_from(["payload", "key"]))
def test_an_edited_payload_is_named(folder: Path, seq: int, where: str):
    some = entries(COUNT)
    some[seq - 1][where] = {"actor": "other"} if where == "payload" else "00"
    assert verified(folder, whole(some)) == [("payload edited", seq, seq)]


@given(first=_seq, length=st.integers(1, 5))
def test_deleted_entries_are_named(folder: Path, first: int, length: int):
    last = min(first + length - 1, COUNT)
    some = entries(COUNT)
    del some[first - 1 : last]
    kind = "cut off" if last == COUNT else "deleted"
    assert verified(folder, whole(some)) == [(kind, first, last)]


@given(one=_seq, other=_seq)
def test_exchanged_entries_are_named_and_nothing_else(folder: Path, one: int, other: int):
    some = entries(COUNT)
    some[one - 1], some[other - 1] = some[other - 1], some[one - 1]
    found = verified(folder, whole(some))
    low, high = sorted((one, other))
    assert {kind for kind, _first, _last in found} == ({"reordered"} if low != high else set())
    assert {seq for _kind, first, last in found for seq in range(first, last + 1)} == set(range(low, high))


@given(at=_seq, forged=st.booleans())
def test_an_inserted_entry_is_named(folder: Path, at: int, forged: bool):
    some = entries(COUNT)
    stranger = json.loads(json.dumps(some[at - 1]))
    stranger["record"]["action"] = "user.create"
    if forged:  # with a hash that fits what stands before
        stranger["hash"] = link(some[at - 2]["hash"] if at > 1 else GENESIS, canonical(stranger["record"]))
    some.insert(at - 1, stranger)
    found = verified(folder, whole(some))
    assert ("inserted", at, at) in found
    assert {seq for kind, first, last in found if kind != "rewritten" for seq in range(first, last + 1)} == {at}


@given(seq=st.integers(1, COUNT - 1))
def test_a_trail_that_was_cut_is_told_by_checkpoint_end_or_copy(folder: Path, seq: int):
    good, some = entries(COUNT), entries(COUNT)[:seq]
    cut = ("cut off", seq + 1, COUNT)
    assert verified(folder, trail(some, checkpoint(COUNT, good[-1]["hash"]), end=seq)) == [cut]
    assert verified(folder, trail(some, end=COUNT)) == [cut]
    copy = folder / "copy.jsonl"
    copy.write_text("".join(json.dumps({"record": one["record"], "hash": one["hash"]}) + "\n" for one in good))
    assert verified(folder, trail(some, end=seq), against=[copy]) == [cut]
    assert verified(folder, trail(some, end=seq)) == []  # and by nothing else
    assert verified(folder, trail(some)) == [("cut off", seq + 1, seq + 1)]


@given(seq=st.integers(1, COUNT))
def test_a_trail_written_anew_with_right_hashes_is_told_by_the_next_checkpoint_or_a_copy(folder: Path, seq: int):
    good, some = entries(COUNT), entries(COUNT)
    previous = some[seq - 2]["hash"] if seq > 1 else GENESIS
    some[seq - 1]["record"]["action"] = "other"
    for one in some[seq - 1 :]:
        one["hash"] = previous = link(previous, canonical(one["record"]))
    assert verified(folder, trail(some, end=COUNT)) == []  # nothing in the file itself tells
    found = verified(folder, whole(some))
    assert found[0][:2] == ("rewritten", 15 if seq <= 15 else COUNT)
    copy = folder / "copy.jsonl"
    copy.write_text("".join(json.dumps({"record": one["record"], "hash": one["hash"]}) + "\n" for one in good))
    assert verified(folder, trail(some, end=COUNT), against=[copy]) == [("rewritten", seq, COUNT)]


def test_a_checkpoint_of_somebody_else_is_named(tmp_path: Path):
    good = entries(3)
    forged = checkpoint(3, good[2]["hash"])
    forged["checkpoint"]["head"] = GENESIS
    assert verified(tmp_path, trail(good, forged, end=3)) == [("forged checkpoint", 3, 3)]
    other = Ed25519PrivateKey.from_private_bytes(b"1" * 32).public_key().public_bytes_raw().hex()
    assert verified(tmp_path, trail(good, checkpoint(3, good[2]["hash"]), end=3), public_keys=[other]) == [
        ("forged checkpoint", 3, 3)
    ]


def test_a_payload_that_is_gone_is_accounted_for_by_an_erasure_or_named(tmp_path: Path):
    some = entries(5)
    some[1] |= {"payload": None, "key": None}
    assert verified(tmp_path, trail(some, end=5)) == [("payload deleted", 2, 2)]
    payload = {"details": {"numbers": "2"}}
    record = {"seq": 6, "action": audit_chain.ERASURE, "commitment": commitment(bytes(32), canonical(payload))}
    some.append(
        {"record": record, "hash": link(some[-1]["hash"], canonical(record)), "payload": payload, "key": bytes(32).hex()}
    )
    assert verified(tmp_path, trail(some, end=6)) == []
    some[5]["payload"] = {"details": {"numbers": "2-3"}}
    some[2] |= {"payload": None, "key": None}
    assert verified(tmp_path, trail(some, end=6)) == [("payload edited", 6, 6), ("payload deleted", 2, 3)]


def test_a_copy_may_hold_torn_lines_and_entries_twice_and_nothing_else(tmp_path: Path):
    lines = [json.dumps({"record": one["record"], "hash": one["hash"], "copy": True}) for one in entries(6)]
    path = tmp_path / "copy.jsonl"
    path.write_text("\n".join([*lines[:3], lines[3][:20], *lines[1:6]]) + "\n")
    assert verify_file(path).whole
    path.write_text("\n".join([*lines[:3], "x", *lines[4:]]) + "\n")
    assert [one.kind for one in verify_file(path).findings] == ["unreadable", "deleted"]


@given(st.sets(st.integers(1, 60)))
def test_ranges_are_read_as_they_were_written(numbers: set[int]):
    spans = spans_in(ranges((one, one) for one in numbers))
    assert spans == joined(spans)
    assert {one for first, last in spans for one in range(first, last + 1)} == numbers


@given(seq=st.integers(1, COUNT))
def test_a_copy_with_two_hashes_for_an_entry_agrees_with_neither(folder: Path, seq: int):
    """Who writes to the database alone can have the rewritten entries delivered behind the true ones."""
    good, some = entries(COUNT), entries(COUNT)
    previous = some[seq - 2]["hash"] if seq > 1 else GENESIS
    for one in some[seq - 1 :]:
        one["record"]["action"] = "other"
        one["hash"] = previous = link(previous, canonical(one["record"]))
    copy = folder / "copy.jsonl"
    both = [{"record": one["record"], "hash": one["hash"], "copy": True} for one in [*good, *some[seq - 1 :]]]
    copy.write_text("".join(json.dumps(one) + "\n" for one in both))
    expected = [("rewritten", seq, COUNT)]
    for kept in (some, good):
        assert expected[0] in verified(folder, trail(kept, end=COUNT), against=[copy])
    assert [(one.kind, one.first, one.last) for one in verify_file(copy).findings] == expected


_MANY = 9 * 10**18


def test_what_is_said_of_very_many_entries_is_one_finding(tmp_path: Path):
    """Each of these took memory or time for every number that it names."""
    good = entries(4)
    assert verified(tmp_path, trail(good, end=_MANY)) == [("cut off", 5, _MANY)]
    far = json.loads(json.dumps(good[3]))
    far["record"]["seq"] = _MANY
    assert ("deleted", 4, _MANY - 1) in verified(tmp_path, trail([*good[:3], far], end=_MANY))
    assert ("reordered", 4, 4) in verified(tmp_path, trail([*good[:3], far, good[3]], end=_MANY))
    good[1] |= {"payload": None, "key": None}
    assert verified(tmp_path, trail([*good, erasure(good, f"2,4-{_MANY}")], end=5)) == []


@pytest.mark.parametrize("numbers", ["5-3", "x", 7, None, {}])
def test_an_erasure_that_does_not_say_of_what_is_named(tmp_path: Path, numbers: object):
    good = entries(4)
    assert verified(tmp_path, trail([*good, erasure(good, numbers)], end=5)) == [("payload edited", 5, 5)]


@pytest.mark.parametrize(
    "line",
    [
        '{"checkpoint": {"seq": 1e999, "head": ""}}',
        '{"checkpoint": 7}',
        '{"end": {}}',
        '{"record": {"seq": 5}, "hash": 7}',
        '{"record": 7, "hash": ""}',
        "[" * 100_000,
    ],
)
def test_a_line_that_nobody_of_us_writes_is_named_and_ends_nothing(tmp_path: Path, line: str):
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in trail(entries(4))) + line + "\n" + '{"end": {"seq": 4}}\n')
    assert "unreadable" in {one.kind for one in verify_file(path).findings}


def erasure(some: list[dict], numbers: object) -> dict:
    payload = {"details": {"numbers": numbers}}
    record = {"seq": len(some) + 1, "action": audit_chain.ERASURE, "commitment": commitment(bytes(32), canonical(payload))}
    return {"record": record, "hash": link(some[-1]["hash"], canonical(record)), "payload": payload, "key": bytes(32).hex()}


def test_the_file_runs_alone_without_any_package_and_says_that_signatures_were_not_checked(tmp_path: Path):
    script, path = tmp_path / "verify_audit.py", tmp_path / "trail.jsonl"
    script.write_text(Path(audit_chain.__file__).read_text())
    path.write_text("".join(json.dumps(line) + "\n" for line in whole(entries(COUNT))))
    command = [sys.executable, "-S", "-I", str(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NOT CHECKED" in done.stdout
    some = entries(COUNT)
    some[6]["record"]["action"] = "other"
    path.write_text("".join(json.dumps(line) + "\n" for line in whole(some)))
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert [one["first"] for one in json.loads(done.stdout)["findings"]] == [7]
