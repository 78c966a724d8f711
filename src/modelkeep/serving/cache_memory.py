"""Kept answers in memory: bounded by their bytes, and shared fairly by deployments.

What nobody has asked for in minutes goes first, the longest unused first of all. Beyond that the deployment that takes the most
gives of its own: so none that takes less than its part (the room by the number of those that keep anything) loses an answer
that is asked for to another, whatever the other is asked; and one that is alone has all the room.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from heapq import nlargest
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from modelkeep.serving.coercion import Array

if TYPE_CHECKING:
    from modelkeep.serving.codec import Tensors

_ENTRY: Final = 768  # bytes that an answer takes beside its arrays: its key, places in three tables, the objects around it
_ARRAY: Final = 256
_TEXT: Final = 64
_PART: Final = 16  # of the bound: the most that one answer may take
_SLICE: Final = 1024  # answers that are let go of at once: half a millisecond
QUIET_S: Final = 300.0
"""After so many seconds that nobody asked for it, an answer is no part of what its deployment needs."""


class Holder:
    """What one deployment keeps: the bytes of all its answers, and those of its groups that have any."""

    __slots__ = ("bytes", "groups")

    def __init__(self) -> None:
        self.bytes = 0
        self.groups: dict[Group, None] = {}


class Group:
    """The keys of what one version has said for one deployment, the longest unused first.

    Once `retired`, nothing more is put there.
    """

    __slots__ = ("holder", "keys", "retired")

    def __init__(self, holder: Holder | None = None) -> None:
        self.holder = holder or Holder()
        self.keys: OrderedDict[bytes, None] = OrderedDict()
        self.retired = False


class Entry:
    """A kept answer: the model's outputs, the bytes they take, and when they came and were last `used`, by the clock."""

    __slots__ = ("at", "group", "outputs", "size", "used")

    def __init__(self, outputs: "Tensors", size: int, group: Group, at: float, used: float) -> None:
        self.outputs = outputs
        self.size = size
        self.group = group
        self.at = at
        self.used = used


def size_of(outputs: Mapping[str, Array]) -> int:
    """Return the bytes that an answer takes when it is kept, all that is around it counted."""
    size = _ENTRY
    for array in outputs.values():
        size += _ARRAY + array.nbytes
        if array.dtype.hasobject:
            size += sum([_TEXT + len(one) if isinstance(one, str | bytes) else _TEXT for one in array.reshape(-1).tolist()])
    return size


class Memory:
    """Answers by their keys. They never take more than `most_bytes`, and one alone never more than `most_each`.

    `evicted` hears of those that went before they were asked for again: why (size, age, retired), and how many.
    """

    def __init__(self, most_bytes: int, *, clock: Callable[[], float], evicted: Callable[[str, int], None]) -> None:
        self.most_bytes = most_bytes
        self.most_each = most_bytes // _PART
        self.bytes = 0
        self._clock = clock
        self._evicted = evicted
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._holders: dict[Holder, None] = {}
        self._retired: deque[Group] = deque()

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._entries)

    def get(self, key: bytes, ttl_s: float) -> Entry | None:
        """Return the answer of this key; one that came `ttl_s` seconds ago goes."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now - entry.at >= ttl_s:
            self._remove(key)
            self._evicted("age", 1)
            return None
        entry.used = now
        self._entries.move_to_end(key)
        entry.group.keys.move_to_end(key)
        return entry

    def put(self, key: bytes, outputs: "Tensors", size: int, group: Group, age_s: float = 0.0) -> None:
        """Keep an answer that came `age_s` ago, whose arrays are nobody else's; others make room."""
        if group.retired or size > self.most_each:
            return
        for array in outputs.values():
            array.flags.writeable = False  # whoever wrote into it would change everybody's answer
        self._remove(key)
        now, holder = self._clock(), group.holder
        self._entries[key] = Entry(outputs, size, group, now - age_s, now)
        group.keys[key] = None
        holder.groups[group] = None
        self._holders[holder] = None
        holder.bytes += size
        self.bytes += size
        self._make_room(now)

    def retire(self, group: Group) -> None:
        """Let go of a whole group, some and some: there may be a million."""
        if group.retired:
            return
        group.retired = True
        self._retired.append(group)
        self._sweep()

    def _make_room(self, now: float) -> None:
        """Let go of what nobody asks for any more, or else of the longest unused of who takes most, until all fits."""
        gone = 0
        most: tuple[Holder, ...] = ()
        while self.bytes > self.most_bytes:
            oldest = next(iter(self._entries))
            if now - self._entries[oldest].used < QUIET_S:
                # there may be thousands of holders: all are looked at only once another takes most
                if not most or not most[0].groups or most[0].bytes < most[-1].bytes:
                    most = tuple(nlargest(2, self._holders, key=attrgetter("bytes")))
                oldest = min((next(iter(group.keys)) for group in most[0].groups), key=lambda key: self._entries[key].used)
            self._remove(oldest)
            gone += 1
        if gone:
            self._evicted("size", gone)

    def _sweep(self) -> None:
        gone = 0
        while self._retired and gone < _SLICE:
            keys = self._retired[0].keys
            if keys:
                self._remove(next(iter(keys)))
                gone += 1
            else:
                self._retired.popleft()
        if gone:
            self._evicted("retired", gone)
        if self._retired:
            asyncio.get_running_loop().call_soon(self._sweep)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        group, holder = entry.group, entry.group.holder
        del group.keys[key]
        if not group.keys:
            del holder.groups[group]
        if not holder.groups:
            del self._holders[holder]
        holder.bytes -= entry.size
        self.bytes -= entry.size
