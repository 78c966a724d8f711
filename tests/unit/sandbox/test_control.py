"""Channels carry whole messages and their descriptors, and say when the other side is gone."""

import asyncio
import os
import socket

import pytest

from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox.control import Channel, ChannelClosed, Drain, Exited, Fork, Inbox, Started, pack

FORK = Fork("runner-1", RunnerSpec("ver_1", "ab" * 32, 10, "onnx", "onnx"))


@pytest.fixture
async def ends():
    near, far = socket.socketpair()
    left, right = Channel(near), Channel(far)
    yield left, right
    left.close()
    right.close()


async def test_messages_arrive_whole_and_in_order(ends):
    left, right = ends
    sent = [Started(), FORK, Drain(), Exited("runner-1", -9, 5)]
    for message in sent:
        left.send(message)
    assert [(await right.receive())[0] for _ in sent] == sent


async def test_descriptors_arrive_with_their_message(ends):
    left, right = ends
    read, write = os.pipe()
    left.send(Started())
    left.send(FORK, [write])
    os.close(write)
    assert (await right.receive())[1] == []
    _message, (arrived,) = await right.receive()
    os.write(arrived, b"through")
    os.close(arrived)
    assert os.read(read, 10) == b"through"
    os.close(read)


async def test_a_message_larger_than_the_sockets_buffer_arrives(ends):
    left, right = ends
    large = Exited("x" * 3_000_000, 0, 0)
    left.send(large)
    left.send(Drain())
    assert (await right.receive())[0] == large
    assert (await right.receive())[0] == Drain()


async def test_the_end_of_the_other_side_is_heard_while_waiting(ends):
    left, right = ends
    waiting = asyncio.create_task(right.receive())
    await asyncio.sleep(0)
    left.close()
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)


async def test_closing_a_channel_wakes_who_waits_for_it(ends):
    left, _right = ends
    waiting = asyncio.create_task(left.receive())
    await asyncio.sleep(0)
    left.close()
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)


async def test_nothing_is_sent_on_a_closed_channel(ends):
    left, _right = ends
    left.close()
    with pytest.raises(ChannelClosed):
        left.send(Started())


def test_an_inbox_closes_descriptors_that_nobody_claimed():
    near, far = socket.socketpair()
    read, write = os.pipe()
    with near, far:
        data = pack(FORK, [write])
        socket.send_fds(near, [data[:4]], [write])  # the message itself never comes
        os.close(write)
        inbox = Inbox()
        assert inbox.receive(far) == []
        inbox.close()
        assert os.read(read, 1) == b""  # the last writing end is closed
    os.close(read)
