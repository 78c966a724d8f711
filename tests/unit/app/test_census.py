"""How often what runners hold is looked at, counted with stand-ins for their processes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.app.census import Census
from modelkeep.app.kept import Kept, at_rest
from modelkeep.contracts.snapshot import RunnerSpec


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
