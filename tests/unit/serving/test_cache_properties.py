"""Kept answers, whatever happens: nobody ever gets what was said to somebody else, of something else, or by something else.

A state machine drives a cache before batchers with callers, versions, promotions, deadlines, callers who leave, runs that fail,
are lost, or whose runner is found wrong, while time passes. Each model's answer names its version and its question.
"""

import asyncio
import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from fixtures.calling import ByHand, make_call, make_request, rows, turn
from modelkeep.contracts.errors import Timeout
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import Caching, DeploymentSettings, RunnerSpec, ServedDeployment, ServedVersion
from modelkeep.serving.batcher import Batcher, Finished
from modelkeep.serving.cache import Cache
from modelkeep.serving.cache_key import begun, key_of
from modelkeep.serving.cache_memory import QUIET_S, Group, Holder, Memory, size_of
from modelkeep.serving.calls import Call, Run
from modelkeep.serving.messages import ClientGone, Response
from modelkeep.serving.modes import Plan
from modelkeep.serving.router import Route

SIGNATURE = Signature((TensorSpec("x", Dtype.INT64, (-1, 1)),), (TensorSpec("y", Dtype.INT64, (-1, 1)),))
MOST_BYTES = 40_000
TTL_S = 50.0
CALLERS = ["ada", "bob", ""]
QUESTIONS = 4


