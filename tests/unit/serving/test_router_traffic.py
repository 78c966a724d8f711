"""Several versions behind one deployment: nothing for whoever is not warm, the promoted one for all others, and a way back."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from fixtures.routing import Plane, submit
from fixtures.standings import through
from modelkeep.contracts.errors import ModelFailed
from modelkeep.contracts.snapshot import DeploymentSettings, Memory, ServedKey
from modelkeep.contracts.traffic import Counted, Rule, Split, Traffic, Trial
from modelkeep.sandbox import control
from modelkeep.serving.baking import MOST, Baking
from modelkeep.serving.router import VersionNotServed
from modelkeep.serving.splits import Splitter

HALF = Traffic((Split("v2", 50.0),))
ALL = Traffic((Split("v2", 100.0),))
TRIAL = Trial("rol_1", 1, "v2", 0.5, 100.0, {"errors": 0.01})
KEY = ServedKey("key_1", b"", "k", through(user="usr_ada"))


@pytest.fixture
def plane() -> Plane:
    return Plane()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(plane: Plane) -> Clock:
    """What bake times are measured by."""
    clock = Clock()
    plane.router.baking = Baking(clock)
    return clock


def wishes(plane: Plane) -> dict[str, control.Wanted]:
    """The newest want list, by version."""
    wants = [message for message in plane.sent if isinstance(message, control.Want)]
    return {one.spec.version_id: one for one in wants[-1].specs}


async def test_a_deployment_without_traffic_has_nobody_to_share_with(plane: Plane) -> None:
    plane.news(m="v1")
    assert plane.router.find("m").sharing is None
    plane.share("v1", Traffic(shadow=Split("v2", 100.0)))
    assert plane.router.find("m").sharing is None


async def test_a_split_gets_its_share_once_it_is_warm_and_nothing_before(plane: Plane) -> None:
    plane.share("v1", HALF)
    assert plane.shared() == {"v1": 200}, "the promoted one answers, though it is not warm either"
    plane.warm("v1")
    assert plane.shared() == {"v1": 200}
    plane.warm("v2")
    found = plane.shared()
    assert 60 < found["v2"] < 140
    plane.warm("v2", ready=False)
    assert plane.shared() == {"v1": 200}


async def test_who_gets_what_goes_by_the_id_of_a_deployment_and_not_by_its_name(plane: Plane) -> None:
    traffic = Traffic((Split("v2", 50.0),), sticky="caller")
    plane.share("v1", traffic)
    plane.warm("v1")
    plane.warm("v2")
    assert plane.asked(key=KEY).unit == Splitter("dpl_m", traffic).choose(KEY, {})[1]


async def test_in_the_shadow_nobody_is_on_trial_who_is_answered(plane: Plane) -> None:
    traffic = Traffic(rules=(Rule("v2", header="x-new"),), shadow=Split("v2", 20.0))
    for shadow in (False, True):
        plane.share("v1", traffic, trial=Trial("rol_1", 1, "v2", 0.5, 100.0, {}, shadow=shadow))
        plane.warm("v1")
        plane.warm("v2")
        assert (plane.asked().route.arm is None) is shadow


async def test_a_runner_that_is_lost_takes_its_version_out_without_any_news(plane: Plane) -> None:
    plane.share("v1", ALL)
    plane.warm("v1")
    plane.warm("v2")
    assert plane.shared() == {"v2": 200}
    served = plane.router.pool.get("v2")
    assert served is not None
    served.ready = False
    assert plane.shared() == {"v1": 200}


async def test_rules_give_their_callers_to_a_version_that_is_warm(plane: Plane) -> None:
    plane.share("v1", Traffic((Split("v2", 100.0),), (Rule("v3", callers=("usr_ada",)), Rule("v1", header="x-old"))))
    for name in ("v1", "v2"):
        plane.warm(name)
    assert plane.asked(key=KEY).route.served.version.id == "v1", "not yet warm: the promoted one, and no split"
    plane.warm("v3")
    assert plane.asked(key=KEY).route.served.version.id == "v3"
    assert plane.asked(**{"x-old": "1"}).route.served.version.id == "v1"
    assert plane.asked().route.served.version.id == "v2"


async def test_what_shares_traffic_is_loaded_as_the_promoted_one_is_and_at_once(plane: Plane) -> None:
    traffic = Traffic((Split("v2", 10.0),), (Rule("v3"),), shadow=Split("v4", 5.0))
    plane.share("v1", traffic, settings=DeploymentSettings(memory=Memory("auto", 7)), aliases={"canary": "v2", "old": "v5"})
    assert {name: (one.memory, one.lazy) for name, one in wishes(plane).items()} == {
        "v1": (Memory("auto", 7), False),
        "v2": (Memory("auto", 7), False),
        "v3": (Memory("auto", 7), False),
        "v4~shadow": (Memory("on_demand"), True),
        "v5": (Memory("on_demand", 7), True),
    }


async def test_that_a_shadow_cannot_be_loaded_is_told_where_a_rollout_waits_for_it(plane: Plane) -> None:
    traffic = Traffic(shadow=Split("v2", 20.0))
    for trial, told in (
        (None, {}),
        (Trial("rol_1", 0, "v2", 0.5), {}),
        (Trial("rol_1", 0, "v2", 0.5, shadow=True), {"v2": "it ended with status 3"}),
    ):
        plane.share("v1", traffic, trial=trial)
        shadow = plane.router.pool.get("v2~shadow")
        assert shadow is not None
        shadow.failing = "it ended with status 3"
        assert plane.router.heartbeat("server-1", 5.0).failing == told


async def test_a_version_that_sleeps_is_woken_by_whom_it_would_have_answered(plane: Plane) -> None:
    plane.share("v1", ALL)
    plane.warm("v1")
    plane.sleeps("v2")
    assert plane.woken() == []
    assert plane.shared(3) == {"v1": 3}
    assert plane.woken() == ["v2"]


async def test_versions_that_share_traffic_are_named_by_number_and_others_are_not(plane: Plane) -> None:
    plane.share("v1", Traffic((Split("v2", 10.0),), shadow=Split("v3", 5.0)))
    assert [plane.answers("m", number) for number in ("1", "2")] == ["v1", "v2"]
    with pytest.raises(VersionNotServed):
        plane.router.find("m", "3")
    plane.share("v1", Traffic())
    for number in ("2", "3"):
        with pytest.raises(VersionNotServed):
            plane.router.find("m", number)
    assert plane.wanted == ["v1"]


async def test_predictions_of_all_versions_count_as_one_and_take_the_settings_of_the_deployment(plane: Plane) -> None:
    changed = DeploymentSettings(not_finite="refuse", bake_s=0)
    plane.share("v1", ALL, settings=changed, trial=TRIAL)
    for name in ("v1", "v2"):
        plane.warm(name)
    promoted, candidate = plane.router.find("m"), plane.asked().route
    assert candidate.served.version.id == "v2"
    assert candidate.underway is promoted.underway is plane.router.find("m", "2").underway
    assert candidate.settings == changed
    assert candidate.meter is not promoted.meter
    assert candidate.meter is plane.router.find("m", "2").meter
    plane.share("v1", ALL)
    assert plane.asked().route.settings != changed


async def test_a_split_that_ends_gets_nothing_more_and_drains(plane: Plane) -> None:
    plane.share("v1", ALL)
    for name in ("v1", "v2"):
        plane.warm(name)
    waiting = submit(plane.asked().route.served)
    plane.share("v1", Traffic())
    assert plane.shared() == {"v1": 200}
    assert sorted(plane.wanted) == ["v1", "v2"]
    waiting.route.served.batcher.leave(waiting)
    plane.router.tend()
    assert plane.wanted == ["v1"]


async def test_a_candidate_that_is_promoted_answers_at_once_for_it_is_warm(plane: Plane) -> None:
    plane.share("v1", HALF)
    for name in ("v1", "v2"):
        plane.warm(name)
    plane.share("v2", Traffic())
    assert plane.shared() == {"v2": 200}
    assert plane.router.heartbeat("s", 0.0).serving == {"m": "v2"}
    assert plane.wanted == ["v2"]


async def test_the_heartbeat_says_that_the_promoted_version_is_served_whatever_the_shares_are(plane: Plane) -> None:
    plane.share("v1", ALL)
    for name in ("v1", "v2"):
        plane.warm(name)
    assert plane.router.heartbeat("s", 0.0).serving == {"m": "v1"}


async def test_a_version_that_the_news_lacks_gets_nothing(plane: Plane) -> None:
    plane.news(m="v1")
    plane.number += 1
    snapshot = plane.router.snapshot
    place = snapshot.deployments[0]
    import msgspec

    lacking = msgspec.structs.replace(place, traffic=Traffic((Split("v9", 100.0),), (Rule("v8"),)))
    plane.router.apply(msgspec.structs.replace(snapshot, number=plane.number, deployments=(lacking,)))
    assert plane.shared() == {"v1": 200}


# ---- bake time


async def test_what_stops_answering_stays_loaded_for_the_bake_time_and_is_back_at_once(plane: Plane, clock: Clock) -> None:
    kept = DeploymentSettings(bake_s=60)
    plane.point("v1", {}, kept)
    plane.warm("v1")
    plane.point("v2", {}, kept)
    plane.warm("v2")
    before = plane.router.pool.get("v1")
    clock.now += 59
    plane.router.tend()
    assert sorted(plane.wanted) == ["v1", "v2"]
    assert wishes(plane)["v1"].memory.keep == "auto"
    with pytest.raises(VersionNotServed):
        plane.router.find("m", "1")
    plane.point("v1", {}, kept)
    assert plane.router.find("m").served is before
    assert plane.answers("m") == "v1", "without waiting for anything"
    clock.now += 59
    plane.router.tend()
    assert sorted(plane.wanted) == ["v1", "v2"]
    clock.now += 1
    plane.router.tend()
    assert plane.wanted == ["v1"]


async def test_what_bakes_is_kept_as_the_promoted_one_is_though_an_alias_points_to_it(plane: Plane, clock: Clock) -> None:
    kept = DeploymentSettings(bake_s=60, memory=Memory("auto", 7))
    plane.point("v1", {"champion": "v1"}, kept)
    plane.warm("v1")
    plane.point("v2", {"champion": "v1"}, kept)
    plane.warm("v2")
    for seconds, keep in ((59, ("auto", False)), (1, ("on_demand", True))):
        clock.now += seconds
        plane.router.tend()
        assert (wishes(plane)["v1"].memory.keep, wishes(plane)["v1"].lazy) == keep


async def test_a_candidate_that_is_called_back_stays_loaded_too_and_a_shadow_does_not(plane: Plane, clock: Clock) -> None:
    kept = DeploymentSettings(bake_s=60)
    plane.share("v1", Traffic((Split("v2", 10.0),), (Rule("v3", header="x"),), shadow=Split("v4", 10.0)), settings=kept)
    for name in ("v1", "v2", "v3", "v4~shadow"):
        plane.warm(name)
    plane.share("v1", Traffic(), settings=kept)
    assert sorted(plane.wanted) == ["v1", "v2", "v3"]
    plane.share("v1", Traffic((Split("v2", 100.0),)), settings=kept)
    assert plane.shared() == {"v2": 200}
    clock.now += 61
    plane.router.tend()
    assert sorted(plane.wanted) == ["v1", "v2"]


async def test_only_what_is_loaded_stays_and_only_the_last_ones(plane: Plane, clock: Clock) -> None:
    kept = DeploymentSettings(bake_s=60)
    plane.share("v1", Traffic((Split("v9", 10.0),)), settings=kept)
    plane.warm("v1")
    plane.share("v1", Traffic(), settings=kept)
    assert plane.wanted == ["v1"], "what never had a runner has nothing to keep"
    for number in range(2, 7):
        plane.point(f"v{number}", {}, kept)
        plane.warm(f"v{number}")
    assert sorted(plane.wanted) == ["v4", "v5", "v6"]
    assert len(plane.wanted) == 1 + MOST


async def test_a_bake_time_that_is_made_shorter_holds_at_once_and_a_removed_deployment_keeps_nothing(
    plane: Plane, clock: Clock
) -> None:
    for bake_s, wanted in ((60, ["v1", "v2"]), (5, ["v2"])):
        plane.point("v1", {}, DeploymentSettings(bake_s=60))
        plane.warm("v1")
        plane.point("v2", {}, DeploymentSettings(bake_s=60))
        plane.warm("v2")
        clock.now += 10
        plane.point("v2", {}, DeploymentSettings(bake_s=bake_s))
        assert sorted(plane.wanted) == wanted
    plane.point("v1", {}, DeploymentSettings(bake_s=60))
    plane.warm("v1")
    plane.news(n="v7")
    assert plane.wanted == ["v7"]


@pytest.mark.parametrize(("keep", "baking"), [("auto", "auto"), ("always", "auto"), ("on_demand", "on_demand")])
async def test_what_bakes_goes_where_memory_is_short(plane: Plane, clock: Clock, keep: str, baking: str) -> None:
    kept = DeploymentSettings(bake_s=60, golden="off", memory=Memory(keep, 9))  # type: ignore[arg-type]
    plane.point("v1", {}, kept)
    plane.warm("v1")
    plane.point("v2", {}, kept)
    plane.warm("v2")
    assert wishes(plane)["v1"].memory == Memory(baking, 9)  # type: ignore[arg-type]
    assert plane.router.pool._golden == {"v1": "off", "v2": "off"}
    plane.sleeps("v1")
    plane.point("v1", {}, kept)
    assert (plane.answers("m"), plane.woken()) == ("v2", ["v1"]), "warm before it answers, as ever"


# ---- trials


async def test_a_trial_counts_what_the_shares_gave_and_neither_rules_nor_who_named_a_version(plane: Plane) -> None:
    plane.share("v1", Traffic((Split("v2", 50.0), Split("v3", 20.0)), (Rule("v2", header="x-beta"),)), trial=TRIAL)
    for name in ("v1", "v2", "v3"):
        plane.warm(name)
    arms = {}
    for _ in range(300):
        call = plane.asked()
        arms[call.route.served.version.id] = call.route.arm
    count = plane.router.trials.of("m")
    assert count is not None
    assert arms == {"v2": count.arms[0], "v1": count.arms[1], "v3": None}
    assert plane.asked(**{"x-beta": "1"}).route.arm is None
    assert plane.router.find("m", "2").arm is plane.router.find("m", "1").arm is plane.router.find("m").arm is None


async def test_a_trial_of_the_promoted_version_itself_has_nobody_to_be_compared_with_though_rules_share(plane: Plane) -> None:
    plane.share("v2", Traffic(rules=(Rule("v1", header="x-old"),)), trial=TRIAL)
    plane.warm("v1")
    plane.warm("v2")
    assert plane.asked().route is plane.router.find("m")
    assert plane.asked(**{"x-old": "1"}).route.arm is None


async def test_a_trial_of_a_version_that_nothing_leads_to_counts_nobody(plane: Plane) -> None:
    plane.share("v1", ALL, trial=replace(TRIAL, version_id="v9"))
    plane.warm("v1")
    plane.warm("v2")
    call = plane.asked()
    assert (call.route.served.version.id, call.route.arm) == ("v2", None)


async def test_nothing_is_counted_while_the_candidate_is_not_warm_or_another_version_is_still_promoted(plane: Plane) -> None:
    plane.share("v1", HALF, trial=TRIAL)
    plane.warm("v1")
    assert {plane.asked().route.arm for _ in range(100)} == {None}
    plane.warm("v2")
    assert None not in {plane.asked().route.arm for _ in range(100)}
    plane.share("v3", HALF, trial=TRIAL)
    assert plane.answers("m") == "v1"
    assert {plane.asked().route.arm for _ in range(100)} == {None}
    plane.warm("v3")
    assert None not in {plane.asked().route.arm for _ in range(100)}


async def test_a_candidate_that_is_worse_gets_nothing_more_and_that_is_told_at_once(plane: Plane) -> None:
    told = []
    plane.router.trials.told = lambda: told.append(plane.router.heartbeat("s", 0.0).trials["rol_1:1"].halted)
    plane.share("v1", HALF, trial=TRIAL)
    for name in ("v1", "v2"):
        plane.warm(name)
    count = plane.router.trials.of("m")
    assert count is not None
    failures = 0
    while not count.halted:
        call = plane.asked()
        if call.route.served.version.id == "v2":
            failures += 1
            assert call.route.arm is not None
            call.route.arm.failed(call, ModelFailed())
    assert told == ["errors"]
    assert plane.shared() == {"v1": 200}
    assert plane.router.heartbeat("s", 0.0).trials["rol_1:1"].counts["errors"] == Counted(failures, failures)
    plane.share("v1", HALF, trial=TRIAL)
    assert plane.shared() == {"v1": 200}, "the same news again change nothing"
    plane.share("v1", HALF)
    assert plane.shared()["v2"] > 0, "whoever is in charge may decide otherwise"


# ---- anything, in any order

VERSIONS = [f"v{number}" for number in range(1, 6)]
SHARES = st.lists(st.tuples(st.sampled_from(VERSIONS), st.sampled_from([0.0, 1.0, 25.0, 50.0])), max_size=2)


class Sharing(RuleBasedStateMachine):
    """News of shares, rules and shadows; versions that load, sleep and are lost; time that passes; calls: in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.plane = Plane()
        self.clock = Clock()
        self.plane.router.baking = Baking(self.clock)
        self.promoted = "v1"
        self.traffic = Traffic()
        self.do(lambda: self.plane.share("v1", Traffic()))

    def do(self, act: Callable[[], object]) -> None:
        async def doing() -> None:
            act()

        self.loop.run_until_complete(doing())

    @rule(
        promoted=st.sampled_from(VERSIONS),
        shares=SHARES,
        ruled=st.none() | st.sampled_from(VERSIONS),
        shadow=st.none() | st.sampled_from(VERSIONS),
        tried=st.booleans(),
        bake_s=st.sampled_from([0.0, 30.0]),
    )
    def news(
        self, promoted: str, shares: list[tuple[str, float]], ruled: str | None, shadow: str | None, tried: bool, bake_s: float
    ) -> None:
        splits = tuple(Split(*one) for one in shares)
        rules = () if ruled is None else (Rule(ruled, header="x-beta"),)
        self.traffic = Traffic(splits, rules, shadow=None if shadow is None else Split(shadow, 5.0))
        self.promoted = promoted
        trial = Trial("rol_1", 1, splits[0].version_id, 0.5) if tried and splits else None
        options = DeploymentSettings(bake_s=bake_s)
        self.do(lambda: self.plane.share(promoted, self.traffic, trial=trial, settings=options))

    @rule(data=st.data(), ready=st.booleans())
    def runner_comes_or_goes(self, data: st.DataObject, ready: bool) -> None:
        version_id = data.draw(st.sampled_from(sorted(served.version.id for served in self.plane.router.pool.all())))
        served = self.plane.router.pool.get(version_id)
        assert served is not None
        served.asleep = served.asleep and not ready
        self.do(lambda: self.plane.warm(version_id, ready=ready))

    @rule(data=st.data())
    def goes_to_sleep(self, data: st.DataObject) -> None:
        version_id = data.draw(st.sampled_from(sorted(served.version.id for served in self.plane.router.pool.all())))
        served = self.plane.router.pool.get(version_id)
        assert served is not None
        served.ready = False
        self.do(lambda: self.plane.sleeps(version_id))

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.do(self.plane.router.tend)

    @invariant()
    def nobody_is_given_to_a_version_without_a_runner_or_without_a_share(self) -> None:
        now = self.plane.router.find("m").served
        allowed = {one.version_id for one in self.traffic.splits if one.share} | {now.version.id}
        ruled = {one.version_id for one in self.traffic.rules}
        for headers, more in (({}, set()), ({"x-beta": "1"}, ruled)):
            for _ in range(10):
                route = self.plane.asked(**headers).route
                assert route.served is now or route.served.ready
                assert route.served.version.id in allowed | more
                assert route.served.version.id in self.plane.wanted
                assert route.underway is self.plane.router.find("m").underway
                assert route.arm is None or self.plane.router.trials.of("m") is route.arm.count

    @invariant()
    def what_is_warm_and_has_a_rule_gets_it(self) -> None:
        for one in self.traffic.rules:
            served = self.plane.router.pool.get(one.version_id)
            assert served is not None
            if served.ready:
                assert self.plane.asked(**{"x-beta": "1"}).route.served is served

    @invariant()
    def wanted_is_what_answers_what_shall_and_what_bakes(self) -> None:
        answering = {self.plane.router.find("m").served.version.id, self.promoted, *self.traffic.sharing_ids}
        if self.traffic.shadow is not None and self.traffic.shadow.version_id != self.promoted:
            answering.add(f"{self.traffic.shadow.version_id}~shadow")
        baking = {served.version.id for served in self.plane.router.baking.all()}
        assert set(self.plane.wanted) == answering | baking
        assert len(baking) <= MOST
        answer = {one.version_id for one in (*self.traffic.splits, *self.traffic.rules)}
        assert not baking & {self.plane.router.find("m").served.version.id, *answer}

    def teardown(self) -> None:
        self.loop.close()


Sharing.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSharing = Sharing.TestCase
