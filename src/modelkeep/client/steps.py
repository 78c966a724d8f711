"""What an operation of the client asks for, one step after the other; whoever runs it blocks or awaits.

An operation is a generator: it yields steps, receives their answers, and returns its result. It is written once, and run by
`Connection` for `Client` and by `AsyncConnection` for `AsyncClient`. Errors of a step are raised where it was yielded.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Part = tuple[str, tuple[str | None, Any, str]]


@dataclass(frozen=True)
class Ask:
    """One request; the answer is an `httpx.Response` that was read whole, whatever its status.

    `parts` opens the parts of a form (anew for each time that it is sent), and `told` is called as its pieces go out.
    `patience`: seconds to wait for the answer, where they are more than the client's own. `repeat`: nothing happens twice if
    it is sent again (a write carries an `Idempotency-Key` for that); `end_when_lost`: not even so where the connection breaks,
    for the caller waits for the server first. `anonymous`: it goes without a login, and needs none.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    parts: Callable[[], AbstractContextManager[list[Part]]] | None = None
    told: Callable[[], None] | None = None
    patience: float = 0.0
    repeat: bool = False
    end_when_lost: bool = False
    anonymous: bool = False


@dataclass(frozen=True)
class Lines:
    """A request whose answer is read line by line until `take` returns True; the answer is the response."""

    ask: Ask
    take: Callable[[str], bool]
    silence: float


@dataclass(frozen=True)
class Save:
    """A request whose answer is written piece by piece; the answer is the response. `write` may block, `told` may not."""

    ask: Ask
    write: Callable[[bytes], object]
    told: Callable[[bytes], object]


@dataclass(frozen=True)
class Pause:
    """Nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that blocks, as reading a file does; the answer is what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class Together:
    """Several operations, at most so many of them under way; the answer is the list of their results, in order."""

    each: "Iterable[Steps[Any]]"
    at_once: int


Step = Ask | Lines | Save | Pause | Work | Together
Steps = Generator[Step, Any, T]
