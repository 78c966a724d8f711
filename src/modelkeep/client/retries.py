"""When a request is sent again, and how long to wait before that. Nothing here waits or sends.

The server knows an `Idempotency-Key` for uploads. Other writes that make something are sent again only where nothing can have
been done: after 429, and where no connection came about.
"""

import random
from http import HTTPStatus
from typing import Final

from modelkeep.client.errors import ModelkeepError, ServerUnreachable

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


def may_repeat(error: ModelkeepError, *, harmless: bool) -> bool:
    """Whether a request that ended so may be sent again. `harmless`: nothing happens twice if it is."""
    if isinstance(error, ServerUnreachable):
        return error.passing and (harmless or not error.sent)
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    return harmless and error.status == HTTPStatus.SERVICE_UNAVAILABLE


def pause_before(attempt: int, retry_after_s: float | None) -> float:
    """Return the seconds to wait before attempt 1, 2, ...: what the server asks for, or twice as long each time.

    A quarter is left to chance, so that callers who were refused together do not come back together.
    """
    chance = random.uniform(1.0, 1.25)  # noqa: S311 - nothing is kept secret by it
    if retry_after_s is not None:
        return retry_after_s * chance
    return min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LONGEST_PAUSE_S) * chance
