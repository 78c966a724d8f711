"""Facts between nouns: a noun publishes what has happened, and those above it react in the same transaction.

Who listens to what is wired in one place; a handler that fails undoes the whole transaction.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from modelkeep.infra.db import Transaction

Event = TypeVar("Event")
Handler = Callable[[Transaction, Event], Awaitable[None]]


class Events:
    """The list of who listens to which fact."""

    def __init__(self) -> None:
        self._handlers: dict[type, list[Handler[Any]]] = defaultdict(list)

    def subscribe(self, kind: type[Event], handler: Handler[Event]) -> None:
        """Have `handler` called for each fact of this type."""
        self._handlers[kind].append(handler)

    async def publish(self, tx: Transaction, event: object) -> None:
        """Tell everyone who listens, one after the other, inside `tx`."""
        for handler in self._handlers[type(event)]:
            await handler(tx, event)
