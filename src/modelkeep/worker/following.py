"""Follows identity providers: whoever comes no more does not keep through keys what groups gave them there."""

from typing import Final

from modelkeep.control.identities.service import Identities
from modelkeep.worker.again import again

_EVERY_S: Final = 60.0


class Follower:
    """Has people followed until it is cancelled; where several workers do, they share it."""

    def __init__(self, identities: Identities, *, every_s: float = _EVERY_S) -> None:
        self._identities = identities
        self._every_s = every_s

    async def run(self) -> None:
        """Follow whoever it is time for, again and again; the database is up to date when this begins."""
        try:
            await again(self._identities.follow, self._every_s, part="following")
        finally:
            await self._identities.close()
