"""Answers that servers share: found by another server, and whatever else lies in the store is refused and harms nobody."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fixtures.calling import turn
from modelkeep.contracts.snapshot import Caching, DeploymentSettings
from modelkeep.serving.cache_shared import LARGEST, SharedAnswers

KEY = b"k" * 32
PREDICT = "/api/v1/predict/m"
ROWS = {"inputs": [[1, 2]]}


class Shelf:
    """A store by hand: it answers at once, or when it is told to."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.asked: list[tuple[str, Callable[[bytes | None], None]]] = []
        self.slow = False
        self.away = False

    def get(self, name: str, told: Callable[[bytes | None], None]) -> bool:
        if self.away:
            return False
        self.asked.append((name, told))
        if not self.slow:
            asyncio.get_running_loop().call_soon(told, self.values.get(name))
        return True

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        assert ttl_s == 3600.0
        self.values[name] = value


def shared(shelf: Shelf, **more: Any) -> SharedAnswers:
    return SharedAnswers(shelf, b"s" * 32, **more)


async def got(answers: SharedAnswers, key: bytes = KEY) -> tuple[Any, float]:
    found: list[tuple[Any, float]] = []
    assert answers.get(key, lambda outputs, age_s: found.append((outputs, age_s)))
    await turn()
    (one,) = found
    return one


OUTPUTS = st.dictionaries(
    st.text(max_size=5),
    st.one_of(
        arrays.arrays(
            st.sampled_from([np.bool_, np.int8, np.uint64, np.float16, np.float32, np.float64]),
            arrays.array_shapes(min_side=0, max_dims=3, max_side=3),
        ),
        st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3)), max_size=3).map(
            lambda some: np.array([*some, None], dtype=object)[:-1]
        ),
    ),
    max_size=3,
)


@given(OUTPUTS)
def test_an_answer_comes_back_as_it_was(outputs: dict[str, Any]) -> None:
    async def work() -> None:
        now = [1000.0]
        answers = shared(Shelf(), clock=lambda: now[0])
        answers.put(KEY, outputs, 3600.0)
        now[0] += 7.0
        found, age_s = await got(answers)
        assert age_s == 7.0
        assert list(found) == list(outputs)
        for name, array in outputs.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            if array.dtype.hasobject:
                assert found[name].tolist() == array.tolist()
            else:
                assert found[name].tobytes() == array.tobytes()

    asyncio.run(work())


@given(st.data())
def test_whatever_else_lies_there_is_refused(data: st.DataObject) -> None:
    async def work() -> None:
        shelf, refused = Shelf(), []
        answers = shared(shelf, refused=lambda: refused.append(1))
        answers.put(KEY, {"y": np.arange(4.0)}, 3600.0)
        ((name, value),) = shelf.values.items()
        kind = data.draw(st.sampled_from(["turned", "cut", "longer", "made up"]))
        if kind == "turned":
            raw = bytearray(value)
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            shelf.values[name] = bytes(raw)
        elif kind == "cut":
            shelf.values[name] = value[: data.draw(st.integers(0, len(value) - 1))]
        elif kind == "longer":
            shelf.values[name] = value + data.draw(st.binary(min_size=1, max_size=4))
        else:
            shelf.values[name] = data.draw(st.binary(max_size=100))
        assert (await got(answers))[0] is None
        assert refused == [1]

    asyncio.run(work())


@given(
    st.recursive(st.one_of(st.none(), st.floats(), st.text(max_size=3), st.binary(max_size=9), st.integers(-9, 9)), st.lists)
)
def test_even_what_is_sealed_as_ours_must_be_an_answer(inside: Any) -> None:
    """A server of another release, or one that errs, may have sealed it."""

    async def work() -> None:
        shelf = Shelf()
        answers = shared(shelf)
        answers.put(KEY, {}, 3600.0)
        ((name, _value),) = shelf.values.items()
        for raw in (msgspec.msgpack.encode(inside), msgspec.msgpack.encode([1.0, [inside]])):
            shelf.values[name] = b"n" * 12 + answers._seal.encrypt(b"n" * 12, raw, b"modelkeep answer 1 " + KEY)
            found, _age_s = await got(answers)
            assert found is None or found == {}

    asyncio.run(work())


async def test_an_answer_under_another_name_is_none() -> None:
    shelf = Shelf()
    answers = shared(shelf)
    answers.put(KEY, {"y": np.arange(4.0)}, 3600.0)
    answers.put(b"o" * 32, {"y": np.arange(5.0)}, 3600.0)
    (one, two) = shelf.values
    shelf.values[one], shelf.values[two] = shelf.values[two], shelf.values[one]
    assert (await got(answers))[0] is None
    assert KEY.hex() not in "".join(shelf.values)


async def test_servers_with_another_secret_share_nothing() -> None:
    shelf = Shelf()
    shared(shelf).put(KEY, {"y": np.arange(4.0)}, 3600.0)
    assert (await got(SharedAnswers(shelf, b"t" * 32)))[0] is None


