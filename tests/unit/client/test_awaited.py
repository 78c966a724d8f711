"""The client that is awaited: the same methods as the one that blocks, against the same server."""

import asyncio
import inspect
import threading

import numpy as np
import pytest

from fixtures.flaky import flaky_server
from fixtures.standin import KEY, TOKEN
from modelkeep.client import AsyncClient, Client, Invalid, NotFound, Rejected, TimedOut

PUBLIC = sorted(name for name in vars(Client) if not name.startswith("_"))
METHODS = [name for name in PUBLIC if name not in {"url", "close"}]


@pytest.fixture
async def awaited(standin):
    async with AsyncClient(standin.url, KEY, timeout=5) as client:
        yield client


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def test_both_have_the_same_methods():
    assert sorted(name for name in vars(AsyncClient) if not name.startswith("_")) == PUBLIC
    assert len(METHODS) > 30


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_and_says_the_same_in_both(name):
    one, other = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(one) == inspect.signature(other)
    assert next(iter(inspect.signature(one).parameters)) == "self"
    assert one.__doc__
    assert one.__doc__ == other.__doc__
    assert not inspect.iscoroutinefunction(one)
    assert inspect.iscoroutinefunction(other)


def test_both_are_made_with_the_same_words():
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


def test_a_method_says_its_result_and_hides_its_steps():
    said = str(inspect.signature(Client("http://127.0.0.1:1").models))
    assert (
        said == "(*, archived: bool = False, trashed: bool = False, search: str = '') -> list[modelkeep.client.results.Model]"
    )


async def test_a_walk_awaited(awaited, standin, file, tmp_path):
    states, seen = [], []
    version = await awaited.push(
        file,
        "churn",
        on_state=lambda one: states.append(one.state),
        on_progress=lambda done, total: seen.append((done, total, threading.current_thread())),
    )
    assert (version.number, version.state) == (1, "ready")
    assert states[-1] == "ready"
    assert standin.files[version.id] == file.read_bytes()
    assert seen[-1][:2] == (file.stat().st_size,) * 2
    assert {thread for *_, thread in seen} == {threading.main_thread()}
    answer = await awaited.predict("churn", np.zeros((3, 2)))
    assert answer.outputs["probabilities"].shape == (3, 2)
    assert len(await awaited.models()) == 1
    assert (await awaited.describe("churn", "who leaves?")).description == "who leaves?"
    path = await awaited.download("churn", 1, tmp_path / "copy.onnx")
    assert path.read_bytes() == file.read_bytes()
    assert (await awaited.promote("churn", 1)).version == 1
    key = await awaited.create_key("nightly", ["predict"])
    await awaited.revoke_key(key.id)
    assert await awaited.keys() == []
    assert (await awaited.health())["status"] == "ok"
    assert (await awaited.archive("churn")).archived_at


async def test_errors_are_the_same(awaited, standin, tmp_path):
    with pytest.raises(NotFound):
        await awaited.model("nowhere")
    with pytest.raises(Invalid, match="There is no file"):
        await awaited.push("nowhere.onnx", "churn")
    broken = tmp_path / "model.joblib"
    broken.write_bytes(b"broken")
    with pytest.raises(Rejected, match="Save the model again"):
        await awaited.push(broken, "churn")
    async with AsyncClient(standin.url) as nobody:
        assert (await nobody.setup(TOKEN)).secret == KEY


async def test_an_upload_is_sent_once_more_when_the_connection_breaks(awaited, standin, file):
    standin.lose_uploads = 1
    assert (await awaited.push(file, "churn", wait=False)).number == 1
    assert len({upload["key"] for upload in standin.uploads}) == 1
    assert len(standin.uploads) == 2


async def test_others_go_on_while_one_waits(awaited, standin, file):
    standin.validation = 0.5
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await awaited.push(file, "churn")
    ticking.cancel()
    assert ticks > 10


async def test_waiting_can_be_cancelled_and_the_client_used_again(awaited, standin, file):
    standin.validation = 60
    waiting = asyncio.create_task(awaited.push(file, "churn"))
    while not standin.uploads:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await awaited.version("churn", 1)).state == "received"
    with pytest.raises(TimedOut):
        await awaited.wait_ready("churn", 1, timeout=0)


@pytest.mark.parametrize("rows", [np.arange(20).reshape(10, 2), [[n, n] for n in range(10)], {"a": list(range(10))}])
async def test_many_rows_go_in_pieces_and_come_back_in_order(awaited, client, standin, file, rows):
    await awaited.push(file, "churn")
    for answers in (await awaited.predict_many("churn", rows, chunk=3), client.predict_many("churn", rows, chunk=3)):
        assert [len(one.outputs["label"]) for one in answers] == [3, 3, 3, 1]
    sent = sorted(str(one["inputs"]) for one in standin.predictions[:4])
    assert sent == sorted(str(one["inputs"]) for one in standin.predictions[4:])


async def test_an_endless_iterator_is_read_only_as_far_as_it_is_needed(awaited, client, file):
    await awaited.push(file, "churn")
    taken = []

    def rows():
        for number in range(10**9):
            taken.append(number)
            yield [1, "a"] if number == 20 else [1, 2]

    with pytest.raises(Invalid):
        await awaited.predict_many("churn", rows(), chunk=10, at_once=2)
    assert len(taken) < 1000
    taken.clear()
    with pytest.raises(Invalid):
        client.predict_many("churn", rows(), chunk=10, at_once=2)
    assert len(taken) < 1000


async def test_what_a_callers_iterator_raises_is_what_they_get(awaited, client, file):
    await awaited.push(file, "churn")

    def rows():
        yield [1, 2]
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await awaited.predict_many("churn", rows(), chunk=1)
    with pytest.raises(LookupError, match="mine"):
        client.predict_many("churn", rows(), chunk=1)


@pytest.mark.parametrize("awaits", [False, True])
async def test_so_many_requests_are_under_way_as_were_asked_for(awaits):
    with flaky_server() as flaky:
        flaky.together = threading.Barrier(4, timeout=10)
        rows = ([1, 2] for _ in range(12))
        if awaits:
            async with AsyncClient(flaky.url, retries=0) as client:
                answers = await client.predict_many("d", rows, chunk=1, at_once=4)
        else:
            with Client(flaky.url, retries=0) as client:
                answers = client.predict_many("d", rows, chunk=1, at_once=4)
        assert len(answers) == 12
