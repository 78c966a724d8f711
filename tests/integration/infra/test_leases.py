"""The script in a real Valkey, in a time that tests set: however processes ask and report, no window has more than is due."""

import itertools
import math
from collections.abc import Iterator
from typing import Final

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.valkey import Valkey, valkey
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.leases import CREDIT_S, Answer, Leases
from modelkeep.infra.rates import OwnRates, spacing
from modelkeep.infra.redis_rates import SCRIPT, answers, encoded

MICRO: Final = 1_000_000
REPORTED_S: Final = 0.02
_numbers = itertools.count()

Step = tuple[str, int, int, float]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as found:
        yield found


class World:
    """Some processes that share one rate, and what was let through when."""

    def __init__(self, client: redis.Redis, rate: Rate, processes: int, script: str = SCRIPT) -> None:
        self._client = client
        self._prefix = f"world{next(_numbers)}:"
        assert "redis.call('TIME')" in script
        self._run = client.register_script(
            script.replace("redis.call('TIME')", f"redis.call('LRANGE', '{self._prefix}now', 0, 1)")
        )
        self.rate = rate
        self.interval, self.burst = spacing(rate)
        self.now = 1_000_000.0
        self.ahead = 0.0  # of the processes' clock
        self.processes = [self.process() for _ in range(processes)]
        self.passed: list[float] = []
        for _ in range(2):  # until all know how many they are
            self.rounds()

    def process(self) -> Leases:
        made = Leases(OwnRates(), lambda _urgent: None)
        made.away = False
        return made

    def ask(self, number: int) -> float:
        taken = self.processes[number].take("k", self.interval, self.burst, self.now)
        if taken <= 0:
            self.passed.append(self.now)
        return taken

    def round(self, number: int, meanwhile: int = 0, *, answered: bool = True) -> None:
        """One exchange of a process, which asks some times more before it hears the answer."""
        process = self.processes[number]
        asked = process.collect(10, self.now)
        clock = self.now + self.ahead
        self._client.delete(self._prefix + "now")
        self._client.rpush(self._prefix + "now", int(clock), round(clock % 1 * MICRO))
        keys = [self._prefix + "sharers", *(self._prefix + one.name for one in asked)]
        said = self._run(keys=keys, args=encoded(f"p{number}", asked))
        for _ in range(meanwhile):
            self.ask(number)
        if not answered:
            process.lost(asked)
            return
        process.sharers = said[0]
        process.answered(asked, answers(said), self.now)

    def rounds(self) -> None:
        for number in range(len(self.processes)):
            self.round(number)

    def wait(self, seconds: float) -> None:
        """Let time pass; who has something to report does so before long, and is answered."""
        if seconds > REPORTED_S:
            self.rounds()
        self.now += seconds

    def forget(self) -> None:
        for key in self._client.scan_iter(self._prefix + "*"):
            self._client.delete(key)

    def excess(self) -> float:
        """By how much the fullest window has more than the rate of it and a burst."""
        found = 0.0
        for first, start in enumerate(self.passed):
            for last in range(first, len(self.passed)):
                due = max(1, self.rate.burst) + (self.passed[last] - start) / self.interval
                found = max(found, last - first + 1 - due)
        return found

    @property
    def credit(self) -> int:
        """What may be let through beyond it, as the decision says."""
        many = len(self.processes)
        each = max(1, int(min(CREDIT_S, self.burst + self.interval) / self.interval / many))
        return many * each + math.ceil(REPORTED_S * 20 / self.interval)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "round"]),
        st.integers(0, 3),
        st.integers(1, 12),
        st.sampled_from([0.0, 0.0, 0.001, 0.015, 0.1, 0.6, 2.0, 30.0]),
    ),
    min_size=1,
    max_size=40,
)


def go(world: World, steps: list[Step]) -> None:
    for what, number, times, pause in steps:
        process = number % len(world.processes)
        if what == "ask":
            for _ in range(times):
                world.ask(process)
        else:
            world.round(process, meanwhile=times)
        world.wait(pause)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, rate=st.builds(Rate, st.sampled_from([1, 10, 100, 6000]), st.integers(1, 60)), processes=st.integers(1, 4))
def test_no_window_has_more_than_is_due_and_the_credit(server: Valkey, steps: list[Step], rate: Rate, processes: int) -> None:
    with server.client() as client:
        world = World(client, rate, processes)
        go(world, steps)
        assert world.excess() <= world.credit