class Counting:
    """A meter that counts what became of requests."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def cached(self, result: str, took_s: float = 0.0) -> None:
        assert took_s >= 0.0
        self.results.append(result)

    def kept(self, took_s: float) -> None:
        assert took_s >= 0.0


class Model:
    """A version as the cache sees it, with one runner by hand: it answers 1000 times its number plus the question."""

    def __init__(self, number: int, answered: Callable[[Finished, Run], None]) -> None:
        spec = RunnerSpec(f"v{number}", "d" * 64, 1, "onnx", "fake", SIGNATURE)
        self.number = number
        self.meter = Counting()
        self.runner = ByHand()
        batcher = Batcher(
            Plan("cheap", 8, 0.0, together=True),
            max_queue=1000,
            run_timeout_s=60.0,
            finish=answered,
        )
        self.served = SimpleNamespace(
            version=ServedVersion(f"v{number}", "m", number, spec, SIGNATURE),
            number=b"%d" % number,
            mismatches=0,
            golden=SimpleNamespace(differs=""),
            batcher=batcher,
        )
        batcher.attach(self.runner)

    async def answer(self) -> None:
        (array,) = self.runner.runs[-1][0].values()
        await self.runner.give({"y": array + 1000 * self.number})


class Question:
    """What the test knows of one call."""

    def __init__(self, call: Call, deployment: str, caller: str, version: int, values: list[int]) -> None:
        self.call = call
        self.asked = (deployment, caller, version, tuple(values))
        self.caller = caller
        self.version = version
        self.values = values
        self.over = False


class Everybody(RuleBasedStateMachine):
    """See above."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 0.0
        self.asked: list[Question] = []
        self.finished: list[Call] = []
        self.said: set[tuple[str, str, int, tuple[int, ...]]] = set()
        self.strange: list[Question] = []

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        async def made() -> None:
            self.cache = Cache(MOST_BYTES, most_waiting=3, clock=lambda: self.now)
            self.models = [Model(number, self._answered) for number in range(3)]
            self.promoted = {"m": 0, "n": 1}
            self.routes = {name: self._routed(name, number) for name, number in self.promoted.items()}

        self.do(made())

    def _answered(self, finished: Finished, _run: Run) -> None:
        self.finished += [call for call, _response in finished]

    def _routed(self, name: str, number: int) -> Route:
        model = self.models[number]
        deployment = ServedDeployment(name, f"v{number}", 1, DeploymentSettings(cache=Caching("on", ttl_s=TTL_S)))
        return Route(deployment, model.served, model.meter, self.cache)  # type: ignore[arg-type]

    @rule(
        name=st.sampled_from("mn"),
        caller=st.sampled_from(CALLERS),
        first=st.integers(0, QUESTIONS - 1),
        long=st.booleans(),
        no_cache=st.booleans(),
    )
    def ask(self, name: str, caller: str, first: int, long: bool, no_cache: bool) -> None:
        async def work() -> None:
            values, route = [first, first + 1] if long else [first], self.routes[name]
            call = make_call(rows(*values), owner=caller, route=route)
            question = Question(call, name, caller, self.promoted[name], values)
            self.asked.append(question)
            call.answer.add_done_callback(lambda _done: self._over(question))  # type: ignore[attr-defined]
            request = make_request({b"cache-control": b"no-cache"} if no_cache else {})
            assert route.cache is not None
            route.cache.submit(call, request)
            await turn()

        self.do(work())

    def _over(self, question: Question) -> None:
        call = question.call
        if call.asked is None:
            return
        if call.asked.hit and question.asked not in self.said:
            self.strange.append(question)
        elif call.share is not None:
            self.said.add(question.asked)
        call.asked.end(call)

    def _waiting(self) -> list[Question]:
        return [one for one in self.asked if not one.call.answer.done()]

    @rule(number=st.integers(0, 2))
    def answer(self, number: int) -> None:
        if self.models[number].runner.running:
            self.do(self.models[number].answer())

    @rule(number=st.integers(0, 2))
    def fail(self, number: int) -> None:
        if self.models[number].runner.running:
            self.do(self.models[number].runner.fail("failed", "no"))

    @rule(number=st.integers(0, 2))
    def lose(self, number: int) -> None:
        model = self.models[number]

        async def work() -> None:
            if model.runner.running:
                model.runner.lose()
                await turn()
                model.served.batcher.detach(model.runner)
                model.runner = ByHand()
                model.served.batcher.attach(model.runner)
                await turn()

        self.do(work())

    @precondition(lambda self: self._waiting())
    @rule(data=st.data(), cancels=st.booleans(), late=st.booleans())
    def leave(self, data: st.DataObject, cancels: bool, late: bool) -> None:
        question = data.draw(st.sampled_from(self._waiting()))

        async def work() -> None:
            if cancels:  # as a server's end cancels the task that waits
                question.call.answer.cancel()  # type: ignore[attr-defined]
            else:
                question.call.route.served.batcher.leave(question.call)
                question.call.fail(Timeout() if late else ClientGone())
            await turn()

        self.do(work())

    @rule(name=st.sampled_from("mn"), number=st.integers(0, 2))
    def promote(self, name: str, number: int) -> None:
        async def work() -> None:
            self.promoted[name] = number
            self.routes[name] = self._routed(name, number)
            self.cache.retain({(name, f"v{number}") for name, number in self.promoted.items()})
            await turn()

        self.do(work())

    @rule(number=st.integers(0, 2))
    def find_wrong(self, number: int) -> None:
        self.models[number].served.mismatches += 1

    @rule(seconds=st.sampled_from([1.0, 20.0, TTL_S]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def everybody_has_their_own_rows(self) -> None:
        for one in self.asked:
            future = one.call.answer
            if future.done() and not future.cancelled() and future.exception() is None:  # type: ignore[attr-defined]
                response: Response = future.result()  # type: ignore[attr-defined]
                assert json.loads(response.body) == [[value + 1000 * one.version] for value in one.values]
        assert len(self.finished) == len({call.id for call in self.finished}), "nobody is written down twice"

    @invariant()
    def nobody_has_what_was_said_to_another_caller_or_for_another_deployment(self) -> None:
        assert not self.strange

    @invariant()
    def it_keeps_within_its_bound(self) -> None:
        memory = self.cache.memory
        assert memory.bytes == sum(entry.size for entry in memory._entries.values()) <= MOST_BYTES

    @invariant()
    def nothing_of_a_retired_version_is_kept(self) -> None:
        groups = {id(entry.group): entry.group for entry in self.cache.memory._entries.values()}
        assert not any(group.retired for group in groups.values())

    def teardown(self) -> None:
        async def work() -> None:
            for _ in range(500):
                for model in self.models:
                    if model.runner.running:
                        await model.answer()
                await turn()
            assert not self._waiting(), "somebody waits for ever"
            assert not self.cache.flights
            assert all(model.served.batcher.reading == 0 for model in self.models)

        if hasattr(self, "models"):
            self.do(work())
        self.runner.close()


TestCaching = Everybody.TestCase
TestCaching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

NAMES = st.text(max_size=4)
TENSORS = st.dictionaries(
    NAMES,
    arrays.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.bool_]), arrays.array_shapes(max_dims=3, max_side=3)),
    min_size=1,
    max_size=3,
)
QUESTION = st.tuples(st.binary(max_size=3), st.lists(st.binary(max_size=3), max_size=3), TENSORS)


