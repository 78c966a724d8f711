"""Keeps feedback with its predictions: joins what came before them, and forgets it once they have left the history."""

import asyncio
import time
from typing import Final

import structlog

from modelkeep.control.feedback.service import Feedback
from modelkeep.control.predictions.service import Predictions, Standing
from modelkeep.worker.again import again

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0
_FORGET_EVERY_S: Final = 3600.0
_ANYWAY_EVERY_S: Final = 86_400.0  # what was told while its prediction went is nothing that the history tells of


class FeedbackKeeper:
    """Joins and forgets until it is cancelled; where several workers do, what waits is joined by one of them."""

    def __init__(
        self,
        feedback: Feedback,
        predictions: Predictions,
        *,
        every_s: float = _EVERY_S,
        forget_every_s: float = _FORGET_EVERY_S,
    ) -> None:
        self._feedback = feedback
        self._predictions = predictions
        self._every_s = every_s
        self._forget_every_s = forget_every_s
        self._before: Standing | None = None
        self._forgotten = 0.0

    async def run(self) -> None:
        """Join, and beside it forget, again and again; the database is up to date when this begins."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(again(self.join, self._every_s, part="feedback_joining"))
            tasks.create_task(again(self.forget, self._forget_every_s, part="feedback_forgetting"))

    async def join(self) -> None:
        """Join what is due."""
        joined, late = await self._feedback.join(self._predictions.found)
        if joined or late:
            _log.info("feedback_joined", joined=joined, given_up=late)

    async def forget(self) -> None:
        """Forget what is told of predictions that are gone, where any may have gone: all that was told of is looked for."""
        now = await self._predictions.standing()
        if self._before is None or now.lacks(self._before) or time.monotonic() - self._forgotten >= _ANYWAY_EVERY_S:
            forgotten = await self._feedback.forget(self._predictions.missing)
            self._forgotten = time.monotonic()
            if forgotten:
                _log.info("feedback_forgotten", predictions=forgotten)
        self._before = now
