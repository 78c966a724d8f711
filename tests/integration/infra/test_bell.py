"""Bells."""

import asyncio
import time
from pathlib import Path

import pytest

from modelkeep.infra.bell import RING, Bell, Listener, woken_by


async def test_a_ring_is_heard_at_once(tmp_path: Path):
    with Listener(tmp_path / "b.sock") as listener:
        waiting = asyncio.create_task(listener.wait(30))
        await asyncio.sleep(0)
        assert Bell(tmp_path / "b.sock").ring()
        assert await asyncio.wait_for(waiting, 2) == [RING]


async def test_rings_before_the_wait_are_not_lost_and_messages_keep_their_order(tmp_path: Path):
    with Listener(tmp_path / "b.sock") as listener:
        bell = Bell(tmp_path / "b.sock")
        for message in (b"one", RING, b"two"):
            bell.ring(message)
        assert await listener.wait(2) == [b"one", RING, b"two"]
        assert await listener.wait(0.01) == []


async def test_a_bell_that_nobody_hears_is_no_error(tmp_path: Path):
    path = tmp_path / "b.sock"
    assert not Bell(path).ring()
    with Listener(path):
        assert Bell(path).ring()
    assert not Bell(path).ring()
    assert not Bell(tmp_path / "nowhere" / "b.sock").ring()


async def test_a_listener_that_does_not_listen_never_holds_the_ringer_up(tmp_path: Path):
    with Listener(tmp_path / "b.sock"):
        began = time.monotonic()
        heard = [Bell(tmp_path / "b.sock").ring(b"x" * 1000) for _ in range(2000)]
        assert time.monotonic() - began < 30
    assert heard[0]
    assert not heard[-1]


async def test_a_dead_listeners_socket_is_taken_over(tmp_path: Path):
    path = tmp_path / "b.sock"
    dead = Listener(path)
    dead.__enter__()
    with Listener(path) as listener:
        Bell(path).ring()
        assert await listener.wait(2) == [RING]
    dead.__exit__(None, None, None)


async def test_a_path_may_be_longer_than_a_socket_address(tmp_path: Path):
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    folder.mkdir(parents=True)
    with Listener(folder / "b.sock") as listener:
        assert Bell(folder / "b.sock").ring()
        assert await listener.wait(2) == [RING]


async def test_only_the_owner_may_ring(tmp_path: Path):
    with Listener(tmp_path / "b.sock"):
        assert (tmp_path / "b.sock").stat().st_mode & 0o777 == 0o600


async def test_stop_ends_a_wait(tmp_path: Path):
    stop = asyncio.Event()
    with Listener(tmp_path / "b.sock") as listener, woken_by(stop, listener):
        waiting = asyncio.create_task(listener.wait(30))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.05)
        stop.set()
        assert await asyncio.wait_for(waiting, 2) == []
