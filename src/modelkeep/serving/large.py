"""Large bodies and answers: read and written in threads, so that whoever asks for little does not wait for who asks for much.

Reading rows costs 10 to 120 ns a byte, by their form, and the event loop answers nobody meanwhile: 10 MiB of CSV held it for
0.8 s, of records for 0.4 s. Above `LARGE` a thread reads. Python lets another thread go on after each `SWITCH_S`, so the loop's
turns come late by some milliseconds, at worst by 50: the longest single step, in which msgspec decodes 10 MiB of records. The
same holds for answers. Few threads are enough: they share the interpreter, and a large body gains nothing by a third.

What waits here is bounded by its bytes. Whoever would go beyond is refused at once; whose deadline has passed, or who has left,
is passed over. Callers take turns: one that sends much waits behind itself, and is refused before the others are.
"""

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final, TypeVar

from modelkeep.contracts.errors import Overloaded, Unavailable

LARGE: Final = 256 * 1024
"""Bytes beyond which a body is read in a thread. One of this length holds the loop for 3 to 30 ms; to hand a shorter one over,
and take it back while a thread has the interpreter, would cost about as much."""
LARGE_ANSWER: Final = 32 * 1024
"""Values beyond which an answer is written in a thread: as JSON they are some 256 KiB."""
SWITCH_S: Final = 0.0005
"""How long one thread of a server keeps the others waiting (`sys.setswitchinterval`). A request takes the loop a handful of
system calls, and after each of them it waits for its turn: with Python's 5 ms it would be late by 20 to 30 ms."""

_THREADS: Final = 2
_MOST_BYTES: Final = 256 * 1024 * 1024

T = TypeVar("T")


class TooMuchAtOnce(Overloaded):
    """Large requests and answers of as many bytes as may wait are being read and written: try again soon."""

    code = "large_requests"


class AnswerNotWritten(Unavailable):
    """The model ran, but as much of large answers as may wait is being written: ask for fewer rows, or try again soon."""

    code = "large_answers"


class Large:
    """Does what takes long, two at a time, each caller's in turn; a caller is a key.

    `most_bytes` may be held by all of it, and one thing alone may hold more. Beyond that whoever holds less than its share is
    taken yet, up to twice as much in all.
    """

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "large")
        self._most_bytes = most_bytes
        self._holders: Counter[str] = Counter()
        self._lock = Lock()
        self._waiting: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()

    def do(self, owner: str, size: int, work: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Have `work` done in a thread, and `then` told its result or its error in the event loop; raises `TooMuchAtOnce`."""
        if not self._has_room(owner, size):
            raise TooMuchAtOnce(retry_after_s=1)
        self._holders[owner] += size
        loop = asyncio.get_running_loop()

        def job() -> None:
            try:
                result: T | Exception = work()
            except Exception as error:  # noqa: BLE001 - told
                result = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(told, result)

        def told(result: T | Exception) -> None:
            self._holders[owner] -= size
            if not self._holders[owner]:
                del self._holders[owner]
            then(result)

        with self._lock:
            self._waiting.setdefault(owner, deque()).append(job)
        self._threads.submit(self._next)

    @property
    def _held(self) -> int:
        return self._holders.total()

    def _has_room(self, owner: str, size: int) -> bool:
        held, mine = self._held, self._holders[owner]
        if not held or held + size <= self._most_bytes:
            return True
        if held + size > 2 * self._most_bytes:
            return False
        return not mine or (mine + size) * len(self._holders) <= self._most_bytes

    def _next(self) -> None:
        """Do, in a thread, what is next: the first that waits of the caller whose turn it is."""
        with self._lock:
            owner, mine = self._waiting.popitem(last=False)
            job = mine.popleft()
            if mine:
                self._waiting[owner] = mine
        job()
