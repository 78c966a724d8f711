"""When a request is sent again, and how long to wait before that. Nothing here waits or sends.

Every write carries an `Idempotency-Key`, by which the server knows it when it comes again: it is answered as it was the first
time, and counts once. So writes are sent again as reads are.
"""

import random
from http import HTTPStatus
from typing import Final

from modelkeep.client.errors import ModelkeepError, ServerUnreachable

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
_STILL_UNDER_WAY: Final = "idempotency_key_in_use"
"""The same request arrived before and is not done yet: its answer can be had in a moment."""


def may_repeat(error: ModelkeepError, *, harmless: bool) -> bool:
    """Whether a request that ended so may be sent again. `harmless`: nothing happens twice if it is."""
    if isinstance(error, ServerUnreachable):
        return error.passing and (harmless or not error.sent)
    if error.status == HTTPStatus.TOO_MANY_REQUESTS or error.code == _STILL_UNDER_WAY:
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