def bits(tensors: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in tensors.items()}


@given(QUESTION, QUESTION)
def test_two_questions_have_one_key_only_if_they_are_one(one: Any, other: Any) -> None:
    same = (one[0], one[1], bits(one[2])) == (other[0], other[1], bits(other[2]))
    keys = [key_of(begun(*version), tenant, tensors) for tenant, version, tensors in (one, other)]
    assert (keys[0] == keys[1]) is same


@given(QUESTION, st.data())
def test_a_question_that_differs_in_one_thing_has_another_key(question: Any, data: st.DataObject) -> None:
    tenant, version, tensors = question
    key = key_of(begun(*version), tenant, tensors)
    assert key == key_of(begun(*version), tenant, {name: tensors[name].copy() for name in reversed(tensors)})
    assert key != key_of(begun(*version), tenant + b"x", tensors)
    assert key != key_of(begun(*version, b""), tenant, tensors)
    name = data.draw(st.sampled_from(sorted(tensors)))
    assert key != key_of(begun(*version), tenant, {**tensors, name: tensors[name][..., None]})
    array = tensors[name].copy()
    raw = bytearray(array.tobytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1
    turned = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    assert key != key_of(begun(*version), tenant, {**tensors, name: turned})


@given(st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3)), min_size=1, max_size=4), st.data())
def test_texts_run_into_one_another_never(texts: list[str | bytes], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3)), min_size=1, max_size=4))
    keys = [key_of(begun(), b"", {"x": np.array([*some, None], dtype=object)[:-1]}) for some in (texts, other)]
    assert (keys[0] == keys[1]) is (texts == other)


def test_what_has_no_bytes_of_its_own_has_no_key() -> None:
    assert key_of(begun(), b"", {"x": np.array([object()], dtype=object)}) is None


@given(st.lists(st.tuples(st.sampled_from("pgrt"), st.integers(0, 30), st.integers(0, 400)), max_size=60))
def test_memory_keeps_within_its_bound_and_gives_back_what_was_put_last(steps: list[tuple[str, int, int]]) -> None:
    now = [0.0]
    gone: list[tuple[str, int]] = []
    memory = Memory(20_000, clock=lambda: now[0], evicted=lambda reason, count: gone.append((reason, count)))
    group, put = Group(), 0
    last: dict[bytes, tuple[float, int]] = {}
    for what, number, length in steps:
        key = b"%d" % number
        match what:
            case "p":
                outputs = {"y": np.full(length, put)}
                size = size_of(outputs)
                kept = size <= memory.most_each
                put += kept
                memory.put(key, outputs, size, group)
                if kept:
                    last[key] = (now[0], put - 1)
                    assert memory.get(key, 100.0) is not None
            case "g":
                found = memory.get(key, 100.0)
                if found is not None:
                    at, value = last[key]
                    assert now[0] - at < 100.0
                    assert (found.outputs["y"] == value).all()
            case "r":
                if number == 0:
                    memory.retire(group)
                    assert (len(memory), memory.bytes) == (0, 0)
                    group = Group()
            case "t":
                now[0] += number
        assert memory.bytes <= 20_000
        assert len(group.keys) == len(memory)
    kept_once = put - len(memory) - sum(count for _reason, count in gone)
    assert kept_once >= 0


