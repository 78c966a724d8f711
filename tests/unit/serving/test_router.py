"""The router: a version takes over only once it is warm, the old one drains, and the want list is always whole."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fixtures.routing import Plane, submit, version
from fixtures.work import calls_counted
from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.snapshot import Batching, DeploymentSettings, Memory, Replicas, ServedDeployment, Snapshot
from modelkeep.sandbox import control
from modelkeep.serving.calls import Call
from modelkeep.serving.router import DeploymentNotFound, Router, VersionNotServed


@pytest.fixture
def plane() -> Plane:
    return Plane()


async def test_the_first_version_is_routed_to_before_it_is_warm_so_that_requests_may_wait(plane: Plane) -> None:
    plane.news(m="v1")
    assert plane.answers("m") == "v1"
    assert plane.wanted == ["v1"]
    assert not plane.router.warm


async def test_a_version_takes_over_only_once_it_is_warm(plane: Plane) -> None:
    plane.news(m="v1")
    plane.warm("v1")
    plane.news(m="v2")
    assert plane.answers("m") == "v1"
    assert sorted(plane.wanted) == ["v1", "v2"]
    plane.warm("v2")
    assert plane.answers("m") == "v2"
    assert plane.wanted == ["v2"]


async def test_the_old_version_is_kept_until_its_last_request_is_answered(plane: Plane) -> None:
    plane.news(m="v1")
    plane.warm("v1")
    old = plane.router.find("m").served
    waiting = submit(old)
    plane.news(m="v2")
    plane.warm("v2")
    assert plane.answers("m") == "v2"
    assert sorted(plane.wanted) == ["v1", "v2"]
    waiting.route.served.batcher.leave(waiting)
    plane.router.settle()
    assert plane.wanted == ["v2"]


async def test_a_removed_deployment_answers_no_more_but_finishes_what_it_has(plane: Plane) -> None:
    plane.news(m="v1", n="v2")
    served = plane.router.find("m").served
    waiting = submit(served)
    plane.news(n="v2")
    with pytest.raises(DeploymentNotFound):
        plane.router.find("m")
    assert sorted(plane.wanted) == ["v1", "v2"]
    waiting.route.served.batcher.leave(waiting)
    plane.router.settle()
    assert plane.wanted == ["v2"]


async def test_a_version_that_never_became_warm_is_let_go_when_it_is_passed_over(plane: Plane) -> None:
    plane.news(m="v1")
    plane.warm("v1")
    plane.news(m="v2")
    plane.news(m="v3")
    assert plane.answers("m") == "v1"
    assert sorted(plane.wanted) == ["v1", "v3"]


async def test_a_version_that_comes_back_while_it_drains_keeps_its_runner(plane: Plane) -> None:
    plane.news(m="v1")
    plane.warm("v1")
    first = plane.router.find("m").served
    waiting = submit(first)
    plane.news(m="v2")
    plane.warm("v2")
    plane.news(m="v1")
    assert plane.router.find("m").served is first
    assert plane.wanted == ["v1"]
    waiting.route.served.batcher.leave(waiting)


async def test_one_version_behind_two_deployments_is_wanted_once(plane: Plane) -> None:
    plane.news(m="v1", n="v1")
    assert plane.wanted == ["v1"]
    plane.news(n="v1")
    assert plane.wanted == ["v1"]
    assert sum(isinstance(one, control.Want) for one in plane.sent) == 1


async def test_older_or_repeated_news_changes_nothing(plane: Plane) -> None:
    plane.news(m="v1")
    plane.router.apply(Snapshot(1, 0.0))
    plane.router.apply(Snapshot(0, 0.0))
    assert plane.answers("m") == "v1"


async def test_a_deployment_whose_version_is_missing_from_the_news_answers_nothing(plane: Plane) -> None:
    plane.router.apply(Snapshot(1, 0.0, (ServedDeployment("m", "v1", 1),)))
    with pytest.raises(DeploymentNotFound):
        plane.router.find("m")


async def test_the_expected_version_may_be_named(plane: Plane) -> None:
    plane.news(m="v7")
    assert plane.router.find("m", "7").served.version.number == 7
    for other in ("1", "07", "", "latest"):
        with pytest.raises(VersionNotServed):
            plane.router.find("m", other)


async def test_errors_name_nothing_that_was_asked_for(plane: Plane) -> None:
    with pytest.raises(NotFound) as refused:
        plane.router.find("s3cret")
    assert "s3cret" not in str(refused.value)


async def test_a_version_that_sleeps_is_woken_first_and_takes_over_where_there_is_no_memory(plane: Plane) -> None:
    plane.news(m="v1")
    plane.warm("v1")
    plane.news(m="v2")
    plane.sleeps("v2")
    plane.router.settle()
    assert (plane.answers("m"), plane.woken()) == ("v1", ["v2"])
    plane.sleeps("v2")
    assert plane.answers("m") == "v2"
    assert plane.woken() == ["v2"]
    assert plane.router.warm
    assert plane.router.heartbeat("s", 0.0).serving == {"m": "v2"}


async def test_a_version_of_several_deployments_is_kept_as_the_most_demanding_says(plane: Plane) -> None:
    keeps = ("on_demand", "always", "auto")
    plane.router.apply(
        Snapshot(
            1,
            0.0,
            tuple(ServedDeployment(keep, "v1", 1, DeploymentSettings(memory=Memory(keep, 5))) for keep in keeps),
            (version("v1"),),
        )
    )
    wants = [message for message in plane.sent if isinstance(message, control.Want)]
    assert [one.memory.keep for one in wants[0].specs] == ["always"], "from the first wish on"


async def test_warm_is_when_every_deployment_answers_or_has_been_given_up(plane: Plane) -> None:
    assert plane.router.warm
    plane.news(m="v1", n="v2")
    plane.warm("v1")
    assert not plane.router.warm
    plane.router.find("n").served.failing = "held back"
    assert plane.router.warm


async def test_the_heartbeat_says_what_is_served_and_what_fails(plane: Plane) -> None:
    plane.news(m="v1", n="v2")
    plane.warm("v1")
    plane.router.find("n").served.failing = "it ended with status 3"
    heartbeat = plane.router.heartbeat("server-1", 5.0)
    assert (heartbeat.server, heartbeat.at, heartbeat.snapshot) == ("server-1", 5.0, 1)
    assert heartbeat.serving == {"m": "v1"}
    assert heartbeat.failing == {"v2": "it ended with status 3"}


async def test_what_settling_costs_grows_with_deployments_not_with_their_square(plane: Plane) -> None:
    def cost(deployments: int) -> int:
        plane.news(**{f"m{at}": f"v{at}" for at in range(deployments)})
        with calls_counted() as calls:
            plane.router.settle()
        return calls()

    assert cost(1000) < 15 * cost(100)


async def test_new_settings_are_asked_for_and_obeyed_at_once(plane: Plane) -> None:
    def replicas() -> int:
        return next(message for message in reversed(plane.sent) if isinstance(message, control.Want)).specs[0].replicas

    plane.set(DeploymentSettings(replicas=Replicas(min=3, max=4)))
    assert replicas() == 3
    plane.warm("v1")
    plane.set(DeploymentSettings(replicas=Replicas(min=2, max=2), batching=Batching(mode="off")))
    assert replicas() == 2
    assert plane.router.find("m").served.plan.mode == "off"
    asked = len(plane.sent)
    plane.router.pool.balance()
    plane.router.settle()
    assert len(plane.sent) == asked


async def test_predictions_under_way_are_counted_across_a_change_of_settings(plane: Plane) -> None:
    plane.set(DeploymentSettings(concurrency=2))
    before = plane.router.find("m")
    before.underway.count += 1
    plane.set(DeploymentSettings(concurrency=3))
    after = plane.router.find("m")
    assert (after.settings.concurrency, after.underway.count) == (3, 1)
    before.underway.count -= 1
    assert after.underway.count == 0


NAMES = ["a", "b", "c"]
VERSIONS = [f"v{number}" for number in range(1, 6)]


class Routing(RuleBasedStateMachine):
    """News, warmth and requests, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.plane = Plane()
        self.deployments: dict[str, str] = {}
        self.requests: list[Call] = []
        self.before: dict[str, str] = {}

    @property
    def router(self) -> Router:
        return self.plane.router

    def do(self, act: Callable[[], object]) -> None:
        async def doing() -> None:
            act()

        self.loop.run_until_complete(doing())

    def warmth(self) -> dict[str, bool]:
        return {served.version.id: served.ready for served in self.router.pool.all()}

    def remember(self) -> None:
        self.before = {name: served.version.id for name, served in self.router.routes().items()}

    @rule(deployments=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VERSIONS)))
    def news(self, deployments: dict[str, str]) -> None:
        self.remember()
        self.deployments = deployments
        self.do(lambda: self.plane.news(**deployments))

    @precondition(lambda self: self.router.pool.all())
    @rule(data=st.data(), ready=st.booleans())
    def warm(self, data: st.DataObject, ready: bool) -> None:
        self.remember()
        served = data.draw(st.sampled_from(sorted(self.router.pool.all(), key=lambda one: one.version.id)))
        self.do(lambda: self.plane.warm(served.version.id, ready=ready))

    @precondition(lambda self: self.router.routes())
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self.remember()
        name = data.draw(st.sampled_from(sorted(self.router.routes())))
        served = self.router.find(name).served
        self.do(lambda: self.requests.append(submit(served)))

    @precondition(lambda self: self.requests)
    @rule()
    def finish(self) -> None:
        self.remember()
        call = self.requests.pop(0)
        call.route.served.batcher.leave(call)
        self.do(self.router.settle)

    @invariant()
    def every_deployment_answers_and_no_other(self) -> None:
        assert self.router.routes().keys() == self.deployments.keys()

    @invariant()
    def no_cold_version_takes_over_from_another(self) -> None:
        warmth = self.warmth()
        for name, now in self.router.routes().items():
            before = self.before.get(name)
            if before is not None and before != now.version.id:
                assert warmth[now.version.id], "a cold version took over"
            if warmth[self.deployments[name]]:
                assert now.version.id == self.deployments[name], "a warm version does not take over"

    @invariant()
    def wanted_is_what_answers_what_shall_and_what_drains(self) -> None:
        wanted = self.plane.wanted
        assert len(wanted) == len(set(wanted)), "wanted twice"
        answering = {served.version.id for served in self.router.routes().values()}
        draining = {call.route.served.version.id for call in self.requests}
        assert set(wanted) == answering | set(self.deployments.values()) | draining
        assert set(wanted) == self.warmth().keys()

    def teardown(self) -> None:
        self.loop.close()


Routing.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRouting = Routing.TestCase


async def test_the_strictest_deployment_says_what_becomes_of_a_versions_golden_rows(plane: Plane) -> None:
    checks = ("off", "enforce", "warn")
    for count, expected in ((1, "off"), (2, "enforce"), (3, "enforce")):
        found = tuple(ServedDeployment(one, "v1", 1, DeploymentSettings(golden=one)) for one in checks[:count])
        plane.router.apply(Snapshot(count, 0.0, found, (version("v1"),)))
        assert plane.router.pool._golden == {"v1": expected}
