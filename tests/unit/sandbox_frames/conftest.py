"""Fixtures for what travels between processes: nothing may leak a descriptor."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

# A busy machine is no fault of the code: examples are not timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


OPEN = Path("/proc/self/fd")


def descriptors() -> set[Path]:
    return set(OPEN.iterdir())


@pytest.fixture
def no_descriptor_leaks() -> Iterator[None]:
    """The test leaves as many descriptors open as it found."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the first one opens a pipe for good
        runner.run(asyncio.sleep(0))
    before = descriptors()
    yield
    if descriptors() - before:
        gc.collect()
    assert not [one.readlink() for one in descriptors() - before if one.is_symlink()]