def test_what_was_used_least_lately_makes_room() -> None:
    memory = Memory(16 * 2000, clock=lambda: 0.0, evicted=lambda _reason, _count: None)
    outputs = {"y": np.zeros(100)}
    size, group = size_of(outputs), Group()
    most = memory.most_bytes // size
    for number in range(most):
        memory.put(b"%d" % number, dict(outputs), size, group)
    assert memory.get(b"0", 1.0) is not None
    memory.put(b"new", dict(outputs), size, group)
    assert memory.get(b"1", 1.0) is None
    assert memory.get(b"0", 1.0) is not None


OUTPUTS = {"y": np.zeros(100)}
SIZE = size_of(OUTPUTS)


class Sharing:
    """Deployments that keep answers of one size in one room for so many of them."""

    def __init__(self, room: int, deployments: int) -> None:
        self.now = 0.0
        self.memory = Memory(room * SIZE, clock=lambda: self.now, evicted=lambda _reason, _count: None)
        self.holders = [Holder() for _ in range(deployments)]
        self.groups = [Group(holder) for holder in self.holders]

    def put(self, whose: int, number: int) -> None:
        self.memory.put(b"%d/%d" % (whose, number), dict(OUTPUTS), SIZE, self.groups[whose])

    def has(self, whose: int, number: int) -> bool:
        return self.memory.get(b"%d/%d" % (whose, number), 1e9) is not None


def test_one_deployment_that_is_asked_much_pushes_out_its_own_answers_and_not_anothers() -> None:
    world = Sharing(100, 2)
    for number in range(40):
        world.put(1, number)
    for number in range(10_000):
        world.put(0, number)
    assert sum(world.has(1, number) for number in range(40)) == 40
    assert [holder.bytes for holder in world.holders] == [60 * SIZE, 40 * SIZE]
    assert all(world.has(0, number) for number in range(9_940, 10_000))
    for number in range(40, 100):
        world.put(1, number)
    assert [holder.bytes for holder in world.holders] == [50 * SIZE, 50 * SIZE], "each half of the room, where both want it"


def test_one_that_is_alone_has_all_the_room() -> None:
    world = Sharing(100, 2)
    for number in range(200):
        world.put(0, number)
    assert world.holders[0].bytes == 100 * SIZE


@pytest.mark.parametrize(("quiet_s", "left"), [(QUIET_S - 1, 40), (QUIET_S, 0)])
def test_what_nobody_asked_for_in_minutes_is_no_part_of_anybodys_share(quiet_s: float, left: int) -> None:
    world = Sharing(100, 2)
    for number in range(40):
        world.put(1, number)
    world.now = quiet_s
    for number in range(200):
        world.put(0, number)
    assert world.holders[1].bytes == left * SIZE


def test_to_be_asked_for_counts_as_much_as_to_be_new() -> None:
    world = Sharing(100, 2)
    for number in range(40):
        world.put(1, number)
    world.now = QUIET_S
    assert world.has(1, 7)
    for number in range(200):
        world.put(0, number)
    assert [number for number in range(40) if world.has(1, number)] == [7]


def test_of_its_own_the_longest_unused_goes_first_whichever_version_said_it() -> None:
    world = Sharing(20, 1)
    groups = [world.groups[0], Group(world.holders[0])]
    for number in range(20):
        world.now += 1
        world.groups[0] = groups[number % 2]
        world.put(0, number)
    world.now += 1
    assert world.has(0, 0)
    for number in range(20, 24):
        world.now += 1
        world.put(0, number)
    assert [number for number in range(24) if not world.has(0, number)] == [1, 2, 3, 4]
    world.memory.retire(groups[0])
    world.memory.retire(groups[1])
    assert (world.holders[0].bytes, world.holders[0].groups, world.memory._holders) == (0, {}, {})


