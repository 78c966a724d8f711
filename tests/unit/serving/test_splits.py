"""Who is answered by what: shares, units that stay where they are, rules, cohorts. No clock and no runner."""

import random
import subprocess
import sys
from collections import Counter
from math import sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelkeep.contracts.access import Grant, Role, Standing
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.contracts.traffic import Rule, Split, Traffic
from modelkeep.serving.splits import Splitter


def key(user: str = "usr_ada", key_id: str = "key_1", *groups: str) -> ServedKey:
    grants = (Grant(Role.VIEWER, "installation"), *(Grant(Role.PREDICTOR, "installation", through=one) for one in groups))
    return ServedKey(key_id, b"", "k", Standing(user, grants))


def told(splitter: Splitter, who: ServedKey | None = None, **headers: str) -> str:
    """The version that a request is for; "" is the promoted one."""
    at, _unit = splitter.choose(who, {name.encode(): value.encode() for name, value in headers.items()})
    return splitter.versions[at]


def shared(*shares: float, sticky: str = "", rules: tuple[Rule, ...] = (), deployment: str = "dpl_1") -> Splitter:
    splits = tuple(Split(f"v{at}", share) for at, share in enumerate(shares, 2))
    return Splitter(deployment, Traffic(splits, rules, sticky))


def test_of_a_million_requests_a_share_of_5_percent_is_5_percent() -> None:
    drawing = random.Random(7)
    splitter = Splitter("dpl_1", Traffic((Split("v2", 5.0),)), lambda: drawing.getrandbits(64))
    choose, versions = splitter.choose, splitter.versions
    found = Counter(choose(None, {})[0] for _ in range(1_000_000))
    shares = {versions[at]: count / 10_000 for at, count in found.items()}
    assert abs(shares["v2"] - 5.0) < 0.1
    assert shares["v2"] + shares[""] == pytest.approx(100.0)


def test_of_many_units_a_share_of_5_percent_is_5_percent_of_them() -> None:
    splitter, count = shared(5.0, sticky="caller"), 100_000
    got = sum(told(splitter, key(f"usr_{at}")) == "v2" for at in range(count)) / count
    assert abs(got - 0.05) < 5 * sqrt(0.05 * 0.95 / count)


@given(
    st.lists(st.floats(0, 100), max_size=5).filter(lambda shares: sum(shares) <= 100),
    st.integers(0, 2**32),
)
def test_every_version_gets_its_share_within_binomial_bounds(shares: list[float], seed: int) -> None:
    drawing, count = random.Random(seed), 4000
    traffic = Traffic(tuple(Split(f"v{at}", share) for at, share in enumerate(shares)))
    splitter = Splitter("dpl_1", traffic, lambda: drawing.getrandbits(64))
    found = Counter(told(splitter) for _ in range(count))
    wanted = {f"v{at}": share / 100 for at, share in enumerate(shares)} | {"": 1 - sum(shares) / 100}
    assert found.total() == count
    for version, share in wanted.items():
        assert abs(found[version] / count - share) <= 7 * sqrt(max(share * (1 - share), 1e-4) / count) + 1e-9


@pytest.mark.parametrize("sticky", ["", "caller"])
def test_a_share_of_0_gets_nothing_and_one_of_100_gets_all(sticky: str) -> None:
    none, all_of_them = shared(0.0, sticky=sticky), shared(100.0, sticky=sticky)
    for at in range(2000):
        assert told(none, key(f"usr_{at}")) == ""
        assert told(all_of_them, key(f"usr_{at}")) == "v2"


@pytest.mark.parametrize("place", [0, 1, 2**63, 2**64 - 1])
def test_the_ends_of_the_line_belong_to_somebody_who_has_a_share(place: int) -> None:
    for shares, wanted in (((0.0,), ""), ((100.0,), "v2"), ((0.0, 100.0), "v3"), ((0.0, 0.0), ""), ((100.0, 0.0), "v2")):
        splits = tuple(Split(f"v{at}", share) for at, share in enumerate(shares, 2))
        splitter = Splitter("d", Traffic(splits), lambda: place)
        assert told(splitter) == wanted, shares


UNITS = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=40, unique=True)


