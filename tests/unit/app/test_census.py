"""How often what runners hold is looked at, counted with stand-ins for their processes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from modelkeep.app.census import Census
from modelkeep.app.inspections import Inspection
from modelkeep.app.kept import A_RUNNER, Kept, at_rest
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.sandbox import control


class Counted:
    """A runner that counts how often it is looked at."""

    drifted = False
    overgrown = False

    def __init__(self) -> None:
        self.looks = 0

    def check_memory(self) -> None:
        self.looks += 1


def census(count: int) -> Census:
    made = Census()
    made.update((f"r{number}", Counted()) for number in range(count))  # type: ignore[misc]
    return made


def looks(runners: Census) -> dict[str, int]:
    return {name: one.looks for name, one in runners.items()}  # type: ignore[attr-defined]


def test_who_works_is_looked_at_each_time_and_who_rests_in_turn():
    runners = census(1000)
    resting = set(runners) - {"r7", "r999"}
    for _look in range(20):
        runners.look(0, resting)
    counted = Counter(looks(runners).values())
    assert (looks(runners)["r7"], looks(runners)["r999"]) == (20, 20)
    assert set(counted) == {1, 20}, "each that rests has been looked at once by now"


@given(st.integers(0, 160), st.data())
def test_none_is_forgotten_whoever_comes_goes_or_begins_to_rest(count: int, data: st.DataObject):
    runners = census(count)
    for turn in range(4):
        resting = data.draw(st.sets(st.sampled_from(sorted(runners)))) if runners else set()
        runners.look(0, resting)
        if runners and data.draw(st.booleans()):
            del runners[data.draw(st.sampled_from(sorted(runners)))]
        if data.draw(st.booleans()):
            runners[f"new{turn}"] = Counted()  # type: ignore[assignment]
    before = looks(runners)
    for _look in range(2 + len(runners) // 25):
        runners.look(0, set(runners))
    assert all(after > before[name] for name, after in looks(runners).items())


@pytest.mark.parametrize(("ago", "rests"), [(0.0, False), (2.0, False), (4.0, True)])
def test_a_version_rests_when_nobody_has_asked_it_for_seconds(ago: float, rests: bool):
    kept = Kept(RunnerSpec("v1", "", 0, "echo", "echo"), names=["a", "b"], used=100.0 - ago)
    assert at_rest([kept], 100.0) == ({"a", "b"} if rests else set())


class Holding:
    """A runner that holds so much, of a validation or of none."""

    def __init__(self, held_bytes: int, ticket: str = "", beside: str = "", reserve_bytes: int = 0) -> None:
        self.held_bytes, self.ticket, self.beside, self.reserve_bytes = held_bytes, ticket, beside, reserve_bytes


def test_room_is_kept_for_the_second_runner_of_a_validation_until_it_takes_it():
    runners = Census()
    runners["r1"] = Holding(100)  # type: ignore[assignment]
    runners["r2"] = Holding(50, "tkt_1", reserve_bytes=40)  # type: ignore[assignment]
    runners["r3"] = Holding(50, "tkt_2", reserve_bytes=40)  # type: ignore[assignment]
    assert runners.held_bytes() == 100 + 90 + 90
    runners["r4"] = Holding(30, "tkt_3", beside="tkt_1")  # type: ignore[assignment]
    assert runners.held_bytes() == 100 + 90 + 90, "it finds its room there"
    runners["r5"] = Holding(30, "tkt_4", beside="tkt_1")  # type: ignore[assignment]
    assert runners.held_bytes() == 100 + 50 + 60 + 90, "what is more counts as it is"
    del runners["r2"]
    assert runners.held_bytes() == 100 + 60 + 90, "without its first runner nothing is kept for it"


SPEC = RunnerSpec("ver_1", "0" * 64, 10 << 20, "echo", "echo", limits=Limits(memory_mb=512))


@given(
    size=st.integers(0, 1 << 31),
    seen=st.integers(0, 1 << 31),
    limit=st.integers(1, 1 << 33),
    beside=st.sampled_from(["", "tkt_0"]),
)
def test_a_validation_asks_for_no_more_than_there_can_be(size: int, seen: int, limit: int, beside: str):
    spec = replace(SPEC, size=size, memory_bytes=seen)
    one = Inspection(None, control.Inspect("tkt_1", spec, beside=beside), lambda one: None, limit)  # type: ignore[arg-type]
    assert A_RUNNER <= one.runner_bytes <= (512 << 20) + A_RUNNER
    assert one.expected_bytes <= max(limit, one.runner_bytes), "two large ones may use all that there is, and no more"
    assert one.reserve_bytes == 0 if beside else one.reserve_bytes <= one.runner_bytes