@given(
    st.integers(20, 40),
    st.lists(st.tuples(st.sampled_from("ppppgrt"), st.integers(0, 3), st.integers(0, 30), st.integers(0, 200)), max_size=300),
)
def test_nobody_who_takes_less_than_their_part_loses_what_is_asked_for_to_another(
    room: int, steps: list[tuple[str, int, int, int]]
) -> None:
    now = [0.0]
    memory = Memory(room * 2000, clock=lambda: now[0], evicted=lambda _reason, _count: None)
    holders = [Holder() for _ in range(4)]
    groups = [Group(holder) for holder in holders]
    used: dict[bytes, float] = {}
    for what, whose, number, length in steps:
        key = b"%d/%d" % (whose, number)
        before = {other: entry.group.holder for other, entry in memory._entries.items()}
        match what:
            case "p":
                outputs = {"y": np.full(length, whose)}
                size = size_of(outputs)
                old = memory._entries[key].size if key in memory._entries else 0
                parts = {one: one.bytes + (size - old if one is groups[whose].holder else 0) for one in holders}
                memory.put(key, outputs, size, groups[whose])
                if size <= memory.most_each:
                    used[key] = now[0]
                    part = memory.most_bytes / sum(held > 0 for held in parts.values())
                    for other in before.keys() - memory._entries.keys() - {key}:
                        assert now[0] - used[other] >= QUIET_S or parts[before[other]] > part
            case "g":
                found = memory.get(key, 1e9)
                if found is not None:
                    used[key] = now[0]
                    assert (found.outputs["y"] == whose).all(), "an answer of another deployment"
            case "r" if number == 0:
                memory.retire(groups[whose])
                groups[whose] = Group(holders[whose])
            case "t":
                now[0] += length
        assert memory.bytes == sum(entry.size for entry in memory._entries.values()) <= memory.most_bytes
        for holder in holders:
            held = [entry.size for entry in memory._entries.values() if entry.group.holder is holder]
            assert (holder.bytes, holder in memory._holders) == (sum(held), bool(held))
            assert sum(len(group.keys) for group in holder.groups) == len(held)


async def test_a_million_retired_answers_go_some_and_some() -> None:
    memory = Memory(1 << 30, clock=lambda: 0.0, evicted=lambda _reason, _count: None)
    group = Group()
    for number in range(5000):
        memory.put(b"%d" % number, {}, 768, group)
    memory.retire(group)
    assert len(memory) == 5000 - 1024
    await turn()
    assert (len(memory), memory.bytes) == (0, 0)


async def test_no_one_may_write_into_a_kept_answer() -> None:
    memory = Memory(1 << 20, clock=lambda: 0.0, evicted=lambda _reason, _count: None)
    memory.put(b"k", {"y": np.zeros(3)}, 1000, Group())
    found = memory.get(b"k", 1.0)
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found.outputs["y"][0] = 1


@pytest.mark.parametrize("tenants", [1, 20])
async def test_repeated_inputs_are_found_in_seven_of_ten_requests_and_never_another_ones(tenants: int) -> None:
    """Requests as they come: few inputs make up most of them (Zipf, exponent 1.1, over 2,000 inputs a tenant)."""
    chance = random.Random(5)
    weights = [1 / rank**1.1 for rank in range(1, 2001)]
    cache = Cache(16 << 20)
    model = Model(1, lambda _finished, _run: None)
    route = Route(
        ServedDeployment("m", "v1", 1, DeploymentSettings(cache=Caching("on"))),
        model.served,  # type: ignore[arg-type]
        model.meter,  # type: ignore[arg-type]
        cache,
    )
    assert route.cache is not None
    requests = 10_000 if tenants == 1 else 30_000
    cross = 0
    for _ in range(requests):
        tenant, value = chance.randrange(tenants), chance.choices(range(2000), weights)[0]
        call = make_call(rows(value), owner=f"t{tenant}", route=route)
        call.write = lambda call, share: Response(200, json.dumps([call.owner, share.values("y")]).encode())
        route.cache.submit(call, make_request())
        if not call.done:
            (array,) = model.runner.runs[-1][0].values()
            await model.runner.give({"y": array * 10_000 + tenant})
        assert call.asked is not None
        call.asked.end(call)
        owner, values = json.loads(call.answer.result().body)  # type: ignore[attr-defined]
        cross += (owner, values) != (f"t{tenant}", [[value * 10_000 + tenant]])
    hits = model.meter.results.count("hit") / requests
    assert cross == 0
    assert hits > 0.7, f"{hits:.3f}"


