"""Bytes by name in a Redis server, for requests that do not wait for it: two milliseconds at most, behind a breaker.

A question that is not answered in time counts as not answered, whatever comes later. After some of those in a row nobody is
asked for a second, then for two, up to half a minute: then one is, and if that is answered in time, all are again. What is
bounded: how many questions and how many values may be under way.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

log = structlog.get_logger(__name__)

PREFIX: Final = "modelkeep:answer:"
WAIT_S: Final = 0.002
_PATIENCE_S: Final = 0.5  # after which a connection is given up
_FAULTS: Final = 5
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_ASKING: Final = 64
_PUTTING: Final = 64


class RedisAnswers:
    """The store at `url`. `told` hears of each question what came of it: hit, miss, late, failed, or skipped."""

    def __init__(
        self,
        url: str,
        *,
        told: Callable[[str], None] = lambda _outcome: None,
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = WAIT_S,
    ) -> None:
        self._redis = Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=_PATIENCE_S,
            socket_timeout=_PATIENCE_S,
            max_connections=_ASKING + _PUTTING,
        )
        self._told = told
        self._clock = clock
        self._wait_s = wait_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = self._putting = 0
        self._faults = 0
        self._pause_s = _PAUSE_S
        self._closed_until = 0.0
        self._trying = False

    @property
    def away(self) -> bool:
        """Whether nobody is asked now."""
        return self._faults >= _FAULTS

    def get(self, name: str, told: Callable[[bytes | None], None]) -> bool:
        """Have `told` get the value of a name, or None, within two milliseconds; False where nobody is asked."""
        if self._asking >= _ASKING or not self._open():
            self._told("skipped")
            return False
        self._trying = self.away
        question = _Question(told)
        question.timer = asyncio.get_running_loop().call_later(self._wait_s, self._late, question)
        self._asking += 1
        self._spawn(self._get(name, question))
        return True

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """Keep a value; where Redis is away, or slow with those before, it is not kept."""
        if self._putting < _PUTTING and not self.away:
            self._putting += 1
            self._spawn(self._put(name, value, ttl_s))

    async def close(self) -> None:
        """Let go of the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    def _open(self) -> bool:
        return not self.away or (not self._trying and self._clock() >= self._closed_until)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _get(self, name: str, question: "_Question") -> None:
        value: bytes | None = None
        failed = False
        try:
            async with asyncio.timeout(_PATIENCE_S):
                found = await self._redis.get(PREFIX + name)
                value = found if isinstance(found, bytes) else None
        except Exception as error:  # noqa: BLE001 - whatever comes from there, the model is asked
            failed = True
            self._fault("failed", question, error)
        finally:
            self._asking -= 1
        if failed:
            question.answer(None)
        elif not question.over:
            self._well()
            self._told("miss" if value is None else "hit")
            question.answer(value)

    async def _put(self, name: str, value: bytes, ttl_s: float) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._redis.set(PREFIX + name, value, px=max(1, int(ttl_s * 1000)))
        except Exception as error:  # noqa: BLE001 - as above
            self._fault("failed", None, error)
        finally:
            self._putting -= 1

    def _late(self, question: "_Question") -> None:
        if not question.over:
            self._fault("late", question)
            question.answer(None)

    def _well(self) -> None:
        if self.away:
            log.info("answers are shared again")
        self._faults, self._pause_s, self._trying = 0, _PAUSE_S, False

    def _fault(self, outcome: str, question: "_Question | None", error: Exception | None = None) -> None:
        """Count a question that was late or failed, each once; after some of them nobody is asked for a while."""
        if question is not None:
            if question.over:
                return
            self._told(outcome)
            self._trying = False
        was_away = self.away
        self._faults += 1
        if not self.away or (was_away and question is None):
            return
        self._closed_until = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if not was_away:
            reason = outcome if error is None else str(error) or type(error).__name__
            log.warning("answers are kept by this server alone: Redis does not answer in time", reason=reason)


class _Question:
    """One question, which is answered once."""

    __slots__ = ("_told", "over", "timer")

    def __init__(self, told: Callable[[bytes | None], None]) -> None:
        self._told = told
        self.over = False
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, value: bytes | None) -> None:
        """Tell whoever asked, unless they have been told."""
        if self.over:
            return
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        self._told(value)
