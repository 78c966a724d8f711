"""Counters in mapped files: they add up, whatever ends and begins again."""

import os
import resource
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelkeep.infra import tally as module
from modelkeep.infra.tally import DROPPED, Family, Tallies, Tally, merged, start_fresh

HITS = Family("hits_total", "counter", "Hits.", ("who", "how"), folded=("who",))
TOOK = Family("took_seconds", "histogram", "Seconds.", ("who",), bounds=(1.0, 2.0), folded=("who",))
OPEN = Family("open_now", "gauge", "Open now.")
FAMILIES = (HITS, TOOK, OPEN)
SLOTS = 3
BUDGET = 4

who = st.sampled_from(["a", "b", "c", "d", "e", "f", "ż", ""])
slots = st.integers(0, SLOTS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hit"), slots, who, st.sampled_from(["ok", "bad"])),
        st.tuples(st.just("took"), slots, who, st.integers(0, 2)),
        st.tuples(st.just("open"), slots, st.integers(-3, 3)),
        st.tuples(st.just("kill"), slots),
        st.tuples(st.just("second"), slots),
    ),
    max_size=40,
)


def made(folder: Path, slot: int) -> Tally:
    return Tally(folder, slot, FAMILIES, budget=BUDGET)


def totals(sums: module.Sums, family: Family, *, by: int | None = None) -> Counter[str]:
    """Sum a family over all label sets, or over those that share one label."""
    found: Counter[str] = Counter()
    for values, numbers in sums[family].items():
        found["" if by is None else values[by]] += sum(numbers[: len(family.bounds) + 1])  # type: ignore[assignment]
    return found