# ---- single things, by hand


def routed(cache: Cache, model: Model, name: str = "m", **caching: Any) -> Route:
    deployment = ServedDeployment(name, "v1", 1, DeploymentSettings(cache=Caching("on", **caching)))
    return Route(deployment, model.served, model.meter, cache)  # type: ignore[arg-type]


def begin(route: Route, *values: int, **headers: str) -> Call:
    """Ask; whoever asks over HTTP ends what was asked once there is an answer, or none."""
    call = make_call(rows(*values), owner="ada", route=route)
    call.answer.add_done_callback(lambda _done: call.asked is None or call.asked.end(call))  # type: ignore[attr-defined]
    assert route.cache is not None
    route.cache.submit(call, make_request({name.encode(): value.encode() for name, value in headers.items()}))
    return call


@pytest.fixture
async def model() -> Model:
    return Model(1, lambda _finished, _run: None)


async def test_two_deployments_of_one_version_keep_answers_of_their_own(model: Model) -> None:
    cache = Cache(1 << 20)
    for name in "mn":
        begin(routed(cache, model, name), 5)
        await model.answer()
        await turn()
    assert (len(model.runner.runs), model.meter.results) == (2, ["miss", "miss"])


async def test_what_a_version_said_with_other_files_or_hooks_is_not_given_again(model: Model) -> None:
    cache = Cache(1 << 20)
    for digest in ("d" * 64, "e" * 64):
        spec = replace(model.served.version.spec, digest=digest)
        model.served.version = replace(model.served.version, spec=spec)
        begin(routed(cache, model), 5)
        await model.answer()
        await turn()
    assert model.meter.results == ["miss", "miss"]


async def test_only_so_many_wait_for_anothers_answer_and_the_next_one_asks_the_model(model: Model) -> None:
    route = routed(Cache(1 << 20, most_waiting=2), model)
    calls = [begin(route, 5) for _ in range(4)]
    await turn()
    assert model.served.batcher.waiting == 1
    while not all(call.done for call in calls):
        await model.answer()
        await turn()
    assert sorted(model.meter.results) == ["miss", "miss", "shared", "shared"]


async def test_who_waits_waits_for_the_first_one_and_for_no_later_one_who_will_have_the_model_asked(model: Model) -> None:
    route = routed(Cache(1 << 20), model)
    first = begin(route, 5)
    await turn()
    fresh, waiting = begin(route, 5, **{"cache-control": "no-cache"}), begin(route, 5)
    await model.answer()
    await turn()
    assert [one.done for one in (first, waiting, fresh)] == [True, True, False]
    await model.answer()
    assert fresh.done


class Shelf:
    """Answers that servers share, which nobody has yet; it knows what it was given."""

    def __init__(self) -> None:
        self.put_there: list[bytes] = []

    def get(self, _key: bytes, _told: object) -> bool:
        return False

    def put(self, key: bytes, _outputs: object, _ttl_s: float) -> None:
        self.put_there.append(key)


@pytest.mark.parametrize(("cost_ms", "shares"), [({"1": 2.0}, 1), ({"1": 1.99}, 0), ({}, 0)])
async def test_answers_are_shared_where_the_model_costs_as_much_as_to_ask(
    model: Model, cost_ms: dict[str, float], shares: int
) -> None:
    shelf = Shelf()
    model.served.version = replace(model.served.version, cost_ms=cost_ms)
    begin(routed(Cache(1 << 20, shared=shelf), model), 5)
    await model.answer()
    assert len(shelf.put_there) == shares


