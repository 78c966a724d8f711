"""Who may ask a tree of processes for a successor, and what becomes of one that comes to nothing."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modelkeep.app import succession
from modelkeep.app.estate import Estate, OtherAddress, inherited, local_socket
from modelkeep.app.places import Places
from modelkeep.app.settings import ServerSettings
from modelkeep.app.succession import Succession, command
from modelkeep.sandbox import succeeding

_TALKS = """
import socket, sys
from modelkeep.sandbox.control import pack
from modelkeep.sandbox.succeeding import *
s = socket.socket(fileno=int(sys.argv[-1]))
{}
while s.recv(1 << 20):
    pass
"""


class Tree:
    """A supervisor whose steps are written down."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.drain_s = 5.0
        self.held_bytes = 7

    async def coverages(self) -> tuple[succeeding.Coverage, ...]:
        return (succeeding.Coverage(3, {"a": "v1"}, {"a": "v1"}),)

    async def end_roles(self, *kinds: str) -> None:
        self.steps.append("end " + " ".join(kinds))

    async def yield_callers(self, _behind: int) -> list[asyncio.Future[succeeding.Left]]:
        self.steps.append("yield")
        left: asyncio.Future[succeeding.Left] = asyncio.get_running_loop().create_future()
        left.set_result(succeeding.Left())
        return [left]

    def go_on(self) -> None:
        self.steps.append("go on")


class House:
    def __init__(self, folder: Path) -> None:
        self.places = Places(folder)
        self.places.make()
        self.tree = Tree()
        door = socket.create_server(("127.0.0.1", 0))
        inner = socket.socket(socket.AF_UNIX)
        self.estate = Estate([door], inner, os.open(folder / "lock", os.O_CREAT | os.O_RDWR), [], None, worker="w")
        self.task: asyncio.Task[None]

    async def start(self, script: str) -> Succession:
        program = (sys.executable, "-c", _TALKS.format(script))
        self.succession = Succession(self.places, self.estate, 5.0, program=program)
        self.task = asyncio.create_task(self.succession.run(self.tree))  # type: ignore[arg-type] # it looks like one
        while not (self.places.run / succession.SOCKET).exists():
            await asyncio.sleep(0.01)
        return self.succession

    async def ask(self, line: bytes = b'{"patience_s": 20}\n') -> list[dict[str, Any]]:
        """Return what is said to one who asks so."""
        reader, writer = await asyncio.open_unix_connection(str(self.places.run / succession.SOCKET))
        try:
            writer.write(line)
            writer.write_eof()
            said = await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:  # whoever is not wanted is cut off, maybe before it has said all
            return []
        finally:
            writer.close()
        return [json.loads(one) for one in said.splitlines()]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)
    made.estate.close()


_SETTLES = "[s.sendall(pack(one())) for one in (Warm, Accepting, Settled)]"


async def test_a_successor_that_says_all_the_words_takes_over(house: House) -> None:
    await house.start(_SETTLES)
    said = await house.ask()
    assert said[-1] == {"text": "The upgrade is done.", "ended": True}
    assert house.tree.steps == ["end courier", "yield", "end api worker"]
    await asyncio.wait_for(house.task, 5)
    assert house.succession.heir is not None
    house.succession.heir.kill()
    house.succession.heir.wait()
    assert house.succession.channel is not None
    house.succession.channel.close()


@pytest.mark.parametrize(
    ("script", "why", "steps"),
    [
        ("sys.exit(3)", "ended before it was ready", []),
        ("s.sendall(pack(Refused('A setting is wrong.')))", "A setting is wrong.", []),
        ("s.sendall(pack(Settled()))", "cannot be understood", []),
        ("s.sendall(b'x' * 9999)", "ended before it was ready", []),
        ("s.sendall(pack(Warm())); s.close(); sys.exit(0)", "in the middle", ["end courier", "go on"]),
        (
            "[s.sendall(pack(one())) for one in (Warm, Accepting)]; s.shutdown(1)",  # one that goes may be noticed a word early
            "in the middle",
            ["end courier", "yield", "end api worker", "go on"],
        ),
        ("s.sendall(pack(Warm())); s.sendall(pack(Refused('No.')))", "No.", ["end courier", "go on"]),
    ],
)
async def test_of_one_that_fails_everything_is_as_before(house: House, script: str, why: str, steps: list[str]) -> None:
    await house.start(script)
    said = await house.ask()
    assert said[-1]["failed"]
    assert why in said[-1]["text"]
    assert house.tree.steps == steps
    assert house.succession.heir is None
    assert not house.task.done()


async def test_one_that_is_never_ready_is_given_up(house: House) -> None:
    await house.start("")
    said = await house.ask(b'{"patience_s": 0.5}\n')
    assert "was not ready after 0.5 s" in said[-1]["text"]
    assert not house.tree.steps


async def test_of_two_upgrades_at_once_the_second_is_refused(house: House) -> None:
    await house.start("")
    first = asyncio.create_task(house.ask(b'{"patience_s": 2}\n'))
    while not house.succession._under_way.locked():
        await asyncio.sleep(0.01)
    assert (await house.ask())[-1] == {"text": "Another upgrade is under way.", "ended": True, "failed": True}
    assert (await first)[-1]["failed"]


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"junk\n", b"{}\n", b'{"patience_s": -1}\n', b'{"patience_s": 1e99}\n', b"x" * 5000, b'{"patience_s": 1}'],
)
async def test_who_cannot_be_understood_is_told_nothing(house: House, line: bytes) -> None:
    await house.start(_SETTLES)
    assert await house.ask(line) == []
    assert not house.tree.steps


async def test_another_user_is_told_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.start(_SETTLES)
    monkeypatch.setattr(succession.os, "geteuid", lambda: os.getuid() + 1)
    assert await house.ask() == []
    assert not house.tree.steps


async def test_the_socket_is_for_this_user_alone(house: House) -> None:
    await house.start(_SETTLES)
    assert (house.places.run / succession.SOCKET).stat().st_mode & 0o777 == 0o600


def test_a_successor_is_started_as_we_were_whoever_we_took_over_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "modelkeep.app.cli", "serve", "--take-over", "7", "--port", "1"])
    assert command() == [sys.executable, "-m", "modelkeep.app.cli", "serve", "--port", "1"]


def test_an_estate_is_passed_on_in_order_and_refused_where_the_settings_name_another(tmp_path: Path) -> None:
    doors = [socket.create_server(("127.0.0.1", 0))]
    doors += [socket.socket() for _ in range(11)]
    with local_socket(tmp_path, "inner") as inner:
        estate = Estate(doors, inner, os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR), [], None)
        port = doors[0].getsockname()[1]
        given = {name: os.dup(fd) for name, fd in estate.descriptors().items()}
        got = inherited(given, "", 1, "w", ServerSettings(port=port, processes=12))
        assert [os.fstat(one.fileno()).st_ino for one in got.doors] == [os.fstat(one.fileno()).st_ino for one in doors]
        assert got.address == f"127.0.0.1:{port}"
        got.close()
        for other in ({"port": port + 1}, {"processes": 2}, {"grpc_port": 9}):
            given = {name: os.dup(fd) for name, fd in estate.descriptors().items()}
            with pytest.raises(OtherAddress):
                inherited(given, "", 1, "w", ServerSettings(**{"port": port, "processes": 12} | other))
        estate.close()
