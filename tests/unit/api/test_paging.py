"""Cursors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.api.paging import InvalidCursor, read_cursor, read_number_cursor, split


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, min_size=1), st.integers(1, 10))
def test_following_the_cursors_shows_every_item_once(items: list[str], limit: int):
    items.sort()
    seen: list[str] = []
    cursor: str | None = None
    while True:
        after = read_cursor(cursor)
        found = [item for item in items if after is None or item > after][: limit + 1]
        page, cursor = split(found, limit, lambda item: item)
        seen += page
        if cursor is None:
            break
    assert seen == items


@given(st.text(max_size=40))
def test_a_made_up_cursor_is_read_or_refused_and_nothing_else(cursor: str):
    for read in (read_cursor, read_number_cursor):
        try:
            read(cursor)
        except InvalidCursor:
            continue


def test_a_number_cursor_is_a_number():
    _page, cursor = split([5, 4, 3], 2, lambda number: number)
    assert read_number_cursor(cursor) == 4
    _page, cursor = split(["a", "b"], 1, lambda name: name)
    with pytest.raises(InvalidCursor):
        read_number_cursor(cursor)
    _page, cursor = split(["9" * 30, "b"], 1, lambda name: name)
    with pytest.raises(InvalidCursor):
        read_number_cursor(cursor)