async def test_a_large_answer_is_not_shared() -> None:
    shelf = Shelf()
    shared(shelf).put(KEY, {"y": np.zeros(LARGEST // 8)}, 3600.0)
    assert not shelf.values


@pytest.fixture
async def slow(house, monkeypatch):
    """A house whose model is slow, so that others are asked; each `server()` is one that knows nothing yet."""
    runs: list[Any] = []

    def compute(inputs: Any) -> Any:
        (array,) = inputs.values()
        if array.any():
            runs.append(array.tolist())
        return {"sum": array.sum(axis=1), "echo": array}

    shelf = Shelf()
    house.cache.shared = shared(shelf)
    house.settings["m"] = DeploymentSettings(cache=Caching("on"))
    await house.serve("m", compute=compute)

    def forget() -> None:
        house.cache._retire(("m", "m-1"))
        route = house.router.find("m")
        deployment = house.router._deployments["m"]
        route.cache = house.cache.route(deployment, route.served, route.meter)
        route.cache.shared = house.cache.shared

    forget()
    return SimpleNamespace(
        house=house, shelf=shelf, runs=runs, forget=forget, ask=lambda **more: house.client.post(PREDICT, json=ROWS, **more)
    )


async def test_another_server_finds_an_answer(slow) -> None:
    assert (await slow.ask()).headers["x-cache"] == "miss"
    slow.forget()
    found = await slow.ask()
    assert (found.headers["x-cache"], found.json()["outputs"]["sum"]) == ("hit", [3.0])
    assert len(slow.shelf.asked) == 2
    assert (await slow.ask()).headers["x-cache"] == "hit"
    assert (len(slow.shelf.asked), len(slow.runs)) == (2, 1)


async def test_all_who_wait_get_what_another_server_kept(slow) -> None:
    await slow.ask()
    slow.forget()
    slow.shelf.slow = True
    asked = [asyncio.create_task(slow.ask()) for _ in range(5)]
    while slow.house.router.find("m").underway.count < 5:
        await asyncio.sleep(0)
    name, told = slow.shelf.asked[-1]
    told(slow.shelf.values[name])
    assert [(await one).json()["outputs"]["sum"] for one in asked] == [[3.0]] * 5
    assert len(slow.runs) == 1
    assert slow.house.router.find("m").served.batcher.reading == 0


@pytest.mark.parametrize("value", [None, b"", b"poison", b"\x00" * 5000])
async def test_what_is_no_answer_costs_a_run_and_nothing_else(slow, value: bytes | None) -> None:
    await slow.ask()
    slow.forget()
    (name,) = slow.shelf.values
    if value is None:
        del slow.shelf.values[name]
    else:
        slow.shelf.values[name] = value
    again = await slow.ask()
    assert (again.status_code, again.headers["x-cache"], again.json()["outputs"]["sum"]) == (200, "miss", [3.0])
    assert len(slow.runs) == 2
    slow.shelf.away = True
    slow.forget()
    assert (await slow.ask()).status_code == 200


async def test_an_answer_of_too_few_rows_is_none(slow) -> None:
    await slow.ask()
    slow.forget()
    short = {"sum": np.zeros(0), "echo": np.zeros((0, 2))}
    answers = slow.house.cache.shared
    real = answers.get
    answers.get = lambda key, told: real(key, lambda _outputs, _age_s: told(short, 1.0))
    assert (await slow.ask()).json()["outputs"]["sum"] == [3.0]
    assert len(slow.runs) == 2


async def test_one_who_leaves_while_others_are_asked_leaves_the_rest_their_answer(slow) -> None:
    slow.shelf.slow = True
    hasty = asyncio.create_task(slow.ask(headers={"x-request-timeout": "0.05"}))
    while not slow.shelf.asked:
        await asyncio.sleep(0)
    patient = asyncio.create_task(slow.ask())
    assert (await hasty).status_code == 504
    assert (await patient).json()["outputs"]["sum"] == [3.0]
    slow.shelf.asked[0][1](None)
    await turn()
    assert slow.house.router.find("m").served.batcher.reading == 0
    assert not slow.house.cache.flights


async def test_a_fast_model_asks_nobody(slow) -> None:
    slow.house.router.find("m").cache.shared = None
    await slow.ask()
    assert not slow.shelf.asked


async def test_who_wants_no_kept_answer_gets_none_of_another_server_either(slow) -> None:
    await slow.ask()
    slow.forget()
    assert (await slow.ask(headers={"cache-control": "no-cache"})).headers["x-cache"] == "miss"
    assert (len(slow.shelf.asked), len(slow.runs)) == (1, 2)


@pytest.mark.parametrize(
    ("age_s", "control", "said"),
    [
        (3599.0, "", "hit"),
        (3600.0, "", "miss"),
        (3600.0, "max-age=9999", "miss"),
        (59.0, "max-age=60", "hit"),
        (60.0, "max-age=60", "miss"),
    ],
)
async def test_an_answer_of_another_server_is_as_old_as_it_is(slow, age_s: float, control: str, said: str) -> None:
    await slow.ask()
    slow.forget()
    real = slow.house.cache.shared.get
    slow.house.cache.shared.get = lambda key, told: real(key, lambda outputs, _age_s: told(outputs, age_s))
    found = await slow.ask(headers={"cache-control": control})
    assert found.headers["x-cache"] == said
    if said == "hit":
        assert found.headers["age"] == f"{age_s:.0f}"
        assert float((await slow.ask()).headers["age"]) >= age_s, "it goes on to age here"


async def test_an_answer_without_outputs_is_none(slow) -> None:
    await slow.ask()
    slow.forget()
    real = slow.house.cache.shared.get
    slow.house.cache.shared.get = lambda key, told: real(key, lambda _outputs, _age_s: told({}, 1.0))
    assert (await slow.ask()).json()["outputs"]["sum"] == [3.0]
