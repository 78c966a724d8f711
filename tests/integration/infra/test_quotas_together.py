"""Several real processes on one file of quotas: the total is exact; one that is killed leaves nothing and holds up nobody."""

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

from fixtures import asking
from modelkeep.infra.quotas import Quotas

SLOTS = 4
KILLS = 60
PATIENCE_S = 30.0

Begin = Callable[..., tuple[ForkServerProcess, Connection]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a function of `fixtures.asking` in a process; return once it has opened the file."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modelkeep.infra.quotas"])
    running: list[tuple[ForkServerProcess, Connection]] = []

    def start(function: Callable[..., None], *arguments: object) -> tuple[ForkServerProcess, Connection]:
        ours, theirs = context.Pipe()
        process = context.Process(target=function, args=(*arguments, theirs), daemon=True)
        process.start()
        theirs.close()
        running.append((process, ours))
        assert heard(ours) == "on"
        return process, ours

    yield start
    for process, line in running:
        process.kill()
        process.join()
        process.close()
        line.close()


def heard(line: Connection) -> object:
    """What the process says next."""
    assert line.poll(PATIENCE_S), "a process is held up"
    return line.recv()


def test_processes_that_ask_at_once_are_let_through_exactly_as_often_as_one(tmp_path: Path, begin: Begin) -> None:
    names = [f"key-{number}" for number in range(5)]
    burst = 3000
    lines = [begin(asking.takes, tmp_path / "quotas", slot, SLOTS, names, burst)[1] for slot in range(SLOTS)]
    for line in lines:
        line.send("go")
    taken = [heard(line) for line in lines]
    assert {name: sum(one[name] for one in taken) for name in names} == dict.fromkeys(names, burst)
    assert sum(any(one.values()) for one in taken) > 1, "they did ask at once"


def test_no_more_are_inside_than_may_be_whoever_comes_and_goes(tmp_path: Path, begin: Begin) -> None:
    inside = tmp_path / "inside"
    inside.write_bytes(bytes(SLOTS))
    lines = [begin(asking.enters, tmp_path / "quotas", slot, SLOTS, 2, inside)[1] for slot in range(SLOTS)]
    for line in lines:
        line.send(5000)
    told = [heard(line) for line in lines]
    assert max(seen for _entered, seen in told) == 2
    assert sum(entered for entered, _seen in told) > 5000
    last = Quotas(tmp_path / "quotas", 0, SLOTS)
    assert [last.enter("door", 2) for _ in range(3)] == [True, True, False], "all have left"
    last.close()


def test_kills_at_any_moment_hold_up_nobody_and_leave_no_place_taken(tmp_path: Path, begin: Begin) -> None:
    path = tmp_path / "quotas"
    dice = random.Random(12)
    own = Quotas(path, 0, SLOTS)
    assert own.enter("name-7", 1_000_000), "what lives on is not forgotten with the dead"
    longest = 0.0
    for _kill in range(KILLS):
        victims = [begin(asking.everything, path, slot, SLOTS)[0] for slot in (1, 2)]
        until = time.monotonic() + dice.uniform(0.0, 0.02)  # the moment of the kill is what is drawn
        while time.monotonic() < until:
            own.take("mine", 1e-9, 1.0, time.monotonic())
        for victim in victims:
            victim.kill()
        begun = time.monotonic()
        assert own.enter("mine", 1)
        own.leave("mine")
        longest = max(longest, time.monotonic() - begun)
        for victim in victims:
            victim.join()
    assert longest < 2
    assert sum(own._counts) > 1, "the dead still hold what they had"
    for slot in (1, 2):
        Quotas(path, slot, SLOTS).close()
    assert sum(own._counts) == 1
    later = time.monotonic() + 10
    assert [own.take("name-3", 60.0, 60.0, later) > 0 for _ in range(3)] == [False, False, True]
    own.leave("name-7")
    own.close()