@settings(deadline=None, max_examples=60)
@given(steps)
@example([("hit", 0, "a", "ok"), ("kill", 0), ("hit", 0, "a", "ok"), ("kill", 0), ("kill", 0)])
def test_the_sums_over_all_slots_are_those_of_plain_counting_whatever_is_killed(given_steps: list[tuple]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        slot = {number: made(folder, number) for number in range(SLOTS)}
        asked = made(folder, 9)
        reader = Tallies(folder, asked)
        hits: Counter[str] = Counter()
        sets: Counter[tuple[str, str]] = Counter()
        took = [0, 0, 0]
        opened: Counter[int] = Counter()
        before: dict[tuple, list[float]] = {}
        for kind, at, *rest in given_steps:
            one = slot[at]
            match kind:
                case "hit":
                    one.cells[one.series(HITS, (rest[0], rest[1]))] += 1
                    hits[rest[1]] += 1
                    sets[rest[0], rest[1]] += 1
                case "took":
                    first = one.series(TOOK, (rest[0],))
                    one.cells[first + rest[1]] += 1
                    one.cells[first + 3] += rest[1] + 0.5
                    took[rest[1]] += 1
                case "open":
                    one.cells[one.series(OPEN)] += rest[0]
                    opened[at] += rest[0]
                case "kill":  # for the file, an end is an end
                    one.close()
                    slot[at] = made(folder, at)
                    opened[at] = 0
                case "second":  # the next process is there before the last one has gone
                    late = made(folder, at)
                    late.cells[late.series(HITS, ("a", "ok"))] += 1
                    hits["ok"] += 1
                    sets["a", "ok"] += 1
                    late.close()
            sums, _ = reader.read()
            now = {
                (family.name, *values): numbers for family in (HITS, TOOK, DROPPED) for values, numbers in sums[family].items()
            }
            assert all(a <= b for key, old in before.items() for a, b in zip(old, now[key], strict=True))
            before = now
        sums, _ = reader.read()
        assert totals(sums, HITS, by=1) == +hits
        assert [sum(column) for column in zip(*sums[TOOK].values(), strict=True)][:3] == (took if any(took) else [])
        assert sum(numbers[0] for numbers in sums[OPEN].values()) == sum(opened.values())
        counted = {values: numbers[0] for values, numbers in sums[HITS].items()}
        assert all(sets[values] >= number for values, number in counted.items() if values[0] != "other")
        assert sums[DROPPED] or counted == sets
        assert Tallies(folder, asked).read()[0] == sums  # who reads from the start sees the same
        for one in [*slot.values(), asked]:
            one.close()
        reader.close()


@settings(deadline=None, max_examples=60)
@given(before=st.integers(0, 5), cut=st.floats(0, 1, exclude_max=True))
def test_a_half_written_directory_entry_is_no_entry_and_the_next_process_goes_on_in_its_place(before: int, cut: float) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        tally = made(folder, 0)
        for number in range(before):
            tally.cells[tally.series(HITS, (f"w{number}", "ok"))] += number
        begin = tally._end
        tally.series(TOOK, ("the last, whose entry is torn",))
        end = tally._end
        torn = begin + int((end - begin) * cut)
        tally.map[torn:end] = bytes(end - torn)
        tally.close()
        again = made(folder, 0)
        reader = Tallies(folder, again)
        expected = {(f"w{number}" if number < BUDGET else "other", "ok"): [float(number)] for number in range(before)}
        sums, _ = reader.read()
        assert sums[HITS] == expected
        assert not sums[TOOK]
        again.cells[again.series(TOOK, ("x",))] += 5
        assert reader.read()[0][TOOK] == {("x",): [5.0, 0.0, 0.0, 0.0]}
        assert Tallies(folder, again).read()[0] == reader.read()[0]
        again.close()


def test_label_sets_beyond_the_budget_are_counted_under_other_and_counted(tmp_path: Path) -> None:
    tally = made(tmp_path, 0)
    for number in range(10):
        tally.cells[tally.series(HITS, (f"w{number}", "ok"))] += 1
        tally.cells[tally.series(HITS, (f"w{number}", "ok"))] += 1
    sums, _ = Tallies(tmp_path, tally).read()
    assert len(sums[HITS]) == BUDGET + 1
    assert sums[HITS]["other", "ok"] == [12.0]
    assert sums[DROPPED] == {("hits_total",): [6.0]}


def test_a_file_without_room_counts_under_other_and_never_outside_its_cells(tmp_path: Path) -> None:
    wide = Family("wide", "histogram", "Wide.", ("who",), bounds=tuple(map(float, range(1000))), folded=("who",))
    tally = Tally(tmp_path, 0, [wide], budget=1_000_000)
    firsts = [tally.series(wide, (f"w{number}",)) for number in range(200)]
    for first in firsts:
        tally.cells[first + 1001] += 1
    sums, _ = Tallies(tmp_path, tally).read()
    assert sum(numbers[-1] for numbers in sums[wide].values()) == 200
    assert sums[wide]["other",][-1] > 60
    long = tally.series(wide, ("x" * 20_000,))
    assert long == tally.series(wide, ("other",))


def test_gauges_of_an_ended_process_do_not_count_but_its_counters_do(tmp_path: Path) -> None:
    one, two = made(tmp_path, 0), made(tmp_path, 1)
    for tally in (one, two):
        tally.cells[tally.series(OPEN)] += 3
        tally.cells[tally.series(HITS, ("a", "ok"))] += 3
        tally.publish([("depth", (), 3.0)])
    reader = Tallies(tmp_path, two)
    sums, published = reader.read()
    assert (sums[OPEN][()], sums[HITS]["a", "ok"], published) == ([6.0], [6.0], [[("depth", (), 3.0)]])
    one.close()
    sums, published = reader.read()
    assert (sums[OPEN][()], sums[HITS]["a", "ok"], published) == ([3.0], [6.0], [])


def test_reading_a_slot_does_not_take_its_lock_away(tmp_path: Path) -> None:
    one, two = made(tmp_path, 0), made(tmp_path, 1)
    Tallies(tmp_path, one).read()
    reader = Tallies(tmp_path, two)
    reader.read()
    reader.close()
    (tmp_path / "0.tally").read_bytes()
    assert made(tmp_path, 0).path == tmp_path / "0-1.tally"
    assert one.path == tmp_path / "0.tally"


def test_a_file_of_another_release_is_left_out_and_its_writer_begins_a_new_one(tmp_path: Path) -> None:
    old = Tally(tmp_path, 0, [Family("old_total", "counter", "Old.")])
    old.cells[old.series(old.families[1])] += 5
    new = made(tmp_path, 1)
    reader = Tallies(tmp_path, new)
    assert not any(reader.read()[0].values())
    old.close()
    begun = made(tmp_path, 0)
    begun.cells[begun.series(HITS, ("a", "ok"))] += 1
    assert reader.read()[0][HITS] == {("a", "ok"): [1.0]}


def test_a_fresh_start_begins_at_zero(tmp_path: Path) -> None:
    tally = made(tmp_path / "metrics", 0)
    tally.cells[tally.series(HITS, ("a", "ok"))] += 1
    tally.publish([])
    tally.close()
    start_fresh(tmp_path / "metrics")
    assert list((tmp_path / "metrics").iterdir()) == []
    again = made(tmp_path / "metrics", 0)
    assert not Tallies(tmp_path / "metrics", again).read()[0][HITS]


def test_a_full_disk_does_not_stop_the_counting(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        tally = made(tmp_path, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert tally.trouble
    assert tally.path is None
    tally.cells[tally.series(HITS, ("a", "ok"))] += 1
    tally.publish([])
    assert Tallies(tmp_path, tally).read()[0][HITS] == {("a", "ok"): [1.0]}
    assert list(tmp_path.iterdir()) == []


def test_what_no_other_process_can_write_into_is_this_users_alone(tmp_path: Path) -> None:
    tally = made(tmp_path / "metrics", 0)
    assert tally.path is not None
    assert os.stat(tally.path).st_mode & 0o077 == 0  # noqa: PTH116
    assert (tmp_path / "metrics").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("rule", "expected"), [("sum", 6.0), ("max", 4.0), ("min", 2.0)])
def test_gauges_of_several_processes_become_one_by_their_rule(rule, expected: float) -> None:
    family = Family("depth", "gauge", "Depth.", rule=rule)
    gauges = [[("depth", (), 2.0), ("of_another_release", (), 1.0)], [("depth", (), 4.0)]]
    assert merged([family], gauges) == {family: {(): [expected]}}
