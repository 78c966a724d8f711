"""Whose address a request comes from: proxies are believed from the right, and nobody else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.infra import addresses
from modelkeep.infra.addresses import Proxies, networks_in, read, shared, within

PROXIES = Proxies(["10.0.0.0/24", "fd00::/64"])
PROXY, OTHER = "10.0.0.1", "10.0.0.2"
ADDRESSES = st.ip_addresses().filter(lambda one: not within(str(one), ("10.0.0.0/24", "fd00::/64"))).map(str)


def told(peer: str | None, *fields: tuple[str, str], proxies: Proxies = PROXIES) -> str | None:
    return proxies.caller(peer, [(name.encode(), value.encode("latin-1")) for name, value in fields])


@given(peer=ADDRESSES, claim=st.text(st.characters(max_codepoint=255), max_size=60))
def test_who_is_no_trusted_proxy_is_never_believed(peer: str, claim: str) -> None:
    honest = told(peer)
    assert told(peer, ("x-forwarded-for", claim), ("forwarded", f"for={claim}")) == honest
    assert told(peer, ("x-forwarded-for", "192.0.2.1"), proxies=Proxies()) == honest


@given(caller=ADDRESSES, claims=st.lists(ADDRESSES | st.sampled_from([PROXY, "unknown", "", "x"]), max_size=5))
def test_what_the_caller_wrote_itself_changes_nothing(caller: str, claims: list[str]) -> None:
    listed = ", ".join([*claims, caller, OTHER])
    assert told(PROXY, ("x-forwarded-for", listed)) == str(read(caller))


@given(caller=ADDRESSES, claims=st.lists(ADDRESSES, max_size=3))
def test_a_line_that_a_proxy_adds_is_the_lists_end(caller: str, claims: list[str]) -> None:
    lines = [("x-forwarded-for", one) for one in (*claims, caller, OTHER)]
    assert told(PROXY, *lines) == str(read(caller))


def test_without_a_word_of_the_proxy_its_own_address_counts() -> None:
    assert told(PROXY) == PROXY
    assert told(PROXY, ("x-forwarded-for", f"{OTHER}, {OTHER}")) == OTHER
    assert told(None, ("x-forwarded-for", "192.0.2.1")) is None


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=198.51.100.9, for=192.0.2.43;host=a", "192.0.2.43"),
        ('for=198.51.100.9;host="a,b;for=1.1.1.1", for=10.0.0.7', "198.51.100.9"),
        ("for=unknown", None),
        ("for=_hidden, for=10.0.0.7", None),
        ("proto=http", None),
        ('for="192.0.2.1', None),
    ],
)
def test_forwarded_is_read_as_its_rfc_has_it(value: str, address: str | None) -> None:
    assert told(PROXY, ("forwarded", value)) == address


def test_where_the_fields_disagree_the_address_is_not_known() -> None:
    assert told(PROXY, ("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")) == "192.0.2.1"
    assert told(PROXY, ("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=10.0.0.9")) is None


def test_what_is_no_address_ends_the_search() -> None:
    for listed in ("192.0.2.1, x", "192.0.2.1,", "192.0.2.1, 10.0.0.300, 10.0.0.2"):
        assert told(PROXY, ("x-forwarded-for", listed)) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:80", "192.0.2.1"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_is_read_with_what_stands_beside_it(text: str, address: str) -> None:
    assert str(read(text)) == address


@pytest.mark.parametrize("text", ["", "x", "[::1", "[::1]x", "192.0.2.1:x", "192.0.2.1:", "0177.0.0.1", "1"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert read(text) is None


def test_an_address_that_is_not_known_is_in_no_network() -> None:
    assert not within(None, ("0.0.0.0/0", "::/0"))
    assert within("::ffff:10.0.0.9", ("10.0.0.0/24",))
    assert not within("10.0.1.9", ("10.0.0.0/24", "fd00::/64"))


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    assert shared("2001:db8::1") == shared("2001:db8::ffff:1") != shared("2001:db8:0:1::1")
    assert shared("192.0.2.1") != shared("192.0.2.2")


def test_a_list_of_networks_is_read_whole_or_not_at_all() -> None:
    assert networks_in("10.1.0.0/24, 192.0.2.7") == ("10.1.0.0/24", "192.0.2.7/32")
    assert networks_in("10.1.0.1/24") is None
    assert networks_in("") == ()


@pytest.mark.parametrize("field", [b"x-forwarded-for", b"forwarded"])
def test_what_strangers_write_is_neither_read_nor_remembered(field: bytes) -> None:
    """Only the entries of proxies, and the first before them, are worth a look; the rest is whatever somebody likes."""
    proxies, element = Proxies(("10.0.0.0/8",)), "{}" if field == b"x-forwarded-for" else "for={}"
    before = addresses._read.cache_info().misses
    junk = [element.format(f"198.18.{number // 250}.{number % 250}") for number in range(3000)]
    given = ",".join([*junk, element.format("192.0.2.77"), element.format("10.9.9.9")])
    assert proxies.caller("10.9.9.8", [(field, given.encode())]) == "192.0.2.77"
    assert addresses._read.cache_info().misses - before <= 3
    long = element.format("1" * 900)
    assert proxies.caller("10.9.9.8", [(field, long.encode())]) is None
    assert addresses._read.cache_info().misses - before <= 3
