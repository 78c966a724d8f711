"""What a deployment's cache did, on all servers together, and in words."""

import pytest

from modelkeep.contracts.prediction import CacheSeen
from modelkeep.contracts.snapshot import CacheMode, Caching
from modelkeep.control.deployments.caching import SECONDS, Cached, cached
from modelkeep.serving.cache_seen import SPAN_S


def test_servers_are_told_as_one():
    said = "65% of 20 requests in the last 5 minutes"
    both = [CacheSeen("", 5, 1, 3, 1, 100), CacheSeen("unsure"), CacheSeen("", 4, 3, 2, 1, 20)]
    assert cached(Caching(), both) == Cached("on", said, SECONDS, 9, 4, 5, 2, 120, 0.65)
    assert cached(Caching("on"), both[:1]).ratio == 0.6
    assert cached(Caching("on"), [CacheSeen("", 0, 1)]).said == "100% of 1 request in the last 5 minutes"


@pytest.mark.parametrize(
    ("mode", "told", "state", "said"),
    [
        ("auto", [CacheSeen()], "on", "no requests in the last 5 minutes"),
        ("off", [CacheSeen("", 5)], "off", "off"),
        ("auto", [CacheSeen("fast")] * 2, "not_needed", "auto: not needed, the model answers faster than the look-up"),
        ("auto", [CacheSeen("unsure")], "unsure", "auto: off, for nobody knows that the version repeats itself"),
        ("on", [CacheSeen("no_room")], "no_room", "no room: serving.cache_mb is 0"),
        ("on", [], "unknown", "no server has told of it"),
        ("on", [CacheSeen("a word of a later release")], "unknown", "no server has told of it"),
    ],
)
def test_where_there_is_nothing_to_count_it_says_why(mode: CacheMode, told: list[CacheSeen], state: str, said: str):
    found = cached(Caching(mode), told)
    assert (found.state, found.said, found.ratio, found.hits) == (state, said, None, 0)


def test_both_planes_mean_the_same_minutes():
    assert SECONDS == SPAN_S
