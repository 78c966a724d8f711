"""Keeps rates with other installations in a Redis server: an async task beside the requests, which never wait for it.

For each rate Redis holds a hash: `due`, the time of the generic cell rate algorithm (`infra/rates.py`), by Redis's clock, and
for each process the block that it holds and until when. One script does all that is asked of several rates in one step; it also
counts who shares. Whatever goes wrong, the process's own rates hold until Redis answers again.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Final

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from modelkeep.infra.leases import CREDIT_S, HELD_S, Answer, Asked, Leases
from modelkeep.infra.rates import Rates

log = structlog.get_logger(__name__)

PREFIX: Final = "modelkeep:"
_SHARERS: Final = PREFIX + "sharers"
_MOST: Final = 200  # rates in one step: Redis does nothing else meanwhile
_PAUSE_S: Final = 0.01  # after each exchange: one costs the process some 0.3 ms
_REPORT_S: Final = 0.04  # and where no request waits for more
_BEAT_S: Final = 1.0
_PATIENCE_S: Final = 0.25
_CONNECTING_S: Final = 3.0
_AGAIN_S: Final = 1.0
_MICRO: Final = 1_000_000

SCRIPT: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local me = ARGV[1]
local new = redis.call('ZADD', KEYS[1], now, me)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 3000000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 1000000, '+inf')  -- from before the clock was set back
redis.call('PEXPIRE', KEYS[1], 10000)
local sharers = redis.call('ZCARD', KEYS[1])
local said = {{sharers, new}}
for at = 2, #KEYS do
  local key = KEYS[at]
  local from = 5 * (at - 2) + 1
  local interval, burst = tonumber(ARGV[from + 1]), tonumber(ARGV[from + 2])
  local used, want, least = tonumber(ARGV[from + 3]), tonumber(ARGV[from + 4]), tonumber(ARGV[from + 5])
  local ahead, held = 0, 0
  local fields = redis.call('HGETALL', key)
  for field = 1, #fields, 2 do
    if fields[field] == 'due' then
      ahead = math.max(0, tonumber(fields[field + 1]) - now)
    elseif fields[field] ~= me then
      local tokens, ends = string.match(fields[field + 1], '(%d+) (%d+)')
      if tonumber(ends) <= now or tonumber(ends) > now + {HELD_S * _MICRO:.0f} then
        redis.call('HDEL', key, fields[field])
      else
        held = held + tonumber(tokens)
      end
    end
  end
  -- further ahead it can be only where the clock was set back
  ahead = math.min(ahead, burst + interval + math.max({CREDIT_S * _MICRO:.0f}, sharers * interval))
  ahead = math.max(ahead, least) + used * interval
  local free = math.floor((burst - ahead + 1) / interval) + 1 - held
  local got = math.max(0, math.min(free, math.max(want, math.ceil(free / sharers))))
  redis.call('HSET', key, 'due', string.format('%.0f', now + ahead))
  if got > 0 then
    redis.call('HSET', key, me, string.format('%.0f %.0f', got, now + {HELD_S * _MICRO:.0f}))
  else
    redis.call('HDEL', key, me)
  end
  redis.call('PEXPIRE', key, math.ceil(ahead / 1000) + {HELD_S * 1000:.0f})
  said[#said + 1] = got
  said[#said + 1] = math.ceil(ahead)
  said[#said + 1] = math.ceil(math.max(0, ahead - burst))
end
return said
"""


def check(url: str) -> None:
    """Raise `ValueError` or `TypeError` where no connection can be made of this address, whoever may answer there."""
    pool = ConnectionPool.from_url(url)
    pool.make_connection()  # type: ignore[no-untyped-call]  # redis says nothing of its types here
    str(pool.connection_kwargs.get("host", "")).encode("idna")


def encoded(me: str, asked: list[Asked]) -> list[str]:
    """Return the script's arguments: who asks, and five for each rate."""
    words = [me]
    for one in asked:
        times = (one.interval_s * _MICRO, one.burst_s * _MICRO)
        words += [*map(repr, times), str(one.used), str(one.want), str(int(one.ahead_s * _MICRO))]
    return words


def answers(said: list[int]) -> list[Answer]:
    """Return what the script says of each rate."""
    return [
        Answer(got, ahead / _MICRO, wait / _MICRO) for got, ahead, wait in zip(said[2::3], said[3::3], said[4::3], strict=True)
    ]


class RedisRates:
    """Shares rates through the Redis server at `url`; `own` are those that hold without it. `run` must be running.

    `told` hears of each exchange whether it was answered.
    """

    def __init__(
        self,
        url: str,
        own: Rates,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[bool], None] = lambda _answered: None,
    ) -> None:
        self._url = url
        self._clock = clock
        self._told = told
        self._me = token_hex(8)
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._silent = False
        self.leases = Leases(own, self._wake)

    def _wake(self, urgent: bool) -> None:  # noqa: FBT001 - as `Leases` calls it
        self._some.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Share until cancelled."""
        while not _cancelled():
            # no attempt is made twice: the next round comes anyway, and says what is true by then
            client = Redis.from_url(self._url, protocol=2, retry=Retry(NoBackoff(), 0), socket_connect_timeout=_CONNECTING_S)
            try:
                await self._share(client)
            except Exception as error:  # noqa: BLE001 - whatever comes from there, each installation keeps its own rates
                self._lost(error)
            finally:
                self.leases.away = True
                with suppress(RedisError, OSError, TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S):
                        await client.aclose()
            await asyncio.sleep(0 if _cancelled() else _AGAIN_S)
        raise asyncio.CancelledError

    async def _share(self, client: Redis) -> None:
        script = client.register_script(SCRIPT)
        await self._exchange(script, [], _CONNECTING_S)
        await self._exchange(script, [], _PATIENCE_S)
        self.leases.away = False
        log.info("rates are shared with other installations", sharers=self.leases.sharers)
        self._silent = False
        while not _cancelled():
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if self.leases.pending else _BEAT_S):
                    await self._some.wait()
            self._some.clear()
            self._urgent.clear()
            await self._exchange(script, self.leases.collect(_MOST, self._clock()), _PATIENCE_S)
            await asyncio.sleep(_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_S):
                    await self._urgent.wait()

    async def _exchange(self, script: AsyncScript, asked: list[Asked], patience_s: float) -> None:
        """Report and ask; raises where that is not answered within `patience_s`."""
        begun = self._clock()
        try:
            async with asyncio.timeout(patience_s):
                said = await script(
                    keys=[_SHARERS, *(PREFIX + "rate:" + one.name for one in asked)], args=encoded(self._me, asked)
                )
        except Exception:
            self.leases.lost(asked)
            self._told(False)
            raise
        self.leases.sharers = max(1, said[0])
        self.leases.answered(asked, answers(said), begun)
        if said[1]:  # Redis did not know us: it may have lost what it knew of the rates, too
            self.leases.remind(begun)
        self._told(True)

    def _lost(self, error: Exception) -> None:
        if not self._silent:
            self._silent = True
            reason = str(error) or type(error).__name__
            log.warning("rates hold for this installation alone: Redis does not answer", reason=reason)


def _cancelled() -> bool:
    """Whether this task is to end: the client of Redis makes an error of some cancellations, and nothing at all of others."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
