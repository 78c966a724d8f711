"""Keeps feedback with its predictions: joins what came before them, and forgets it once they have left the history."""

import asyncio
import time
from typing import Final

import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.feedback.service import Feedback
from modelkeep.control.predictions.service import Predictions

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0
_FORGET_EVERY_S: Final = 3600.0


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
        self._forgotten = float("-inf")

    async def run(self) -> None:
        """Join, and now and then forget, again and again; the database is up to date when this begins."""
        while True:
            await self.round()
            await asyncio.sleep(self._every_s)

    async def round(self) -> None:
        """Join what is due, and forget where it is time."""
        try:
            joined, late = await self._feedback.join(self._predictions.found)
            if joined or late:
                _log.info("feedback_joined", joined=joined, given_up=late)
            if time.monotonic() - self._forgotten >= self._forget_every_s:
                forgotten = await self._feedback.forget(self._predictions.missing)
                self._forgotten = time.monotonic()
                if forgotten:
                    _log.info("feedback_forgotten", predictions=forgotten)
        except ModelkeepError as error:
            _log.warning("feedback_waits", reason=error.message)
        except Exception:  # noqa: BLE001 - a mistake of ours is told, and does not end what the worker is there for
            _log.exception("feedback_failed")
