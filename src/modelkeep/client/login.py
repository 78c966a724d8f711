"""The login of a client: tokens that go with its requests, and are renewed before they end or when one is refused.

A refresh token is good for one use. So who renews holds the place where the tokens are kept, looks first whether somebody else
has renewed them meanwhile, and keeps what came before anything else happens.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from modelkeep.client.errors import NotAuthenticated
from modelkeep.client.identity import Tokens

ENDED = "refresh_refused"
"""The code of a server that takes a refresh token no more."""


class Keeper(Protocol):
    """Where tokens are kept. They are written only by who holds it, in this process and in all others."""

    def read(self) -> Tokens | None:
        """Return the tokens, if there are any."""

    def write(self, tokens: Tokens | None) -> None:
        """Keep these tokens from now on; None forgets them."""

    def held(self) -> AbstractContextManager[object]:
        """Hold it: who asks next has to wait."""


class InMemory:
    """Keeps tokens as long as the client lives."""

    def __init__(self) -> None:
        self._tokens: Tokens | None = None
        self._lock = threading.Lock()

    def read(self) -> Tokens | None:
        """Return the tokens, if there are any."""
        return self._tokens

    def write(self, tokens: Tokens | None) -> None:
        """Keep these tokens from now on; None forgets them."""
        self._tokens = tokens

    def held(self) -> AbstractContextManager[object]:
        """Hold it: who asks next has to wait."""
        return self._lock


class Login:
    """The tokens in use. `refresh` exchanges a refresh token at the server; like all methods here, it blocks."""

    def __init__(self, keeper: Keeper, refresh: Callable[[str], Tokens]) -> None:
        self._keeper = keeper
        self._refresh = refresh
        self._tokens: Tokens | None = None

    @property
    def access_token(self) -> str:
        """What goes with a request; "" where nobody is logged in."""
        return self._tokens.access_token if self._tokens else ""

    @property
    def due(self) -> bool:
        """Whether `renew` has something to do before the next request."""
        return self._tokens is None or self._tokens.end_soon

    def renew(self, spent: str = "") -> bool:
        """Have tokens that may be used: kept ones, or new ones; False where nobody is logged in.

        `spent` is an access token that was refused. Raises `NotAuthenticated` where the session has ended.
        """
        self._tokens = self._keeper.read()
        if self._tokens is None or _good(self._tokens, spent):
            return self._tokens is not None
        with _ctrl_c_afterwards():
            self._tokens = self._renewed(spent)
        return self._tokens is not None

    def _renewed(self, spent: str) -> Tokens | None:
        with self._keeper.held():
            tokens = self._keeper.read()
            if tokens is None or _good(tokens, spent):
                return tokens
            try:
                tokens = self._refresh(tokens.refresh_token)
            except NotAuthenticated as error:
                if error.code == ENDED:
                    self._keeper.write(None)
                raise
            self._keeper.write(tokens)
            return tokens

    def keep(self, tokens: Tokens | None) -> None:
        """Go on with these tokens; None forgets those that there were."""
        with self._keeper.held():
            self._keeper.write(tokens)
        self._tokens = tokens


@contextmanager
def _ctrl_c_afterwards() -> Iterator[None]:
    """Have Ctrl-C count once this is over: the old token may be used up already, and the new one not kept yet.

    It reaches the main thread alone, and nothing that is not Python's is touched.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _good(tokens: Tokens, spent: str) -> bool:
    return tokens.access_token != spent and not tokens.end_soon