async def test_what_a_version_says_after_it_was_retired_is_kept_nowhere(model: Model) -> None:
    shelf = Shelf()
    cache = Cache(1 << 20, shared=shelf)
    model.served.version = replace(model.served.version, cost_ms={"1": 5.0})
    call = begin(routed(cache, model), 5)
    await turn()
    cache.retain(())
    await model.answer()
    assert call.done
    assert (len(cache.memory), shelf.put_there) == (0, [])


async def test_what_was_said_by_a_runner_that_was_found_wrong_meanwhile_is_not_kept(model: Model) -> None:
    cache = Cache(1 << 20)
    for wrong in ("", "It answers otherwise."):
        begin(routed(cache, model), 5)
        await turn()
        model.served.mismatches += not wrong
        model.served.golden.differs = wrong
        await model.answer()
        assert len(cache.memory) == 0


async def test_a_kept_answer_is_nobody_elses_memory(model: Model) -> None:
    cache = Cache(1 << 20)
    begin(routed(cache, model), 5)
    await turn()
    given = np.array([[7]])
    await model.runner.give({"y": given})
    given[0, 0] = 8
    call = begin(routed(cache, model), 5)
    assert json.loads(call.answer.result().body) == [[7]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("less", "kept"), [(0, 1), (1, 0)])
async def test_an_answer_may_take_a_sixteenth_of_the_room_and_no_more(model: Model, less: int, kept: int) -> None:
    cache = Cache(16 * size_of({"y": np.array([[7]])}) - less)
    begin(routed(cache, model), 5)
    await turn()
    await model.runner.give({"y": np.array([[7]])})
    assert len(cache.memory) == kept


async def test_an_end_that_is_said_twice_sends_one_to_the_model_and_not_two(model: Model) -> None:
    route = routed(Cache(1 << 20), model)
    first, *others = [begin(route, 5) for _ in range(3)]
    await turn()
    await model.runner.fail("failed", "no")
    assert first.asked is not None
    first.asked.end(first)
    await turn()
    assert (len(model.runner.runs), model.served.batcher.waiting) == (2, 0)
    await model.answer()
    await turn()
    assert all(one.done for one in others)


def test_keys_differ_in_each_single_thing() -> None:
    def of(tenant: bytes = b"", **tensors: Any) -> bytes | None:
        return key_of(begun(b"v"), tenant, tensors)

    zeros, long = np.zeros(2, np.int64), np.zeros(20_000, np.int64)
    other = long.copy()
    other[-1] = 1
    turned = np.arange(20_000.0).reshape(100, 200).T
    texts = [
        np.array(one, dtype=object) for one in (["ab", "c"], ["a", "bc"], ["abt", "c"], ["ab", "tc"], [None, "c"], ["", "c"])
    ]
    keys = [
        *(of(x=zeros), of(y=zeros), of(x=zeros.astype(np.float64)), of(x=zeros.view(np.uint64)), of(b"x", x=zeros)),
        *(of(x=long), of(x=other), of(x=turned), *(of(x=one) for one in texts), of(x=np.array([None, None, "c"], object)[1:])),
    ]
    assert len(set(keys)) == len(keys) - 1, "the last is one of those before, but for where it lies"
    assert of(x=turned) == of(x=turned.copy())
    assert of(x=np.array(["\ud800"], dtype=object)) is not None
    assert of(x=np.array(["a", None], dtype=object)) != of(x=np.array(["a", "n"], dtype=object))


def test_a_tenant_runs_into_nothing() -> None:
    tensors = {"x": np.zeros(1)}
    head = repr(("x", "<f8", (1,))).encode()
    glued = b"t" + len(head).to_bytes(8, "little") + head
    assert key_of(begun(), b"t", tensors) != key_of(begun(), glued, {})
    assert key_of(begun(b"v"), b"t", {}) != key_of(begun(b"v", b"t"), b"", {})
