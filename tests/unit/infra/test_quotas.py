"""Bounds that several processes keep together, against a plain reference; files that are new, old, full or not to be had."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structlog.testing import capture_logs

from modelkeep.infra import quotas
from modelkeep.infra.quotas import TINY_S, Quotas, start_fresh

SLOTS = 3
WINDOW = 64
NAMES = st.sampled_from([f"name-{number}" for number in range(80)])
WHO = st.integers(0, SLOTS - 1)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(path: Path, slot: int = 0, slots: int = 1, **options: object) -> Iterator[Quotas]:
    one = Quotas(path, slot, slots, **options)  # type: ignore[arg-type]
    try:
        yield one
    finally:
        one.close()


class Together(RuleBasedStateMachine):
    """Three slots of one file do what one dictionary would; the file has only one window, so that entries are used again."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "quotas"
        self.clock = Clock()
        self.slots = [self.process(slot) for slot in range(SLOTS)]
        self.due: dict[str, float] = {}
        self.under_way: dict[str, list[int]] = {}

    def process(self, slot: int) -> Quotas:
        return Quotas(self.path, slot, SLOTS, clock=self.clock, entries=1)

    def room_for(self, name: str) -> bool:
        """Whether `name` is known, or one of the entries is free."""
        live = {one for one, due in self.due.items() if due > self.clock.now}
        live |= {one for one, counts in self.under_way.items() if any(counts)}
        return name in live or len(live) < WINDOW

    @rule(name=NAMES, slot=WHO, interval=st.sampled_from([0.5, 3.0, 60.0]), burst=st.integers(0, 3))
    def take(self, name: str, slot: int, interval: float, burst: int) -> None:
        now = self.clock.now
        got = self.slots[slot].take(name, interval, interval * burst, now)
        if not self.room_for(name):
            assert got == 1
            return
        due = max(self.due.get(name, 0.0), now)
        early = due - now - interval * burst
        if early > TINY_S:
            assert got == early
        else:
            assert got == now - due - interval
            self.due[name] = due + interval

    @rule(names=st.lists(NAMES, unique=True), slot=WHO)
    def take_many(self, names: list[str], slot: int) -> None:
        for name in names:
            self.take(name, slot, 60.0, 0)

    @rule(name=NAMES, slot=WHO, most=st.integers(1, 4))
    def enter(self, name: str, slot: int, most: int) -> None:
        counts = self.under_way.get(name, [0] * SLOTS)
        expected = self.room_for(name) and sum(counts) < most
        assert self.slots[slot].enter(name, most) == expected
        if expected:
            self.under_way.setdefault(name, [0] * SLOTS)[slot] += 1

    @rule(slot=WHO, data=st.data())
    def leave(self, slot: int, data: st.DataObject) -> None:
        mine = sorted(name for name, counts in self.under_way.items() if counts[slot])
        if mine:
            name = data.draw(st.sampled_from(mine))
            self.slots[slot].leave(name)
            self.under_way[name][slot] -= 1

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(slot=WHO)
    def end_and_begin_again(self, slot: int) -> None:
        self.slots[slot].close()
        self.slots[slot] = self.process(slot)
        for counts in self.under_way.values():
            counts[slot] = 0

    @invariant()
    def nothing_else_is_counted(self) -> None:
        assert sum(self.slots[0]._counts) == sum(sum(counts) for counts in self.under_way.values())

    def teardown(self) -> None:
        for one in self.slots:
            one.close()
        self.folder.cleanup()


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_name_without_room_is_refused_once_in_the_log_and_let_in_when_another_has_rested(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path / "quotas", clock=clock, entries=1) as one, capture_logs() as said:
        assert [one.take(f"n{number}", 10, 0, clock.now) for number in range(WINDOW)] == [-10] * WINDOW
        assert one.take("late", 10, 0, clock.now) == 1
        assert not one.enter("late", 5)
        assert one.take("n3", 10, 0, clock.now) == 10, "who has an entry keeps it"
        clock.now += 10
        assert one.enter("late", 5)
        assert one.take("n3", 10, 0, clock.now) == -10
    assert [line["event"][:16] for line in said] == ["no room to count"]


def test_ten_thousand_names_at_once_have_room(tmp_path: Path) -> None:
    with opened(tmp_path / "quotas", 0, 2) as one, opened(tmp_path / "quotas", 1, 2) as other:
        assert not any(one.take(f"key_{number}", 60, 0, 1000) > 0 for number in range(10_000))
        assert {other.take(f"key_{number}", 60, 0, 1000) for number in range(10_000)} == {60}


def test_the_last_of_64_slots_counts_with_the_first_at_every_place_of_the_file(tmp_path: Path) -> None:
    with opened(tmp_path / "quotas", 0, 64, entries=4) as first, opened(tmp_path / "quotas", 63, 64, entries=4) as last:
        names = [f"n{number}" for number in range(WINDOW)]
        assert all(first.enter(name, 2) and last.enter(name, 2) for name in names)
        assert not any(first.enter(name, 2) or last.enter(name, 2) for name in names)
        for name in names:
            last.leave(name)
        assert all(first.enter(name, 2) for name in names)


def test_a_file_of_another_layout_is_made_anew_and_its_readers_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "quotas"
    with opened(path, 0, 2) as old:
        assert old.enter("a", 1)
        with opened(path, 1, 2) as other:
            assert not other.enter("a", 1), "the same layout is the same file"
        with opened(path, 0, 3) as new:
            assert new.enter("a", 1)
        assert not old.enter("a", 1)
    path.write_bytes(b"MKQUOTA0" + bytes(path.stat().st_size - 8))
    with opened(path, 0, 3) as new:
        assert new.enter("a", 1)
    assert path.read_bytes()[:8] == b"MKQUOTA1"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_fresh_start_knows_nothing_of_the_last(tmp_path: Path) -> None:
    path = tmp_path / "quotas"
    start_fresh(path)
    with opened(path) as one:
        assert one.take("a", 60, 0, 1e9) == -60, "the machine had run for long"
    start_fresh(path)
    with opened(path) as one:
        assert one.take("a", 60, 0, 5) == -60


def test_of_many_that_start_at_once_all_have_the_same_file(tmp_path: Path) -> None:
    for attempt in range(30):
        path = tmp_path / str(attempt)
        path.write_bytes(b"of another release" if attempt % 2 else b"")
        begin = threading.Barrier(6)
        made: list[Quotas] = []

        def start(slot: int, path: Path = path, begin: threading.Barrier = begin, made: list[Quotas] = made) -> None:
            begin.wait()
            made.append(Quotas(path, slot, 6, entries=4))

        threads = [threading.Thread(target=start, args=(slot,)) for slot in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.enter("a", 3) for one in made] == [True] * 3 + [False] * 3
        for one in made:
            one.close()


def test_a_full_disk_is_said_at_once_and_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "quotas"
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monkeypatch.context() as patched:
        patched.setattr(quotas.os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            Quotas(path, 0, 2)
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    with opened(path, 0, 2) as one:
        assert one.enter("a", 1)
