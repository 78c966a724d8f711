"""What goes wrong once does not end the following of people."""

import asyncio
from typing import cast

import pytest

from modelkeep.control.identities.service import Identities
from modelkeep.infra.db import DatabaseUnavailable
from modelkeep.worker.following import Follower


class Troubled:
    """Fails at first: as the database does, and as mistakes do."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [DatabaseUnavailable(), ValueError("a mistake")]
        self.followed, self.closed = asyncio.Event(), False

    async def follow(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.followed.set()

    async def close(self) -> None:
        self.closed = True


async def test_following_goes_on_after_trouble():
    identities = Troubled()
    following = asyncio.create_task(Follower(cast("Identities", identities), every_s=0).run())
    async with asyncio.timeout(10):
        await identities.followed.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert identities.closed
