"""Does a part's work again and again. What goes wrong is told, and ends neither the part nor what runs beside it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from modelkeep.contracts.errors import ModelkeepError

_log = structlog.get_logger(__name__)
_SOONER_S: Final = 60.0


async def again(step: Callable[[], Awaitable[object]], every_s: float, *, part: str) -> None:
    """Do this until it is cancelled, with `every_s` seconds between; after a minute at most where it has failed."""
    while True:
        wait_s = min(every_s, _SOONER_S)
        with going_on(part):
            await step()
            wait_s = every_s
        await asyncio.sleep(wait_s)


@contextmanager
def going_on(part: str, **about: object) -> Iterator[None]:
    """Tell what goes wrong in this block, and go on after it: what is away as a warning, a mistake of ours as an error."""
    try:
        yield
    except (ModelkeepError, OSError) as error:
        _log.warning(f"{part}_waits", reason=error.message if isinstance(error, ModelkeepError) else str(error), **about)
    except Exception:  # noqa: BLE001 - a mistake of ours is told, and does not end what the worker is there for
        _log.exception(f"{part}_failed", **about)
