"""The two ends of a runner's channel: what is sent arrives whole, in whatever pieces, by copy or by shared memory."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelkeep.sandbox import frames, wire
from modelkeep.sandbox.connection import RunnerConnection

BIG = frames.SHARED_FROM + 8


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Ends:
    """A connection as serving has it, and the socket as a runner reads it."""

    def __init__(self, connection: RunnerConnection, far: socket.socket) -> None:
        self.connection = connection
        self.far = far
        self.inbox = wire.Inbox(far)

    async def arrives(self) -> tuple[frames.Message, dict[str, np.ndarray]]:
        received: list = []
        while not received:
            found = await asyncio.to_thread(self.inbox.read)
            assert found is not None
            received += found
        ((message, tensors),) = received
        return message, tensors


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    near, far = socket.socketpair()
    both = Ends(await RunnerConnection.open(near.detach()), far)
    yield both
    both.inbox.close()
    both.connection.close()
    await both.connection.closed


TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=5),
    arrays.arrays(st.sampled_from(["f4", "f8", "i8", "u1", "?"]), arrays.array_shapes(max_dims=3, max_side=9)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40)
@given(tensors=TENSORS, grown=st.sets(st.integers(0, 3)))
async def test_whatever_is_sent_arrives(tensors: dict[str, np.ndarray], grown: set[int]) -> None:
    for at, name in enumerate(tensors):
        if at in grown:
            tensors[name] = np.resize(tensors[name], (BIG, 2))
    near, far = socket.socketpair()
    both = Ends(await RunnerConnection.open(near.detach()), far)
    both.connection.run(tensors)
    _message, arrived = await both.arrives()
    both.inbox.close()
    both.connection.close()
    assert arrived.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(arrived[name], array)
        assert arrived[name].dtype == array.dtype


async def test_large_tensors_go_as_memory_that_nobody_else_can_change_and_small_ones_inline(ends: Ends) -> None:
    before = descriptors()
    pieces, fd = frames.encode_run(1, {"big": np.zeros(BIG, "u1"), "small": np.ones(3), "text": np.array(["ż" * BIG], object)})
    assert fd is not None
    assert sum(map(len, pieces)) < 1000
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)
    assert frames.encode_run(1, {"small": np.ones(3)})[1] is None
    assert descriptors() == before


async def test_a_model_may_write_to_its_inputs(ends: Ends) -> None:
    sent = np.zeros(BIG, "u1")
    ends.connection.run({"x": sent})
    _message, arrived = await ends.arrives()
    arrived["x"][:] = 7
    assert arrived["x"].sum() == 7 * BIG
    assert not sent.any()


async def test_texts_and_pictures_of_any_size_arrive(ends: Ends) -> None:
    sent = np.array([b"\xff" * BIG, "ż" * BIG, None, ""], object)
    ends.connection.run({"x": sent})
    _message, arrived = await ends.arrives()
    assert arrived["x"].tolist() == sent.tolist()


async def test_frames_keep_their_order_and_their_memory_while_the_reader_is_slow(ends: Ends) -> None:
    before = descriptors()
    sizes = [3, BIG, 200_000, 5, BIG * 3, 1]
    for size in sizes:
        ends.connection.run({"x": np.full(size, size % 251, "u1"), "y": np.zeros(40_000, "u1")})
    arrived: list = []
    while len(arrived) < len(sizes):
        arrived += await asyncio.to_thread(ends.inbox.read)
    assert [len(tensors["x"]) for _message, tensors in arrived] == sizes
    assert all((tensors["x"] == len(tensors["x"]) % 251).all() for _message, tensors in arrived)
    arrived.clear()
    async with asyncio.timeout(10):
        while descriptors() != before:  # the thread that read lets go of its last result a moment later
            await asyncio.sleep(0.01)


async def test_what_could_not_be_sent_any_more_leaves_no_descriptor_behind() -> None:
    before = descriptors()
    near, far = socket.socketpair()
    connection = await RunnerConnection.open(near.detach())
    answers = [connection.run({"x": np.zeros(BIG, "u1"), "y": np.zeros(60_000, "u1")}) for _ in range(20)]
    connection.close()
    far.close()
    assert all(answer.exception() is not None for answer in answers)
    assert descriptors() == before


async def test_memory_that_is_promised_and_does_not_come_is_a_fault(ends: Ends) -> None:
    pieces, fd = frames.encode_run(1, {"x": np.zeros(BIG, "u1")})
    assert fd is not None
    os.close(fd)
    other, far = socket.socketpair()
    other.sendall(b"".join(pieces))
    with pytest.raises(frames.FrameError, match="without shared memory"):
        wire.Inbox(far).read()
    other.close()
    far.close()


@pytest.mark.parametrize("size", [1, 4096])
async def test_memory_smaller_than_its_tensors_is_a_fault(ends: Ends, size: int) -> None:
    pieces, fd = frames.encode_run(1, {"x": np.zeros(BIG, "u1")})
    assert fd is not None
    os.close(fd)
    small = os.memfd_create("small")
    os.ftruncate(small, size)
    other, far = socket.socketpair()
    socket.send_fds(other, [b"".join(pieces)], [small])
    os.close(small)
    inbox = wire.Inbox(far)
    with pytest.raises(frames.FrameError, match="cannot be mapped"):
        inbox.read()
    other.close()
    inbox.close()


async def test_the_end_of_the_stream_is_told(ends: Ends) -> None:
    ends.connection.close()
    assert await asyncio.to_thread(ends.inbox.read) is None


@given(st.binary(max_size=64))
def test_no_bytes_are_too_odd_for_a_frame_or_a_fault(data: bytes) -> None:
    near, far = socket.socketpair()
    near.sendall(b"\x10\0\0\0" + data)
    near.close()
    inbox = wire.Inbox(far)
    try:
        while inbox.read() is not None:
            pass
    except frames.FrameError:
        pass
    finally:
        inbox.close()