def tries(world: World, seconds: float = 0.0) -> int:
    """How many of 1,000 tries are let through, by all processes in turn and by each many times in a row."""
    for number in range(1000):
        world.ask(number // 5 % len(world.processes))
        world.rounds()
        world.wait(seconds / 1000)
    return len(world.passed)


@pytest.mark.parametrize("seconds", [0.0, 2.0, 60.0])
def test_of_a_thousand_tries_at_four_processes_as_many_pass_as_at_one(server: Valkey, seconds: float) -> None:
    with server.client() as client:
        due = 100 + seconds / 0.6
        assert 0.95 * due <= tries(World(client, Rate(100, 100), 4), seconds) <= 1.05 * due
        without = World(client, Rate(100, 100), 4, SCRIPT.replace("+ used * interval", ""))
        assert tries(without, seconds) > 1.5 * due, "the control: what others used is not counted"


def test_what_others_hold_is_not_due_to_anybody_else(server: Valkey) -> None:
    with server.client() as client:
        for script, most in ((SCRIPT, 12), (SCRIPT.replace(" - held", ""), 30)):
            world = World(client, Rate(10, 10), 3, script)
            for number in range(3):
                world.ask(number)
            for number in range(3):
                world.round(number)
            for number in range(3):
                for _ in range(10):
                    world.ask(number)
            assert len(world.passed) <= most
            assert (len(world.passed) > 12) == (most > 12), "the control"


def test_what_is_held_and_not_used_is_there_for_others_again(server: Valkey) -> None:
    with server.client() as client:
        world = World(client, Rate(1, 20), 2)
        world.ask(0)
        world.round(0)
        world.now += 1.1
        passed = 0
        for _ in range(30):
            passed += world.ask(1) <= 0
            world.round(1)
        assert passed == 19


def test_who_waits_as_told_is_let_through(server: Valkey) -> None:
    with server.client() as client:
        world = World(client, Rate(60, 5), 3)
        for _ in range(20):
            world.ask(0)
            world.round(0)
        wait = world.ask(0)
        assert 0.5 < wait <= 1
        world.wait(wait)
        assert world.ask(0) <= 0
        world.round(0)
        assert world.ask(0) > 0


def crowd(world: World, times: int) -> int:
    """Let all processes ask, one after the other; how many have been let through by then."""
    for _ in range(times):
        for number in range(len(world.processes)):
            world.ask(number)
            world.round(number)
    return len(world.passed)


def test_a_server_that_lost_everything_is_told_what_was_used(server: Valkey) -> None:
    with server.client() as client:
        for script, most in ((SCRIPT, 53), (SCRIPT.replace("math.max(ahead, least)", "ahead"), 102)):
            world = World(client, Rate(1, 50), 2, script)
            assert crowd(world, 100) == 50
            world.forget()
            world.now += 61  # one is due, and each process lets one through on credit
            assert most - 2 <= crowd(world, 60) <= most


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_makes_no_more_due_and_shuts_nobody_out(server: Valkey, jump: float) -> None:
    with server.client() as client:
        world = World(client, Rate(60, 50), 2)
        assert 50 <= crowd(world, 60) <= 52
        world.ahead += jump
        world.wait(5)
        assert crowd(world, 60) <= 58, "no other burst"
        world.wait(5)
        assert 54 <= crowd(world, 60) <= 63


def test_what_is_reported_and_not_answered_is_not_reported_again(server: Valkey) -> None:
    with server.client() as client:
        world = World(client, Rate(1, 50), 1)
        world.ask(0)
        world.round(0, answered=False)
        for _ in range(100):
            world.ask(0)
            world.round(0)
        assert len(world.passed) == 50


def test_rates_that_rest_are_forgotten() -> None:
    leases = Leases(OwnRates(), lambda _urgent: None)
    leases.away = False
    for number in range(20_000):
        assert leases.take(f"n{number}", 1.0, 0.0, float(number)) <= 0
        asked = leases.collect(10, float(number))
        leases.answered(asked, [Answer(1, 1.0, 0.0)] * len(asked), float(number))
    assert len(leases._buckets) < 3000


def test_while_nobody_answers_the_own_rates_hold() -> None:
    leases = Leases(OwnRates(), lambda _urgent: None)
    assert sum(leases.take("k", 60.0, 540.0, 5.0) <= 0 for _ in range(30)) == 10
