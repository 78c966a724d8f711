"""Versions that answer on request: found by number and alias, moved like a promotion, loaded when somebody asks."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fixtures.routing import Plane, submit, version
from modelkeep.contracts.snapshot import DeploymentSettings, Memory, Recording, ServedDeployment, Snapshot
from modelkeep.sandbox import control
from modelkeep.serving.calls import Call
from modelkeep.serving.router import DeploymentNotFound, Router, VersionNotServed


@pytest.fixture
def plane() -> Plane:
    return Plane()


def wishes(plane: Plane) -> dict[str, control.Wanted]:
    """The newest want list, by version."""
    wants = [message for message in plane.sent if isinstance(message, control.Want)]
    return {one.spec.version_id: one for one in wants[-1].specs}


async def test_a_version_is_found_by_number_and_alias_and_nothing_else_is(plane: Plane) -> None:
    plane.point("v1", {"champion": "v1", "canary": "v2", "next": "v2"})
    assert plane.answers("m") == plane.answers("m", "1") == plane.answers("m", "champion") == "v1"
    assert plane.answers("m", "2") == plane.answers("m", "canary") == plane.answers("m", "next") == "v2"
    for other in ("3", "02", "", "v2", "Canary", "m"):
        with pytest.raises(VersionNotServed, match="alias"):
            plane.router.find("m", other)
    with pytest.raises(DeploymentNotFound):
        plane.router.find("n", "canary")
    assert plane.router.aliases("m") == {"champion": 1, "canary": 2, "next": 2}


async def test_no_version_named_is_the_promoted_one_whatever_aliases_there_are(plane: Plane) -> None:
    plane.point("v2", {"champion": "v1"})
    assert plane.router.find("m") is plane.router.find("m", "2")
    assert plane.router.find("m") is not plane.router.find("m", "champion")
    assert plane.router.find("m", "1") is plane.router.find("m", "champion")


async def test_what_only_an_alias_points_to_is_loaded_when_it_is_asked_for(plane: Plane) -> None:
    plane.point("v1", {"champion": "v1", "canary": "v2"}, DeploymentSettings(memory=Memory("auto", 7)))
    assert {name: (one.memory, one.lazy) for name, one in wishes(plane).items()} == {
        "v1": (Memory("auto", 7), False),
        "v2": (Memory("on_demand", 7), True),
    }
    plane.warm("v1")
    assert plane.router.warm, "readiness does not wait for what nobody asks for"
    plane.sleeps("v2")
    call = submit(plane.router.find("m", "canary").served)
    assert plane.woken() == ["v2"]
    call.route.served.batcher.leave(call)


async def test_what_is_always_kept_is_kept_for_aliases_too(plane: Plane) -> None:
    plane.point("v1", {"canary": "v2"}, DeploymentSettings(memory=Memory("always")))
    assert {name: (one.memory.keep, one.lazy) for name, one in wishes(plane).items()} == {
        "v1": ("always", False),
        "v2": ("always", False),
    }


async def test_an_alias_moves_only_once_its_new_version_is_warm_and_the_old_one_drains(plane: Plane) -> None:
    plane.point("v1", {"champion": "v2"})
    plane.warm("v1")
    plane.warm("v2")
    waiting = submit(plane.router.find("m", "champion").served)
    plane.point("v1", {"champion": "v3"})
    plane.sleeps("v3")
    assert plane.answers("m", "champion") == "v2"
    assert plane.woken() == ["v3"], "it is loaded before it answers what the old one answers now"
    assert plane.answers("m", "3") == "v3", "by its number it answers at once, and waits for its runner"
    plane.warm("v3")
    assert plane.answers("m", "champion") == "v3"
    with pytest.raises(VersionNotServed):
        plane.router.find("m", "2")
    assert sorted(plane.wanted) == ["v1", "v2", "v3"]
    waiting.route.served.batcher.leave(waiting)
    plane.router.tend()
    assert sorted(plane.wanted) == ["v1", "v3"]


async def test_an_alias_of_a_version_that_sleeps_moves_at_once(plane: Plane) -> None:
    plane.point("v1", {"champion": "v2"})
    plane.sleeps("v2")
    plane.point("v1", {"champion": "v3"})
    assert plane.answers("m", "champion") == "v2", "nobody knows yet whether it is to sleep"
    plane.sleeps("v3")
    assert plane.answers("m", "champion") == "v3"
    assert plane.woken() == []


async def test_who_was_woken_in_vain_takes_over_all_that_is_its_own_at_once(plane: Plane) -> None:
    plane.point("v1", {"champion": "v1"})
    plane.warm("v1")
    plane.point("v2", {"champion": "v2"})
    plane.sleeps("v2")
    assert (plane.answers("m"), plane.answers("m", "champion")) == ("v1", "v1")
    plane.sleeps("v2")
    assert (plane.answers("m"), plane.answers("m", "champion"), plane.woken()) == ("v2", "v2", ["v2"])
    plane.point("v1", {"champion": "v1"})
    plane.warm("v1")
    plane.point("v2", {"champion": "v1"})
    plane.sleeps("v2")
    assert plane.woken() == ["v2", "v2"], "another time it is woken again"


async def test_a_deleted_alias_answers_no_more_and_its_version_goes(plane: Plane) -> None:
    plane.point("v1", {"champion": "v1", "canary": "v2"})
    plane.point("v1", {"champion": "v1"})
    for name in ("canary", "2"):
        with pytest.raises(VersionNotServed):
            plane.router.find("m", name)
    assert plane.wanted == ["v1"]
    assert plane.answers("m", "champion") == "v1"


async def test_a_canary_that_is_promoted_is_warm_before_it_answers_and_the_old_champion_stays(plane: Plane) -> None:
    plane.point("v1", {"champion": "v1", "canary": "v2"})
    plane.warm("v1")
    plane.sleeps("v2")
    plane.point("v2", {"champion": "v1", "canary": "v2"})
    assert (plane.answers("m"), plane.woken()) == ("v1", ["v2"])
    plane.warm("v2")
    assert (plane.answers("m"), plane.answers("m", "champion"), plane.answers("m", "canary")) == ("v2", "v1", "v2")
    assert sorted(plane.wanted) == ["v1", "v2"]
    assert wishes(plane)["v1"].memory.keep == "on_demand"


async def test_predictions_of_all_versions_count_as_one_for_the_deployment(plane: Plane) -> None:
    plane.point("v1", {"canary": "v2"})
    first, second = plane.router.find("m"), plane.router.find("m", "canary")
    assert first.underway is second.underway
    second.underway.count += 1
    plane.point("v1", {"canary": "v3"}, DeploymentSettings(concurrency=3))
    assert plane.router.find("m").underway.count == plane.router.find("m", "canary").underway.count == 1


async def test_the_settings_of_a_deployment_hold_for_all_its_versions(plane: Plane) -> None:
    plane.point("v1", {"canary": "v2"})
    changed = DeploymentSettings(not_finite="refuse", golden="warn", recording=Recording(inputs="hash"))
    plane.point("v1", {"canary": "v2"}, changed)
    for named in (None, "canary"):
        route = plane.router.find("m", named)
        assert (route.settings, route.recording, route.plain) == (changed, changed.recording, False)
        assert route.served.settings == changed
    assert plane.router.pool._golden == {"v1": "warn", "v2": "warn"}


async def test_each_version_is_counted_as_itself(plane: Plane) -> None:
    asked: list[tuple[str, int]] = []
    meter_of = plane.router._meter_of

    def noted(deployment: str, number: int) -> object:
        asked.append((deployment, number))
        return meter_of(deployment, number)

    plane.router._meter_of = noted  # type: ignore[assignment]
    plane.point("v1", {"champion": "v1", "canary": "v2"})
    assert sorted(asked) == [("m", 1), ("m", 2)]
    plane.router.settle()
    assert len(asked) == 2, "what has not changed keeps its route"


async def test_a_removed_deployment_lets_all_its_versions_go(plane: Plane) -> None:
    plane.point("v1", {"canary": "v2"})
    waiting = submit(plane.router.find("m", "canary").served)
    plane.news(n="v3")
    assert sorted(plane.wanted) == ["v2", "v3"]
    waiting.route.served.batcher.leave(waiting)
    plane.router.tend()
    assert plane.wanted == ["v3"]


async def test_an_alias_to_a_version_that_the_news_does_not_have_is_no_alias(plane: Plane) -> None:
    plane.router.apply(Snapshot(1, 0.0, (ServedDeployment("m", "v1", 1, aliases={"canary": "v2"}),), (version("v1"),)))
    with pytest.raises(VersionNotServed):
        plane.router.find("m", "canary")
    assert plane.answers("m", "1") == "v1"


VERSIONS = [f"v{number}" for number in range(1, 5)]
ALIASES = ["a", "b"]


class Pointing(RuleBasedStateMachine):
    """News of a promoted version and of aliases; versions that load, sleep and are lost; requests: in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.plane = Plane()
        self.promoted = "v1"
        self.aliases: dict[str, str] = {}
        self.requests: list[Call] = []
        self.before: dict[str | None, tuple[str, bool]] = {}
        self.do(lambda: self.plane.point("v1", {}))

    @property
    def router(self) -> Router:
        return self.plane.router

    def do(self, act: Callable[[], object]) -> None:
        """Act, and remember what answered before, and whether it was awake."""
        names = [None, *self.aliases] if self.router.routes() else []
        found = {name: self.router.find("m", name).served for name in names}
        self.before = {name: (served.version.id, served.ready) for name, served in found.items()}

        async def doing() -> None:
            act()

        self.loop.run_until_complete(doing())

    @rule(promoted=st.sampled_from(VERSIONS), aliases=st.dictionaries(st.sampled_from(ALIASES), st.sampled_from(VERSIONS)))
    def news(self, promoted: str, aliases: dict[str, str]) -> None:
        self.do(lambda: self.plane.point(promoted, aliases))
        self.before = {name: was for name, was in self.before.items() if name is None or name in aliases}
        self.promoted, self.aliases = promoted, aliases

    @rule(data=st.data(), ready=st.booleans())
    def runner_comes_or_goes(self, data: st.DataObject, ready: bool) -> None:
        version_id = data.draw(st.sampled_from(sorted(served.version.id for served in self.router.pool.all())))
        served = self.router.pool.get(version_id)
        assert served is not None
        served.asleep = served.asleep and not ready
        self.do(lambda: self.plane.warm(version_id, ready=ready))

    @rule(data=st.data())
    def goes_to_sleep(self, data: st.DataObject) -> None:
        version_id = data.draw(st.sampled_from(sorted(served.version.id for served in self.router.pool.all())))
        served = self.router.pool.get(version_id)
        assert served is not None
        served.ready = False
        self.do(lambda: self.plane.sleeps(version_id))

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        named = data.draw(st.sampled_from([None, *sorted(self.aliases)]))
        self.do(lambda: self.requests.append(submit(self.router.find("m", named).served)))

    @precondition(lambda self: self.requests)
    @rule()
    def finish(self) -> None:
        call = self.requests.pop(0)
        call.route.served.batcher.leave(call)
        self.do(self.router.settle)

    @invariant()
    def every_name_is_answered_and_what_is_warm_answers_by_its_own(self) -> None:
        wanted = {None: self.promoted, **self.aliases}
        for name, version_id in wanted.items():
            now = self.router.find("m", name).served
            target = self.router.pool.get(version_id)
            assert target is not None
            if target.ready:
                assert now is target, "a warm version does not take over"
            was = self.before.get(name)
            if was is not None and was[0] != now.version.id:
                assert now is target
                assert now.answers, "a version that is being loaded took over"

    @invariant()
    def whoever_sleeps_takes_over_from_who_is_awake_only_after_it_was_woken_in_vain(self) -> None:
        for name, (was, awake) in self.before.items():
            now = self.router.find("m", name).served
            if awake and now.version.id != was and now.asleep:
                assert now.version.id in self.plane.woken()

    @invariant()
    def numbers_are_those_of_what_answers_or_is_about_to(self) -> None:
        serving = {served.version.id for served in self.router.serving("m")}
        assert serving == {self.router.find("m", name).served.version.id for name in [None, *self.aliases]} | set(
            self.aliases.values()
        )
        for version_id in VERSIONS:
            if version_id in serving:
                assert self.router.find("m", version_id[1:]).served.version.id == version_id
            else:
                with pytest.raises(VersionNotServed):
                    self.router.find("m", version_id[1:])

    @invariant()
    def wanted_is_what_answers_what_shall_and_what_drains(self) -> None:
        serving = {served.version.id for served in self.router.serving("m")}
        draining = {call.route.served.version.id for call in self.requests}
        assert set(self.plane.wanted) == serving | {self.promoted} | draining
        assert {one.version.id for one in self.router.pool.all()} == set(self.plane.wanted)

    @invariant()
    def only_what_nobody_needs_yet_is_lazy(self) -> None:
        promoted = {self.promoted, self.router.find("m").served.version.id}
        lazy = {name for name, one in wishes(self.plane).items() if one.lazy}
        assert lazy == set(self.aliases.values()) - promoted

    @invariant()
    def all_versions_count_together(self) -> None:
        assert len({id(self.router.find("m", name).underway) for name in [None, *self.aliases]}) == 1

    def teardown(self) -> None:
        self.loop.close()


Pointing.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestPointing = Pointing.TestCase
