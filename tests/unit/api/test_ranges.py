"""Byte ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.api.ranges import Unsatisfiable, wanted


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-4", (2, 5)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=8-99", (8, 10)),
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=4-2", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_a_range_means_what_the_standard_says(header: str | None, part: tuple[int, int] | None):
    assert wanted(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_after_the_end_cannot_be_satisfied(header: str):
    with pytest.raises(Unsatisfiable):
        wanted(header, 10)


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,6}-\d{0,6}", fullmatch=True), st.integers(0, 10**6))
def test_a_part_is_always_inside_the_file(header: str, size: int):
    try:
        part = wanted(header, size)
    except Unsatisfiable:
        return
    if part is not None:
        assert 0 <= part[0] < part[1] <= size
