"""The control channel over real sockets: messages and descriptors in order, whatever the pieces, and nothing left open."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.runner import Column
from modelkeep.contracts.signature import Dtype
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import control
from modelkeep.sandbox.control import Channel, ChannelClosed, Inbox, pack

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

SPEC = RunnerSpec("ver_1", "d" * 64, 1, "onnx", "fake")
EVERY: list[control.Message] = [
    control.Configure(b'{"data": "x"}'),
    control.Started(),
    control.Want((control.Wanted(SPEC), control.Wanted(SPEC, 3))),
    control.Leave("runner-1"),
    control.Attach(),
    control.Inspect("t1", SPEC, (Column("a", Dtype.FP64),)),
    control.Kill("r1", control.Cause.DEADLINE),
    control.Connected("r1", 7, "ver_1", "t1"),
    control.Gone("r1", "ver_1", control.Cause.SIGNAL, "it was ended by SIGSEGV", "stderr", "t1"),
    control.Held("ver_1", 60.0, "again"),
    control.Drain(),
    control.Fork("r1", SPEC),
    control.Forked("r1", 42),
    control.Exited("r1", -9, 1024),
]


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    channels = Channel(one), Channel(other)
    yield channels
    for channel in channels:
        channel.close()


def file_with(text: str) -> int:
    """A descriptor of a fresh file that holds a text, so that it can be told from others."""
    fd = os.memfd_create("test")
    os.write(fd, text.encode())
    return fd


def text_of(fd: int) -> str:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read().decode()


@contextlib.contextmanager
def files(*texts: str) -> Iterator[list[int]]:
    fds = [file_with(text) for text in texts]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
async def test_every_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel], message: control.Message) -> None:
    ends[0].send(message)
    assert await ends[1].receive() == (message, [])


async def test_many_messages_arrive_in_order_though_nobody_reads_at_first(ends: tuple[Channel, Channel]) -> None:
    near, far = ends
    settings = b"x" * 50_000  # more in all than any socket buffer holds
    for number in range(200):
        near.send(control.Forked(str(number), number))
        near.send(control.Configure(settings))
    for number in range(200):
        assert await far.receive() == (control.Forked(str(number), number), [])
        assert await far.receive() == (control.Configure(settings), [])


async def test_descriptors_come_with_their_own_messages(ends: tuple[Channel, Channel]) -> None:
    near, far = ends
    with contextlib.ExitStack() as stack:
        for number in range(60):
            count = number % 4
            fds = stack.enter_context(files(*[f"{number}/{at}" for at in range(count)]))
            near.send(control.Connected(str(number), number, "v" * (number * 1000)), fds)
        for number in range(60):
            message, fds = await far.receive()
            assert isinstance(message, control.Connected)
            assert message.runner == str(number)
            assert [text_of(fd) for fd in fds] == [f"{number}/{at}" for at in range(number % 4)]


async def test_received_descriptors_do_not_pass_to_programs_that_are_started(ends: tuple[Channel, Channel]) -> None:
    with files("x") as fds:
        ends[0].send(control.Started(), fds)
        _message, (fd,) = await ends[1].receive()
    assert not os.get_inheritable(fd)
    os.close(fd)


async def test_the_sender_may_close_its_descriptors_at_once(ends: tuple[Channel, Channel]) -> None:
    near, far = ends
    for _ in range(100):
        near.send(control.Configure(b"x" * 10_000))  # so that what follows has to wait
    with files("kept") as fds:
        near.send(control.Started(), fds)
    for _ in range(100):
        await far.receive()
    _message, (fd,) = await far.receive()
    assert text_of(fd) == "kept"


async def test_whoever_waits_is_woken_when_the_other_side_goes(ends: tuple[Channel, Channel]) -> None:
    waiting = asyncio.create_task(ends[1].receive())
    await asyncio.sleep(0)
    ends[0].close()
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)


async def test_whoever_waits_is_woken_when_its_own_side_is_closed(ends: tuple[Channel, Channel]) -> None:
    waiting = asyncio.create_task(ends[1].receive())
    await asyncio.sleep(0)
    ends[1].close()
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)


async def test_whoever_waits_is_woken_when_a_send_finds_the_other_side_gone() -> None:
    one, other = socket.socketpair()
    channel = Channel(one)
    waiting = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    other.close()
    channel.send(control.Started())  # finds out before the reader is told
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(ChannelClosed):
        channel.send(control.Started())
    channel.close()


async def test_a_closed_channel_sends_and_receives_nothing(ends: tuple[Channel, Channel]) -> None:
    ends[0].close()
    ends[0].close()
    with pytest.raises(ChannelClosed):
        ends[0].send(control.Started())
    with pytest.raises(ChannelClosed):
        await ends[0].receive()


async def test_closing_closes_descriptors_that_were_received_but_not_claimed(ends: tuple[Channel, Channel]) -> None:
    near, far = ends
    with files("a", "b") as fds:
        near.send(control.Drain())
        near.send(control.Started(), fds)  # read together with the first, and left in the channel's hands
        near.send(control.Started(), fds)  # left in the socket
        assert await far.receive() == (control.Drain(), [])


async def test_closing_closes_descriptors_that_were_not_sent_yet(ends: tuple[Channel, Channel]) -> None:
    near, _far = ends
    with files("a", "b") as fds:
        near.send(control.Configure(b"x" * 5_000_000))
        near.send(control.Started(), fds)


async def test_a_receive_that_is_cancelled_loses_nothing(ends: tuple[Channel, Channel]) -> None:
    waiting = asyncio.create_task(ends[1].receive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    ends[0].send(control.Started())
    assert await ends[1].receive() == (control.Started(), [])


GARBAGE = [
    b"\x05\x00\x00\x00\x00hello",
    b"\xff\xff\xff\xff\x00",
    b"\x01\x00\x00\x00\xff\x80",
    b"\x00\x00\x00\x00\x00",
    pack(control.Started()).replace(b"Started", b"Stopped"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_is_no_message_closes_the_channel_and_every_descriptor(garbage: bytes) -> None:
    one, other = socket.socketpair()
    with one:
        channel = Channel(other)
        with files("a") as fds:
            message = pack(control.Started(), fds)
            socket.send_fds(one, [message + garbage], fds)
        with pytest.raises(ChannelClosed):
            await asyncio.wait_for(channel.receive(), 5)
        channel.close()


@given(st.lists(st.sampled_from(EVERY), max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_messages_are_whole_however_the_stream_is_cut(messages: list[control.Message], cuts: list[int]) -> None:
    stream = b"".join(pack(message) for message in messages)
    one, other = socket.socketpair()
    got: list[control.Message] = []
    with one, other:
        inbox = Inbox()
        at = turn = 0
        while at < len(stream):
            length = cuts[turn % len(cuts)]
            one.sendall(stream[at : at + length])
            got += [message for message, _fds in inbox.receive(other)]
            at += length
            turn += 1
    assert got == messages


@given(st.binary(max_size=80))
def test_any_bytes_at_all_are_messages_or_the_end(data: bytes) -> None:
    one, other = socket.socketpair()
    with one, other, contextlib.suppress(ChannelClosed):
        one.sendall(data + b"\x00")
        for message, fds in Inbox().receive(other):
            assert isinstance(message, msgspec.Struct)
            assert fds == []
