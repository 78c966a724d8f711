"""What a new tree of processes believes of the one that is to hand over to it, and what it has to match."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.app.takeover import NotTakenOver, inheritance, lacking, telling
from modelkeep.contracts.errors import Invalid
from modelkeep.sandbox import control, succeeding
from modelkeep.sandbox.control import Channel
from modelkeep.sandbox.succeeding import Coverage as At


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket at its other end."""
    near, far = socket.socketpair()
    channel = Channel(near)
    yield channel, far
    channel.close()
    far.close()


def _offer(**changes: object) -> succeeding.Offer:
    return succeeding.Offer(
        **{"form": 1, "generation": 1, "process": 1, "rpcs": "", "worker": "w", "held_bytes": 0, "coverages": ()} | changes
    )


def _give(far: socket.socket, *names: str) -> None:
    for name in names:
        with Path(os.devnull).open("rb") as file:
            socket.send_fds(far, [control.pack(succeeding.Given(name), [0])], [file.fileno()])


def _descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


async def test_an_offer_is_taken_with_all_its_descriptors(ends: tuple[Channel, socket.socket]) -> None:
    channel, far = ends
    _give(far, "lock", "inner", "door-0", "door-1")
    far.sendall(control.pack(_offer()))
    descriptors, offer = await inheritance(channel)
    assert descriptors.keys() == {"lock", "inner", "door-0", "door-1"}
    assert offer == _offer()
    for fd in descriptors.values():
        os.close(fd)


@pytest.mark.parametrize(
    ("names", "message", "why"),
    [
        (("lock", "inner"), _offer(), "not complete"),
        ((), _offer(), "not complete"),
        (("lock", "inner", "door-0"), _offer(form=2), "without a stop"),
        (("lock", "inner", "door-0"), _offer(generation=7), "without a stop"),
        (("lock", "lock"), _offer(), "cannot be understood"),
        (("lock",), succeeding.Yours(), "cannot be understood"),
        (("lock",), succeeding.Given("inner"), "cannot be understood"),
    ],
)
async def test_what_is_no_offer_is_refused_and_its_descriptors_are_closed(
    ends: tuple[Channel, socket.socket], names: tuple[str, ...], message: control.Message, why: str
) -> None:
    channel, far = ends
    before = _descriptors()
    _give(far, *names)
    far.sendall(control.pack(message))
    with pytest.raises(NotTakenOver, match=why):
        await inheritance(channel)
    assert _descriptors() <= before


@pytest.mark.parametrize("junk", [b"", b"\xff" * 5, b"GET / HTTP/1.1\r\n\r\n", b"\x03\x00\x00\x00\x00abc"])
async def test_junk_and_an_end_are_no_offer(ends: tuple[Channel, socket.socket], junk: bytes) -> None:
    channel, far = ends
    far.sendall(junk)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(NotTakenOver, match="offers nothing"):
        await asyncio.wait_for(inheritance(channel), 5)


def test_one_that_cannot_start_says_why() -> None:
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(Invalid), telling(far.fileno()):
            raise Invalid("This setting is wrong.")
        assert control.Inbox().receive(near) == [(succeeding.Refused("This setting is wrong."), [])]


def test_whoever_knows_less_does_not_stand_in() -> None:
    assert lacking(At(4, {}, {}), At(5, {}, {})) == "snapshot 5 is not applied"
    assert not lacking(At(6, {}, {}), At(5, {}, {}))


def test_whatever_answers_goes_on_answering() -> None:
    old = At(5, {"a": "v1", "a@live": "v1"}, {"a": "v1", "a@live": "v1"})
    assert lacking(At(5, {"a": "v1"}, {"a": "v1", "a@live": "v1"}), old) == "a@live does not answer"
    assert lacking(At(5, {}, {"a": "v1", "a@live": "v1"}), old) == "a does not answer"
    assert not lacking(old, old)


def test_what_did_not_answer_before_is_not_waited_for() -> None:
    assert not lacking(At(5, {}, {"broken": "v2"}), At(5, {}, {"broken": "v2"}))


def test_a_version_never_goes_back() -> None:
    old = At(6, {"a": "v2"}, {"a": "v2"})
    assert lacking(At(6, {"a": "v1"}, {"a": "v2"}), old) == "a does not answer"
    assert not lacking(At(7, {"a": "v3"}, {"a": "v3"}), old)


_VERSIONS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["v1", "v2", "v3"]))
_COVERAGES = st.builds(At, st.integers(0, 3), _VERSIONS, _VERSIONS)


@given(_COVERAGES, _COVERAGES)
def test_who_stands_in_knows_as_much_and_answers_for_all_that_are_still_there(new: At, old: At) -> None:
    stands_in = not lacking(new, old)
    answered = old.answering.keys() & new.targets.keys()
    good = all(new.answering.get(path) in {old.answering[path], new.targets[path]} for path in answered)
    assert stands_in == (new.snapshot >= old.snapshot and good)
