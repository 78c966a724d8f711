"""Under which names attempts are counted."""

import pytest

from modelkeep.infra.attempts import _names


@pytest.mark.parametrize(
    "other", ["account bob from 192.0.2.1", "from 192.0.2.1 account bob", "account bob 192.0.2.1", "address 192.0.2.1"]
)
def test_no_login_that_somebody_invents_counts_as_another_at_their_place(other: str):
    names = _names("account bob", "192.0.2.1")
    assert len(names) == 3
    assert not names.keys() & _names(other, "198.51.100.1").keys()
    assert not names.keys() & _names(f"account {other}", "198.51.100.1").keys()


def test_a_login_without_a_name_is_counted_by_its_network_alone():
    assert len(_names("", "192.0.2.1")) == 1
    assert _names("", "2001:db8::1") == _names("", "2001:db8::2") != _names("", "2001:db8:0:1::1")
