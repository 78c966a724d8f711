"""Wakes calls whose time is up: one timer for all that end within the same hundredth of a second, not one for each."""

import asyncio
from collections.abc import Callable

from modelkeep.serving.calls import Call

_TICK_S = 0.01


class Deadlines:
    """Calls by when they end. `overdue` is told each call whose deadline has passed, at most a tick late."""

    def __init__(self, overdue: Callable[[Call], None]) -> None:
        self._overdue = overdue
        self._buckets: dict[int, set[Call]] = {}

    def add(self, call: Call) -> None:
        """Watch a call until `discard`; one that has ended already needs no watching."""
        if call.done:
            return
        number = call.bucket = int(call.deadline / _TICK_S) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
            asyncio.get_running_loop().call_at(number * _TICK_S, self._ring, number)
        bucket.add(call)

    def discard(self, call: Call) -> None:
        """The call has ended."""
        bucket = self._buckets.get(call.bucket)
        if bucket is not None:
            bucket.discard(call)

    def _ring(self, number: int) -> None:
        for call in self._buckets.pop(number):
            self._overdue(call)
