"""How traffic is read, what a change gives to whom, that plans say what is done, and where a rollback goes back to."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.contracts.access import INSTALLATION
from modelkeep.contracts.traffic import Rule, Split, Traffic, Trial
from modelkeep.control.deployments import planning, revisions, traffic
from modelkeep.control.deployments.errors import InvalidTraffic, NothingToRollBack, RolloutRunning
from modelkeep.control.deployments.planning import Change
from modelkeep.control.deployments.revisions import Revision
from modelkeep.control.deployments.rules import Deployment, promote, route

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = {f"ver_{number}": number for number in range(1, 7)}
KNOWN = {str(number): version for version, number in NUMBERS.items()} | {"champion": "ver_1", "next": "ver_4"}
ONE = Deployment("dep_1", "m", "mdl_1", "m", 1, NOW, "ada", "ver_1", 1)
BETA = {"version": 4, "name": "beta", "header": "x-plan", "values": ["beta"]}


def _read(patch: dict[str, Any], present: Traffic = Traffic(), promoted: str | None = "ver_1") -> Traffic:  # noqa: B008
    return traffic.rerouted(present, patch, KNOWN, promoted=promoted)


def _faults(patch: dict[str, Any], promoted: str | None = "ver_1") -> list[tuple[str, str]]:
    with pytest.raises(InvalidTraffic) as caught:
        _read(patch, promoted=promoted)
    return [(one.path, one.code) for one in caught.value.fields]


def test_a_patch_is_read_by_numbers_and_aliases():
    made = _read(
        {
            "split": {"next": 5, "5": 0.125},
            "rules": [BETA | {"callers": ["usr_1"], "percent": 50}],
            "sticky": "header:x-session",
            "shadow": {"version": 6, "share": 20},
        }
    )
    rule = Rule("ver_4", "beta", ("usr_1",), "x-plan", ("beta",), 50.0)
    assert made == Traffic((Split("ver_4", 5.0), Split("ver_5", 0.125)), (rule,), "header:x-session", Split("ver_6", 20.0))


def test_what_is_not_named_stays_and_null_takes_away():
    present = Traffic((Split("ver_4", 5.0), Split("ver_5", 10.0)), (), "caller", Split("ver_6", 20.0))
    assert _read({"split": {"4": None}}, present) == msgspec.structs.replace(present, splits=(Split("ver_5", 10.0),))
    assert _read({"split": {"4": 7}}, present).splits == (Split("ver_4", 7.0), Split("ver_5", 10.0))
    assert _read({"shadow": {"share": 1}}, present).shadow == Split("ver_6", 1.0)
    assert _read({"split": None, "sticky": None, "shadow": None, "rules": None}, present) == Traffic()
    assert _read({}, present) == present


def test_each_fault_is_found_at_once_and_names_its_place():
    assert _faults(
        {
            "splitt": {},
            "split": {"4": 101, "9": 1, "5": 0.0005, "1": 3},
            "rules": [{"name": "x"}, BETA | {"percnt": 3}, {"version": 4}, BETA | {"callers": ["ada"], "name": "two"}],
            "sticky": "session",
            "shadow": {"version": 1},
        }
    ) == [
        ("traffic.rules[0].version", "missing"),
        ("traffic.rules[1].percnt", "unknown_setting"),
        ("traffic.rules[2]", "everybody"),
        ("traffic.rules[3].callers[0]", "no_id"),
        ("traffic.shadow.version", "promoted"),
        ("traffic.split.1", "promoted"),
        ("traffic.split.4", "out_of_range"),
        ("traffic.split.5", "too_fine"),
        ("traffic.split.9", "unknown_version"),
        ("traffic.splitt", "unknown_setting"),
        ("traffic.sticky", "not_a_choice"),
    ]
    with pytest.raises(InvalidTraffic) as caught:
        _read({"splitt": {}})
    assert "Did you mean 'split'?" in caught.value.fields[0].message


@pytest.mark.parametrize(
    ("patch", "fault"),
    [
        ({"split": {"4": 60, "5": 40.001}}, ("traffic.split", "more_than_all")),
        ({"split": {"4": 1, "next": 2}}, ("traffic.split.next", "twice")),
        ({"split": {"4": True}}, ("traffic.split.4", "out_of_range")),
        ({"split": {"4": float("nan")}}, ("traffic.split.4", "out_of_range")),
        ({"split": [4]}, ("traffic.split", "wrong_type")),
        ({"rules": {"version": 4}}, ("traffic.rules", "wrong_type")),
        ({"rules": [4]}, ("traffic.rules[0]", "wrong_type")),
        ({"rules": [BETA, BETA]}, ("traffic.rules[0].name", "twice")),
        ({"rules": [{"version": 4, "values": ["a"], "percent": 1}]}, ("traffic.rules[0].values", "no_header")),
        ({"rules": [BETA | {"header": "x plan"}]}, ("traffic.rules[0].header", "no_header")),
        ({"rules": [BETA] * 51}, ("traffic.rules", "too_many")),
        ({"shadow": {"share": 5}}, ("traffic.shadow.version", "missing")),
        ({"shadow": 5}, ("traffic.shadow", "wrong_type")),
        ({"sticky": "header:"}, ("traffic.sticky", "not_a_choice")),
        ({"sticky": "caller:x"}, ("traffic.sticky", "not_a_choice")),
        ({"sticky": 4}, ("traffic.sticky", "not_a_choice")),
    ],
)
def test_what_cannot_be_is_refused(patch: dict[str, Any], fault: tuple[str, str]):
    assert fault in _faults(patch)


def test_nothing_is_beside_no_promoted_version():
    assert _faults({"split": {"4": 5}}, promoted=None) == [("traffic", "nothing_promoted")]


SHARES = st.one_of(st.integers(0, 100), st.integers(0, 100_000).map(lambda one: one / 1000), st.none())
RULES = st.lists(
    st.fixed_dictionaries(
        {"version": st.integers(1, 6), "header": st.sampled_from(["x-a", "x-b"]), "percent": st.sampled_from([100, 50, 0.5])}
    ),
    max_size=3,
)
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "split": st.dictionaries(st.sampled_from(["2", "3", "next", "5"]), SHARES, max_size=4),
        "rules": RULES,
        "sticky": st.sampled_from(["", "caller", "key", "header:x-s"]),
        "shadow": st.one_of(st.none(), st.fixed_dictionaries({"version": st.integers(2, 6), "share": st.integers(1, 100)})),
    },
)
CHANGES = st.builds(
    Change,
    st.one_of(st.none(), st.integers(1, 6)),
    st.one_of(st.none(), st.just({"concurrency": 3}), st.just({"deadline_s": 2, "concurrency": None})),
    st.one_of(st.none(), PATCHES),
)


class _Version(msgspec.Struct, frozen=True):
    id: str
    number: int


def _changed(present: Deployment, change: Change) -> Deployment | None:
    version: Any = None if change.version is None else _Version(f"ver_{change.version}", change.version)
    return planning.changed(present, change, version=version, signature=None, versions=KNOWN, by="ada", now=NOW)


def _walk(changes: list[Change]) -> list[Deployment]:
    found = [ONE]
    for change in changes:
        try:
            found.append(_changed(found[-1], change) or found[-1])
        except InvalidTraffic:
            continue
    return found


@given(st.lists(CHANGES, max_size=6))
@settings(max_examples=200, deadline=None)
def test_whatever_is_asked_for_shares_never_exceed_all_and_the_promoted_version_has_what_is_left(changes: list[Change]):
    for one in _walk(changes):
        shares = traffic.answering(one.version_id, one.traffic)
        assert sum(round(share * 1000) for share, _rules in shares.values()) == 100_000
        assert all(split.share > 0 and split.version_id != one.version_id for split in one.traffic.splits)
        assert one.traffic.shadow is None or one.traffic.shadow.version_id != one.version_id


def _put(document: dict[str, Any], path: str, value: object) -> None:
    *groups, last = path.split(".")
    for group in groups:
        if not isinstance(document.get(group), dict):
            document[group] = {}
        document = document[group]
    if value is None and groups:
        document.pop(last, None)
    else:
        document[last] = value


@given(st.lists(CHANGES, max_size=6))
@settings(max_examples=200, deadline=None)
def test_what_a_plan_lists_makes_of_what_is_there_exactly_what_the_change_makes(changes: list[Change]):
    walked = _walk(changes)
    for before, after in pairwise(walked):
        made = planning.shown(before, NUMBERS)
        for one in planning.differences(before, after, NUMBERS):
            assert one.before != one.after
            _put(made, one.path, one.after)
        wanted = planning.shown(after, NUMBERS)
        if wanted["traffic"]["shadow"] is None:
            assert not made["traffic"].pop("shadow")
            del wanted["traffic"]["shadow"]
        assert made == wanted
        told = planning.parts(before, after, NUMBERS)
        assert {one.version for one in told if one.begins} == _answers(after) - _answers(before)
        assert {one.version for one in told if one.stops} == _answers(before) - _answers(after)


def _answers(one: Deployment) -> set[int]:
    found = traffic.answering(one.version_id, one.traffic)
    return {NUMBERS[version] for version, (share, rules) in found.items() if share or rules}


@given(st.lists(CHANGES, max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_change_that_lets_a_version_answer_which_did_not_is_one_that_two_people_agree_to(changes: list[Change]):
    walked = _walk(changes)
    for before, after in pairwise(walked):
        began = {NUMBERS[one] for one in _asked(after) - _asked(before)}
        if began and not (began == {after.version} and planning.goes_back(before, after.version or 0)):
            assert planning.act_of(before, after, INSTALLATION, NUMBERS) is not None


def _asked(one: Deployment) -> set[str]:
    beside = {split.version_id for split in one.traffic.splits} | {rule.version_id for rule in one.traffic.rules}
    return beside | {one.version_id or ""}


def test_lowering_taking_out_and_shadowing_need_nobody():
    rule = Rule("ver_3", header="x-a")
    busy = msgspec.structs.replace(ONE, traffic=Traffic((Split("ver_2", 20.0),), (rule, Rule("ver_2", header="x-b"))))
    for patch in (
        {"split": {"2": 19.999}},
        {"split": None, "rules": None},
        {"rules": [{"version": 2, "header": "x-b", "percent": 5}]},
        {"sticky": "caller"},
        {"shadow": {"version": 5}},
    ):
        after = _changed(busy, Change(traffic=patch))
        assert after is not None
        assert planning.act_of(busy, after, INSTALLATION, NUMBERS) is None
    for patch in (
        {"split": {"2": 20.001}},
        {"split": {"3": 1}},
        {"rules": [{"version": 2, "header": "x-b"}, {"version": 3, "header": "x-a"}]},
        {"rules": [{"version": 3, "header": "x-c"}]},
    ):
        after = _changed(busy, Change(traffic=patch))
        assert after is not None
        assert planning.act_of(busy, after, INSTALLATION, NUMBERS) is not None


HELD = (Rule("ver_1", header="x-safe"), Rule("ver_2", header="x-b", percent=50.0))


@pytest.mark.parametrize(
    ("after", "gained"),
    [
        (HELD, set()),
        ((HELD[0],), set()),
        ((Rule("ver_1", header="x-more"), *HELD), set()),
        (HELD[1:], {"ver_2", "ver_3"}),
        (HELD[::-1], {"ver_2", "ver_3"}),
        ((msgspec.structs.replace(HELD[0], percent=9.0), HELD[1]), {"ver_2", "ver_3"}),
        ((HELD[0], msgspec.structs.replace(HELD[1], percent=51.0)), {"ver_2"}),
        ((), {"ver_3"}),
    ],
)
def test_what_a_rule_kept_for_the_promoted_version_is_gained_by_others_once_it_is_gone(
    after: tuple[Rule, ...], gained: set[str]
):
    share = (Split("ver_3", 5.0),)
    assert traffic.gaining("ver_1", Traffic(share, HELD), Traffic(share, after)) == gained


def test_a_promotion_takes_the_version_out_of_the_splits_and_ends_the_trial():
    trial = Trial("rol_1", 1, "ver_2", 0.1)
    shared = Traffic((Split("ver_2", 10.0), Split("ver_3", 5.0)), (), "caller", Split("ver_2", 50.0))
    tried = msgspec.structs.replace(ONE, traffic=shared, trial=trial)
    made = promote(tried, "ver_2", 2, expected=1, by="ada", now=NOW)
    assert made is not None
    assert (made.version, made.traffic, made.trial) == (2, Traffic((Split("ver_3", 5.0),), (), "caller"), None)


@pytest.mark.parametrize("change", [Change(version=2), Change(traffic={"split": {"2": 1}}), Change(2, {"concurrency": 1})])
def test_while_a_rollout_is_at_a_step_only_settings_are_changed_by_hand(change: Change):
    tried = msgspec.structs.replace(ONE, trial=Trial("rol_1", 1, "ver_2", 0.1))
    with pytest.raises(RolloutRunning):
        _changed(tried, change)
    assert _changed(tried, Change(settings={"concurrency": 1})) is not None


class _Story:
    """A deployment and all its revisions, oldest first."""

    def __init__(self) -> None:
        self.now = Deployment("dep_1", "m", "mdl_1", "m", 0, NOW, "ada")
        self.kept = [revisions.revision_of(self.now, "create")]

    def _keep(self, after: Deployment | None, action: revisions.Action, restored: int | None = None) -> None:
        if after is not None:
            self.now = after
            self.kept.append(revisions.revision_of(after, action, restored=restored))

    def promote(self, number: int) -> "_Story":
        self._keep(promote(self.now, f"ver_{number}", number, expected=None, by="ada", now=NOW), "promote")
        return self

    def split(self, **shares: float) -> "_Story":
        made = Traffic(tuple(Split(version, share) for version, share in shares.items() if share))
        self._keep(route(self.now, made, trial=None, by="ada", now=NOW), "route")
        return self

    def configure(self, concurrency: int) -> "_Story":
        self._keep(_changed(self.now, Change(settings={"concurrency": concurrency})), "configure")
        return self

    def back(self, to: int | None = None) -> Revision:
        history = self.kept[::-1]
        found = revisions.target(history) if to is None else self.kept[to]
        self._keep(revisions.restore(self.now, found, by="ada", now=NOW), "rollback", found.revision)
        return found

    @property
    def state(self) -> tuple[int | None, dict[str, float]]:
        return self.now.version, {one.version_id: one.share for one in self.now.traffic.splits}


def test_a_rollback_after_a_rollout_gives_the_candidate_nothing():
    story = _Story().promote(1).split(ver_2=10).split(ver_2=50).promote(2)
    story.back()
    assert story.state == (1, {})


def test_a_rollback_within_a_rollout_gives_the_candidate_nothing():
    story = _Story().promote(1).split(ver_2=10).split(ver_2=50)
    story.back()
    assert story.state == (1, {})


def test_a_rollback_takes_out_the_newest_that_came_in_and_leaves_what_was_there_before():
    story = _Story().promote(1).split(ver_2=10).split(ver_2=10, ver_3=5)
    story.back()
    assert story.state == (1, {"ver_2": 10})


def test_what_was_taken_out_by_hand_does_not_come_back():
    story = _Story().promote(1).promote(2).split(ver_3=10).split()
    story.back()
    assert story.state == (1, {})


def test_a_second_rollback_goes_further_back_and_not_forward_again():
    story = _Story().promote(1).promote(2).promote(3)
    assert [story.back().version, story.back().version] == [2, 1]
    with pytest.raises(NothingToRollBack):
        story.back()
    assert story.state == (1, {})


def test_settings_go_back_with_the_revision():
    story = _Story().configure(2).promote(1).promote(2).configure(9)
    story.back()
    assert (story.now.version, story.now.settings.concurrency) == (1, 2)


def test_there_is_no_way_back_before_the_first_version():
    story = _Story().promote(1)
    with pytest.raises(NothingToRollBack):
        story.back()
    with pytest.raises(NothingToRollBack, match="revision 0"):
        story.back(0)


STEPS = st.one_of(
    st.tuples(st.just("promote"), st.integers(1, 4)),
    st.tuples(st.just("split"), st.dictionaries(st.sampled_from(["ver_1", "ver_2", "ver_3", "ver_4"]), st.integers(1, 20))),
    st.tuples(st.just("configure"), st.integers(1, 3)),
    st.tuples(st.just("back"), st.none()),
)


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=300, deadline=None)
def test_whatever_has_happened_rolling_back_again_and_again_ends_and_takes_out_what_came_in(steps: list[tuple[str, Any]]):
    story = _Story().promote(1)
    for kind, value in steps:
        if kind == "split":
            story.split(**{name: share for name, share in value.items() if name != story.now.version_id})
        elif kind != "back":
            getattr(story, kind)(value)
        else:
            _back_or_stay(story)
    seen: list[int] = []
    while (found := _back_or_stay(story)) is not None:
        assert not seen or found.revision < seen[-1]
        seen.append(found.revision)


def _back_or_stay(story: _Story) -> Revision | None:
    before = story.now
    try:
        found = story.back()
    except NothingToRollBack:
        assert story.now == before
        return None
    state = (story.now.version_id, story.now.settings, story.now.traffic, story.now.trial)
    assert state == (found.version_id, found.settings, found.traffic, None)
    gone = set(traffic.answering(before.version_id, before.traffic)) - set(
        traffic.answering(story.now.version_id, story.now.traffic)
    )
    assert gone
    return found
