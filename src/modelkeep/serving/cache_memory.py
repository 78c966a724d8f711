"""Kept answers in memory: bounded by their bytes, the least recently used going first."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from modelkeep.serving.coercion import Array

if TYPE_CHECKING:
    from modelkeep.serving.codec import Tensors

_ENTRY: Final = 768  # bytes that an answer takes beside its arrays: its key, places in three tables, the objects around it
_ARRAY: Final = 256
_TEXT: Final = 64
_PART: Final = 16  # of the bound: the most that one answer may take
_SLICE: Final = 1024  # answers that are let go of at once: half a millisecond


class Group:
    """The keys of what one version has said for one deployment. Once `retired`, nothing more is put there."""

    __slots__ = ("keys", "retired")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.retired = False


class Entry:
    """A kept answer: the model's outputs, the bytes they take, and the time of the clock when they came."""

    __slots__ = ("at", "group", "outputs", "size")

    def __init__(self, outputs: "Tensors", size: int, group: Group, at: float) -> None:
        self.outputs = outputs
        self.size = size
        self.group = group
        self.at = at


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
        self._retired: deque[Group] = deque()

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._entries)

    def get(self, key: bytes, ttl_s: float) -> Entry | None:
        """Return the answer of this key; one that came `ttl_s` seconds ago goes."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() - entry.at >= ttl_s:
            self._remove(key)
            self._evicted("age", 1)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, outputs: "Tensors", size: int, group: Group, age_s: float = 0.0) -> None:
        """Keep an answer that came `age_s` ago, whose arrays are nobody else's; what was the longest unused makes room."""
        if group.retired or size > self.most_each:
            return
        for array in outputs.values():
            array.flags.writeable = False  # whoever wrote into it would change everybody's answer
        self._remove(key)
        self._entries[key] = Entry(outputs, size, group, self._clock() - age_s)
        group.keys.add(key)
        self.bytes += size
        gone = 0
        while self.bytes > self.most_bytes:
            self._remove(next(iter(self._entries)))
            gone += 1
        if gone:
            self._evicted("size", gone)

    def retire(self, group: Group) -> None:
        """Let go of a whole group, some and some: there may be a million."""
        if group.retired:
            return
        group.retired = True
        self._retired.append(group)
        self._sweep()

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

    def _remove(self, key: bytes) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        entry.group.keys.discard(key)
        self.bytes -= entry.size
        return True
