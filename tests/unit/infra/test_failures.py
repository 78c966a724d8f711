"""Who asks without a good key is slowed down, without a word about the key; who has asked with a good one is not."""

import pytest

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.failures import Failures

HERE, GOOD, WRONG = "192.0.2.1", b"good", b"wrong"


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guesses(failures: Failures, number: int, address: str | None = HERE) -> int:
    """How many of so many wrong keys are looked at."""
    looked_at = 0
    for _ in range(number):
        try:
            failures.look(address, WRONG)
        except Limited:
            continue
        looked_at += 1
        failures.bad(address)
    return looked_at


def test_only_so_many_wrong_keys_are_looked_at_and_then_one_a_second() -> None:
    clock, said = Clock(), list[str]()
    failures = Failures(Rate(60, 5), clock, said.append)
    assert guesses(failures, 100) == 5
    assert said == ["failures"] * 95
    clock.now += 1
    assert guesses(failures, 100) == 1


def test_without_a_rate_all_are_looked_at() -> None:
    failures = Failures(None, Clock())
    assert guesses(failures, 1000) == 1000
    assert not failures.suspects


def test_a_good_key_that_has_not_been_seen_there_waits_as_a_wrong_one_does() -> None:
    failures = Failures(Rate(60, 5), Clock())
    guesses(failures, 10)
    refusals = []
    for digest in (GOOD, WRONG):
        with pytest.raises(Limited) as refused:
            failures.look(HERE, digest)
        refusals.append((refused.value.message, refused.value.retry_after_s, dict(refused.value.headers)))
    assert refusals[0] == refusals[1]


def test_a_key_that_has_been_good_there_goes_on_and_only_there() -> None:
    failures = Failures(Rate(60, 5), Clock())
    guesses(failures, 1)
    failures.good(HERE, GOOD)
    guesses(failures, 100)
    failures.look(HERE, GOOD)
    guesses(failures, 100, "192.0.2.2")
    with pytest.raises(Limited):
        failures.look("192.0.2.2", GOOD)
    failures.look("192.0.2.3", WRONG)


def test_who_is_not_known_counts_as_one() -> None:
    assert guesses(Failures(Rate(60, 5), Clock()), 100, None) == 5


def test_addresses_are_forgotten_when_they_have_not_failed_for_long() -> None:
    clock = Clock()
    failures = Failures(Rate(60, 5), clock)
    guesses(failures, 100)
    failures.tend()
    assert failures.suspects
    clock.now += 3600
    failures.tend()
    assert not failures.suspects
    assert guesses(failures, 100) == 5
