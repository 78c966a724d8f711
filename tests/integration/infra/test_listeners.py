"""Sockets that listen side by side: new callers are put where they are wanted, and nobody who stands in a line is cut off."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from modelkeep.infra.listeners import Listeners, listening


class Lines:
    """Some sockets that listen on one port, in this order, and callers who stand in their lines."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.port = 0
        self.doors: list[socket.socket] = []

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            door = self._stack.enter_context(socket.socket())
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            door.bind(("127.0.0.1", self.port))
            door.listen(512)
            door.settimeout(0.2)
            self.port = door.getsockname()[1]
            self.doors.append(door)

    def call(self, count: int = 64) -> None:
        for _ in range(count):
            self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))

    def answered(self, door: socket.socket) -> int:
        """How many stood in its line; they are let in."""
        number = 0
        while True:
            try:
                self._stack.enter_context(door.accept()[0])
            except TimeoutError:
                return number
            number += 1


@pytest.fixture
def lines() -> Iterator[Lines]:
    with ExitStack() as stack:
        yield Lines(stack)


def test_new_callers_come_to_the_first_behind_those_that_are_to_be_spared(lines: Lines) -> None:
    lines.open(4)
    assert listening(lines.port) == 4
    Listeners(lines.port).steer(2)
    lines.call()
    assert [lines.answered(door) for door in lines.doors] == [0, 0, 64, 0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_in_whatever_order_the_old_ones_close_no_new_caller_comes_to_them(lines: Lines, order: tuple[int, ...]) -> None:
    lines.open(6)
    Listeners(lines.port).steer(3)
    old, new = lines.doors[:3], lines.doors[3:]
    staying = set(range(3))
    for at in order:
        lines.call()
        assert not any(lines.answered(old[one]) for one in staying)
        old[at].close()
        staying.remove(at)
    lines.call()
    assert sum(map(lines.answered, new)) == 4 * 64


def test_when_nobody_steers_any_more_callers_come_to_all(lines: Lines) -> None:
    lines.open(2)
    one = Listeners(lines.port)
    one.steer(1)
    one.unsteer()
    one.unsteer()
    lines.call()
    assert all(lines.answered(door) for door in lines.doors)


def test_who_stands_in_line_and_who_is_connected_is_counted(lines: Lines) -> None:
    lines.open()
    one = Listeners(lines.port)
    lines.call(3)
    assert (one.waiting, one.connections) == (3, 0)
    assert lines.answered(lines.doors[0]) == 3
    assert (one.waiting, one.connections) == (0, 3)


def test_another_port_is_nothing_to_it(lines: Lines) -> None:
    lines.open()
    lines.call(3)
    other = Lines(ExitStack())
    other.open()
    one = Listeners(other.port)
    assert (one.waiting, one.connections, listening(other.port)) == (0, 0, 1)
    other.doors[0].close()
    assert listening(other.port) == 0
