"""The near end of a runner's socket: answers by their id, and a runner that is gone or speaks nonsense is told as such."""

import asyncio
import socket
from collections.abc import AsyncIterator

import numpy as np
import pytest
import uvloop

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import ModelFacts
from modelkeep.contracts.signature import Signature
from modelkeep.sandbox import frames, wire
from modelkeep.sandbox.connection import RunnerConnection, RunnerGone

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

LOADED = frames.Loaded(ModelFacts(Signature(()), "fake", "1"), 0.5, 1, 2)
ROWS = {"x": np.arange(6.0).reshape(3, 2)}


class Far:
    """The runner's end, by hand."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._inbox = wire.Inbox(sock)
        self._received: list[tuple[frames.Message, dict]] = []

    async def send(self, message: frames.Message, tensors: dict | None = None) -> None:
        await self.raw(b"".join(frames.encode(message, tensors)))

    async def raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self) -> tuple[frames.Message, dict]:
        while not self._received:
            try:
                received = self._inbox.read()
            except BlockingIOError:
                await _readable(self.sock)
                continue
            assert received is not None, "the near end has closed"
            self._received += received
        return self._received.pop(0)


async def _readable(sock: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    await ready.wait()
    loop.remove_reader(sock)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[RunnerConnection, Far]]:
    near, far = socket.socketpair()
    connection = await RunnerConnection.open(near.detach())
    yield connection, Far(far)
    far.close()
    connection.close()
    await connection.closed


async def test_the_first_message_says_that_the_model_is_loaded_or_why_not(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    await far.send(LOADED)
    assert await connection.loaded == LOADED


async def test_a_refusal_to_load_is_an_answer_not_an_error(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    failed = frames.LoadFailed(Reason.CORRUPT, "the digest differs")
    await far.send(failed)
    assert await connection.loaded == failed


async def test_a_run_goes_out_whole_and_its_answer_comes_back(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    running = connection.run(ROWS)
    message, tensors = await far.receive()
    assert isinstance(message, frames.Run)
    np.testing.assert_array_equal(tensors["x"], ROWS["x"])
    await far.send(frames.Result(message.id, 0.25), {"y": np.ones(3)})
    result, outputs = await running
    assert isinstance(result, frames.Result)
    assert (result.run_s, outputs["y"].tolist()) == (0.25, [1, 1, 1])


async def test_answers_find_their_runs_by_id_in_any_order(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    running = [connection.run({"x": np.array([at])}) for at in range(5)]
    asked = [await far.receive() for _ in range(5)]
    assert len({message.id for message, _tensors in asked}) == 5
    for message, tensors in reversed(asked):
        await far.send(frames.Result(message.id, 0.0), {"y": tensors["x"] * 10})
    assert [(await one)[1]["y"].tolist() for one in running] == [[0], [10], [20], [30], [40]]


async def test_a_failed_run_is_an_answer_too(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    running = connection.run(ROWS)
    message, _tensors = await far.receive()
    await far.send(frames.RunFailed(message.id, "refused", "no", 2))
    assert (await running)[0] == frames.RunFailed(message.id, "refused", "no", 2)


async def test_a_run_larger_than_any_buffer_passes_both_ways(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    running = connection.run({"x": np.arange(2_000_000)})
    message, tensors = await far.receive()
    await far.send(frames.Result(message.id, 0.0), {"y": tensors["x"]})
    assert (await running)[1]["y"][-1] == 1_999_999


async def test_an_answer_nobody_waits_for_any_more_is_dropped(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    left, kept = connection.run(ROWS), connection.run(ROWS)
    left.cancel()
    for _ in range(2):
        message, _tensors = await far.receive()
        await far.send(frames.Result(message.id, 0.0))
    await kept


async def test_when_the_runner_goes_everyone_is_told(pair: tuple[RunnerConnection, Far]) -> None:
    connection, far = pair
    running = [connection.run(ROWS) for _ in range(3)]
    far.sock.close()
    for one in running:
        with pytest.raises(RunnerGone) as gone:
            await one
        assert not gone.value.protocol_error
    with pytest.raises(RunnerGone):
        await connection.loaded
    assert isinstance(await connection.closed, RunnerGone)
    with pytest.raises(RunnerGone):
        connection.run(ROWS)


async def test_closing_from_this_side_tells_everyone_too(pair: tuple[RunnerConnection, Far]) -> None:
    connection, _far = pair
    running = connection.run(ROWS)
    connection.close()
    with pytest.raises(RunnerGone):
        connection.run(ROWS)
    with pytest.raises(RunnerGone):
        await running


def whole(message: frames.Message, tensors: dict | None = None) -> bytes:
    return b"".join(bytes(piece) for piece in frames.encode(message, tensors))


NONSENSE = {
    "no frame at all": b"\x04\x00\x00\x00abcd",
    "a length over the cap": b"\xff\xff\xff\xff",
    "an answer to a run that was not asked for": whole(frames.Result(99, 0.0)),
    "an answer twice": whole(frames.Result(1, 0.0)) * 2,
    "loaded twice": whole(LOADED) * 2,
    "loaded after all": whole(frames.LoadFailed(Reason.CORRUPT, "")) + whole(LOADED),
    "a run, from a runner": whole(frames.Run(1)),
    "trailing bytes": b"\x06\x00\x00\x00" + whole(LOADED)[4:10],
    "an impossible shape": whole(frames.Result(1, 0.0, tensors=(frames.TensorHead("y", "FP64", (2**62, 4, 0), 0),))),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", NONSENSE)
async def test_nonsense_ends_the_connection_and_names_itself(pair: tuple[RunnerConnection, Far], case: str) -> None:
    connection, far = pair
    running = connection.run(ROWS)
    await far.raw(NONSENSE[case])
    gone = await asyncio.wait_for(connection.closed, 5)
    assert gone.protocol_error
    if not running.done() or running.exception() is not None:
        with pytest.raises(RunnerGone) as lost:
            await running
        assert lost.value.protocol_error == gone.protocol_error


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_kinds_of_event_loop_can_run_it(factory) -> None:
    async def scenario() -> None:
        near, far = socket.socketpair()
        connection = await RunnerConnection.open(near.detach())
        other = Far(far)
        running = connection.run(ROWS)
        message, tensors = await other.receive()
        await other.send(frames.Result(message.id, 0.0), {"y": tensors["x"]})
        assert (await running)[1]["y"].tolist() == ROWS["x"].tolist()
        await other.raw(b"\xff\xff\xff\xff")
        assert (await connection.closed).protocol_error
        with pytest.raises(RunnerGone):
            connection.run(ROWS)
        far.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


async def test_a_frame_over_the_cap_is_not_sent_and_leaves_the_connection_sound(
    pair: tuple[RunnerConnection, Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, far = pair
    monkeypatch.setattr(frames, "MAX_FRAME", 1000)
    with pytest.raises(frames.FrameError):
        connection.run({"x": np.zeros(1000)})
    running = connection.run({"x": np.zeros(10)})
    message, _tensors = await far.receive()
    await far.send(frames.Result(message.id, 0.0))
    await running
