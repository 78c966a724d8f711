"""Who fails is slowed down by address, and addresses do not touch each other."""

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.failures import Failures

HERE = "192.0.2.1"


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guesses(failures: Failures, number: int, address: str | None = HERE) -> int:
    """How many of so many guesses are looked at."""
    looked_at = 0
    for _ in range(number):
        try:
            failures.look(address)
        except Limited:
            continue
        looked_at += 1
        failures.bad(address)
    return looked_at


def test_only_so_many_guesses_are_looked_at_and_then_one_a_second() -> None:
    clock, said = Clock(), list[str]()
    failures = Failures(Rate(60, 5), clock, said.append)
    assert guesses(failures, 100) == 5
    assert said == ["failures"] * 95
    clock.now += 1
    assert guesses(failures, 100) == 1


def test_without_a_rate_all_are_looked_at() -> None:
    assert guesses(Failures(None, Clock()), 1000) == 1000


def test_who_is_not_known_counts_as_one_and_so_do_64_bits_of_ipv6() -> None:
    failures = Failures(Rate(60, 5), Clock())
    assert guesses(failures, 100, None) == 5
    assert guesses(failures, 3, "2001:db8::1") + guesses(failures, 100, "2001:db8::2") == 5
    assert guesses(failures, 100, "2001:db8:0:1::1") == 5


def test_addresses_are_forgotten_when_they_have_not_failed_for_long() -> None:
    clock = Clock()
    failures = Failures(Rate(60, 5), clock)
    for number in range(20_000):
        failures.bad(f"198.51.{number // 250}.{number % 250}")
        clock.now += 0.1
    assert len(failures._rates._due) < 4096
