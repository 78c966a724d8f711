"""Pages of lists: a limit, and a cursor that says where the last page ended. Cursors mean nothing to anyone else."""

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from modelkeep.contracts.errors import Invalid

T = TypeVar("T")
LARGEST_NUMBER = 2**31 - 1

Limit = Annotated[int, Query(ge=1, le=500, description="Most items in one answer.")]
Cursor = Annotated[str | None, Query(max_length=500, description="The `next_cursor` of the answer before.")]


class InvalidCursor(Invalid):
    """This cursor is not one that was given out here: start again without it."""

    code = "invalid_cursor"


def read_cursor(cursor: str | None) -> str | None:
    """Return what the last page ended with; raises `InvalidCursor`."""
    if not cursor:
        return None
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise InvalidCursor from error


def read_number_cursor(cursor: str | None) -> int | None:
    """Return the number that the last page ended with; raises `InvalidCursor`."""
    text = read_cursor(cursor)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > LARGEST_NUMBER:
        raise InvalidCursor
    return int(text)


def split(found: Sequence[T], limit: int, key: Callable[[T], object]) -> tuple[Sequence[T], str | None]:
    """Return one page of what was found, and the cursor for the next; `found` holds one more than `limit` if there is one."""
    page = found[:limit]
    if len(found) <= limit:
        return page, None
    return page, encode_cursor(str(key(page[-1])))


def encode_cursor(ended_with: str | None) -> str | None:
    """Return the cursor for what comes after `ended_with`; None after the end."""
    return None if ended_with is None else base64.urlsafe_b64encode(ended_with.encode()).decode().rstrip("=")
