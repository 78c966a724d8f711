"""What serving is told of a key's rate: its own, its class's, or the one that all keys of its person share."""

from datetime import UTC, datetime

import pytest

from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.snapshot import Rate
from modelkeep.control.users.rules import Classes, Key

CLASSES = Classes(Rate(100, 16), {"batch": Rate(6000, 1000)})


def key(rate: str, burst: int | None = None) -> Key:
    per_minute, burst, rate_class = CLASSES.read(rate, burst)
    made = datetime(2026, 1, 1, tzinfo=UTC)
    return Key("key_1", "usr_1", "k", b"", (), made, rate_per_minute=per_minute, burst=burst, rate_class=rate_class)


@pytest.mark.parametrize(
    ("rate", "served", "bucket"),
    [
        ("unlimited", None, ""),
        ("600/min", Rate(600, 100), ""),
        ("batch", Rate(6000, 1000), ""),
        ("user", Rate(100, 16), "user/usr_1"),
    ],
)
def test_a_key_has_a_rate_of_its_own_or_its_classes(rate: str, served: Rate | None, bucket: str) -> None:
    assert CLASSES.served(key(rate)) == (served, bucket)
    assert key(rate).rate == rate
    assert key(rate).unlimited == (rate == "unlimited")


def test_a_key_whose_class_is_gone_is_not_unlimited() -> None:
    assert Classes(Rate(100, 16)).served(key("batch")) == (Rate(100, 16), "user/usr_1")


def test_a_burst_goes_with_a_rate_of_the_keys_own_alone() -> None:
    assert CLASSES.served(key("600/min", 7)) == (Rate(600, 7), "")
    for rate in ("unlimited", "user", "batch"):
        with pytest.raises(Invalid):
            key(rate, 7)


@pytest.mark.parametrize(
    ("rate", "burst", "above"),
    [
        ("user", None, False),
        ("1/min", None, False),
        ("100/min", 16, False),
        ("100/min", 17, True),
        ("101/min", 1, True),
        ("batch", None, True),
        ("unlimited", None, True),
    ],
)
def test_what_is_more_than_a_persons_keys_may_together_is_told_apart(rate: str, burst: int | None, above: bool) -> None:
    assert CLASSES.above(key(rate, burst)) is above
    assert Classes(Rate(100, 16)).above(key("batch")), "a class that is gone may come back with more"


def test_a_rate_that_all_keys_of_a_person_share_is_no_bound_of_one() -> None:
    assert {rate: key(rate).bounded for rate in ("user", "unlimited", "batch", "100/min")} == {
        "user": False,
        "unlimited": False,
        "batch": True,
        "100/min": True,
    }
