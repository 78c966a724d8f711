"""How a deployment's cache is told on the command line."""

from modelkeep.app.cli.deployments import cache_facts

TOLD = {"state": "on", "said": "75% of 8 requests in the last 5 minutes", "seconds": 300, "ratio": 0.75}


def test_what_came_of_requests_is_told_in_one_line():
    told = TOLD | {"hits": 5, "shared": 1, "misses": 1, "bypassed": 1, "bytes": 3 << 19}
    parts = "5 hits, 1 shared with one under way, 1 miss, 1 bypassed; 1.5 MiB"
    assert cache_facts(told) == {"cache": f"75% of 8 requests in the last 5 minutes: {parts}"}


def test_where_nothing_came_it_says_so_and_of_an_older_server_nothing():
    assert cache_facts({"state": "off", "said": "off", "ratio": None}) == {"cache": "off"}
    assert cache_facts({}) == {}
