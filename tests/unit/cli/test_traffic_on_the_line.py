"""How traffic is written on the command line."""

import pytest

from modelkeep.app.cli.deployments import traffic_facts
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.releases import traffic_of


def test_shares_are_numbers_or_none_and_what_is_not_said_stays():
    assert traffic_of(["4=5", "next=0.125%", "3=none"], None, None, None) == {"split": {"4": 5.0, "next": 0.125, "3": None}}
    assert traffic_of([], None, None, None) == {}


def test_rules_take_the_place_of_all_others():
    rule = "4 name=beta header=x-plan value=beta value=gold caller=usr_1 percent=50"
    assert traffic_of([], [rule], None, None)["rules"] == [
        {
            "version": "4",
            "name": "beta",
            "header": "x-plan",
            "values": ["beta", "gold"],
            "callers": ["usr_1"],
            "percent": 50.0,
        }
    ]
    assert traffic_of([], [], None, None) == {"rules": []}


def test_stickiness_and_the_shadow_are_set_and_taken_away():
    assert traffic_of([], None, "header:x-session", "5=20") == {
        "sticky": "header:x-session",
        "shadow": {"version": "5", "share": 20.0},
    }
    assert traffic_of([], None, "none", "none") == {"sticky": None, "shadow": None}


@pytest.mark.parametrize(
    ("shares", "rules", "said"),
    [(["4"], None, "share"), (["=5"], None, "share"), (["4=much"], None, "percentage"), ([], ["4 x-plan"], "rule")],
)
def test_what_says_nothing_is_wrong_use(shares: list[str], rules: list[str] | None, said: str):
    with pytest.raises(WrongUse, match=said):
        traffic_of(shares, rules, None, None)


def test_traffic_is_shown_with_what_the_promoted_version_has_left():
    rule = {"version": 4, "name": "beta", "callers": ["usr_1"], "header": "x-plan", "values": ["beta"], "percent": 50}
    shown = traffic_facts(3, {"split": {"4": 5.0}, "rules": [rule], "sticky": "caller", "shadow": {"version": 5, "share": 20}})
    assert shown == {
        "traffic": "5 % version 4, 95 % version 3",
        "rule beta": "version 4: header x-plan = beta, usr_1, 50 % of these",
        "sticky": "caller",
        "shadow": "version 5, 20 %",
    }
    assert traffic_facts(3, {"split": {}, "rules": [], "sticky": "", "shadow": None}) == {}