@given(UNITS, st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_a_split_that_grows_takes_units_from_the_promoted_version_and_moves_nobody_else(
    units: list[str], share: float, other: float, more: float
) -> None:
    assume(share + other + more <= 100)
    for before, after, grown in (
        (shared(share, sticky="caller"), shared(share + more, sticky="caller"), "v2"),
        (shared(share, other, sticky="caller"), shared(share + more, other, sticky="caller"), "v2"),
        (shared(share, other, sticky="caller"), shared(share, other + more, sticky="caller"), "v3"),
    ):
        for unit in units:
            was, now = told(before, key(unit)), told(after, key(unit))
            assert was == now or (was, now) == ("", grown)


@given(UNITS, st.sampled_from(["caller", "key", "header:X-Tenant"]), st.floats(0, 100))
def test_a_unit_stays_with_its_version_however_often_it_comes_and_whatever_else_comes_with_it(
    units: list[str], sticky: str, share: float
) -> None:
    splitter, again = shared(share, sticky=sticky), shared(share, sticky=sticky)
    for unit in units:

        def ask(which: Splitter, noise: str, unit: str = unit) -> str:
            user = unit if sticky == "caller" else noise
            key_id = unit if sticky == "key" else noise
            tenant = unit if sticky == "header:X-Tenant" else noise
            return told(which, key(user, key_id), **{"x-tenant": tenant})

        assert len({ask(which, noise) for which in (splitter, again) for noise in ("a", "b", "c")}) == 1


def test_another_process_chooses_the_same() -> None:
    script = (
        "from modelkeep.serving.splits import Splitter\n"
        "from modelkeep.contracts.traffic import Split, Traffic\n"
        "splitter = Splitter('dpl_1', Traffic((Split('v2', 30.0),), sticky='header:x-tenant'))\n"
        "print(*(splitter.choose(None, {b'x-tenant': b't%d' % at})[0] for at in range(300)))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    here = shared(30.0, sticky="header:x-tenant")
    assert [int(one) for one in printed.split()] == [here.choose(None, {b"x-tenant": b"t%d" % at})[0] for at in range(300)]


def test_the_places_of_units_do_not_change_with_releases() -> None:
    splitter = shared(50.0, sticky="caller")
    known = {"usr_ada": 10456995469279923394, "usr_bob": 1996416095993042943, "usr_eve": 16854416067016736884}
    assert {user: splitter.choose(key(user), {})[1] for user in known} == known


def test_units_of_one_deployment_say_nothing_about_those_of_another() -> None:
    one, other = shared(50.0, sticky="caller"), shared(50.0, sticky="caller", deployment="dpl_2")
    same = sum(told(one, key(f"usr_{at}")) == told(other, key(f"usr_{at}")) for at in range(4000))
    assert 1800 < same < 2200


@pytest.mark.parametrize(
    ("sticky", "who", "headers"),
    [
        ("", key(), {"x-tenant": "a"}),
        ("caller", None, {}),
        ("caller", key(""), {}),
        ("key", None, {}),
        ("header:x-tenant", key(), {}),
        ("header:x-tenant", key(), {"x-tenant": ""}),
    ],
)
def test_requests_without_the_unit_are_shared_out_one_by_one(
    sticky: str, who: ServedKey | None, headers: dict[str, str]
) -> None:
    splitter = shared(50.0, sticky=sticky)
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    found = [splitter.choose(who, encoded) for _ in range(400)]
    assert all(unit is None for _at, unit in found)
    assert 120 < sum(at for at, _unit in found) < 280


def test_a_rule_is_for_callers_keys_and_groups() -> None:
    splitter = shared(rules=(Rule("v9", callers=("usr_ada", "key_7", "grp_beta")),))
    assert told(splitter, key("usr_ada", "key_1")) == "v9"
    assert told(splitter, key("usr_bob", "key_7")) == "v9"
    assert told(splitter, key("usr_bob", "key_1", "grp_alpha", "grp_beta")) == "v9"
    assert told(splitter, key("usr_bob", "key_1", "grp_alpha")) == ""
    assert told(splitter, None) == ""


def test_a_rule_is_for_a_header_or_for_values_of_it() -> None:
    anything, some = (
        shared(rules=(Rule("v9", header="x-beta"),)),
        shared(rules=(Rule("v9", header="x-beta", values=("1", "ü")),)),
    )
    assert told(anything, **{"x-beta": ""}) == told(anything, **{"x-beta": "7"}) == "v9"
    assert told(anything) == told(some) == told(some, **{"x-beta": "7"}) == ""
    assert told(some, **{"x-beta": "1"}) == told(some, **{"x-beta": "ü"}) == "v9"


def test_all_that_a_rule_names_has_to_hold() -> None:
    splitter = shared(rules=(Rule("v9", callers=("usr_ada",), header="x-beta", values=("1",)),))
    assert told(splitter, key("usr_ada"), **{"x-beta": "1"}) == "v9"
    assert told(splitter, key("usr_ada"), **{"x-beta": "2"}) == told(splitter, key("usr_ada")) == ""
    assert told(splitter, key("usr_bob"), **{"x-beta": "1"}) == ""


def test_rules_come_before_splits_and_the_first_that_holds_decides() -> None:
    first, second = Rule("v8", callers=("usr_ada",)), Rule("v9", header="x-beta")
    splitter = shared(100.0, rules=(first, second))
    assert told(splitter, key("usr_ada"), **{"x-beta": "1"}) == "v8"
    assert told(splitter, key("usr_bob"), **{"x-beta": "1"}) == "v9"
    assert told(splitter, key("usr_bob")) == "v2"
    assert told(shared(100.0, rules=(second, first)), key("usr_ada"), **{"x-beta": "1"}) == "v9"


@given(UNITS, st.floats(0, 100), st.floats(0, 100), st.sampled_from(["", "caller", "key"]))
def test_a_cohort_is_always_the_same_callers_and_grows_by_others(
    units: list[str], low: float, high: float, sticky: str
) -> None:
    low, high = sorted((low, high))
    smaller, larger = (shared(rules=(Rule("v9", "beta", percent=percent),), sticky=sticky) for percent in (low, high))
    for unit in units:
        who = key(unit, unit)
        assert len({told(smaller, who) for _ in range(3)}) == 1
        assert told(smaller, who) != "v9" or told(larger, who) == "v9"


def test_a_cohort_has_its_percentage_of_callers_and_each_rule_and_the_splits_draw_their_own() -> None:
    splitter = shared(50.0, rules=(Rule("v8", "one", percent=50), Rule("v9", "two", percent=50)), sticky="caller")
    found = Counter(told(splitter, key(f"usr_{at}")) for at in range(8000))
    assert [round(found[version] / 8000, 1) for version in ("v8", "v9", "v2", "")] == [0.5, 0.2, 0.1, 0.1]


def test_a_cohort_of_nobody_and_one_of_all() -> None:
    for percent, version in ((0.0, ""), (100.0, "v9")):
        splitter = shared(rules=(Rule("v9", percent=percent),))
        assert {told(splitter, key(f"usr_{at}")) for at in range(500)} == {told(splitter)} == {version}


@given(
    st.lists(st.floats(0, 100), max_size=6),
    st.lists(st.builds(Rule, st.just("v9"), st.text(max_size=3), percent=st.floats(0, 100)), max_size=3),
    st.sampled_from(["", "caller", "key", "header:x"]),
    st.one_of(st.none(), st.builds(key, st.text(max_size=5), st.text(max_size=5))),
    st.integers(0, 2**64 - 1),
)
def test_somebody_always_answers_even_where_shares_are_too_large(
    shares: list[float], rules: list[Rule], sticky: str, who: ServedKey | None, place: int
) -> None:
    splits = tuple(Split(f"v{at}", share) for at, share in enumerate(shares))
    splitter = Splitter("d", Traffic(splits, tuple(rules), sticky), lambda: place)
    at, unit = splitter.choose(who, {})
    assert splitter.versions[at] in {"", "v9", *(one.version_id for one in splits if one.share > 0)}
    assert unit is None or 0 <= unit < 2**64


def test_each_stretch_begins_where_the_one_before_it_ends() -> None:
    splits = tuple(Split(f"v{at}", share) for at, share in enumerate((12.5, 25.0, 6.25, 12.5)))
    eighth, at = 2**61, [0]
    splitter = Splitter("d", Traffic(splits), lambda: at[0])
    for begins, version in ((0, "v0"), (eighth, "v2"), (eighth * 3 // 2, ""), (5 * eighth, "v3"), (6 * eighth, "v1")):
        at[0] = begins
        assert told(splitter) == version
        at[0] = begins - 1
        assert begins == 0 or told(splitter) != version


def test_where_shares_are_too_large_the_first_ones_have_theirs() -> None:
    assert told(Splitter("d", Traffic((Split("v2", 75.0), Split("v3", 75.0))), lambda: 2**63)) == "v2"


def test_the_bound_of_a_cohort_is_not_within_it() -> None:
    for place, version in ((2**63 - 1, "v9"), (2**63, "")):
        assert told(Splitter("d", Traffic((), (Rule("v9", percent=50.0),)), lambda place=place: place)) == version


def test_names_of_headers_may_be_written_in_any_way() -> None:
    assert told(shared(rules=(Rule("v9", header="X-Beta"),)), **{"x-beta": "1"}) == "v9"
    assert shared(50.0, sticky="header: X-Tenant ").choose(None, {b"x-tenant": b"a"})[1] is not None


def test_what_a_rule_decides_has_no_unit_and_rules_are_the_first_versions() -> None:
    splitter = shared(50.0, sticky="caller", rules=(Rule("v9"),))
    assert (splitter.choose(key(), {}), splitter.by_rules, splitter.versions[0]) == ((0, None), 1, "v9")
