"""Directories (LDAP): a name and a password, groups within groups, and several servers of which any will do.

The library blocks, so it works in a few threads of its own: some for logins, which anybody may try, others for what is asked
again of those who are in. Who would wait for one too long is refused; a directory that is away holds nobody up but those who
ask it.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import ldap
import structlog

from modelkeep.contracts.auth import Clock, Identity, IdentityRefused, LdapSettings, ProviderBusy, ProviderUnavailable
from modelkeep.plugins.auth.ldap.asking import Asking, checked, password_in
from modelkeep.plugins.auth.ldap.escaping import checked_login

_THREADS: Final = 4
_MOST_WAITING: Final = 16
_LAST_FOR_S: Final = 30.0
"""How long a server that has failed is asked last."""
_log = structlog.get_logger(__name__)
Found = TypeVar("Found")


class Directory:
    """One directory."""

    def __init__(self, settings: LdapSettings, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        del clock  # nothing here has a date
        self.settings = checked(settings)
        password = password_in(settings.bind_password_file) if settings.bind_dn else ""
        self._servers = {server: Asking(self.settings, server, password) for server in settings.servers}
        self._failed = dict.fromkeys(self._servers, float("-inf"))
        self._monotonic = monotonic
        self._logins = _Places(f"ldap-{settings.name}")
        self._asked_again = _Places(f"ldap-{settings.name}-again")

    @property
    def follows(self) -> bool:
        """Whether it can be asked again: not without somebody to ask as."""
        return bool(self.settings.bind_dn)

    async def identity(self, login: str, password: str) -> Identity:
        """Return who this is."""
        login = checked_login(login)
        if not password or "\0" in password:  # a server would take it for no password, and let anyone in (RFC 4513, 5.1.2)
            raise IdentityRefused
        return await self._any(self._logins, lambda server: server.identity(login, password))

    async def again(self, subject: str) -> Identity | None:
        """Return what is known of somebody now."""
        return await self._any(self._asked_again, lambda server: server.again(subject))

    async def close(self) -> None:
        """Let go of threads; what is under way ends at its own deadline."""
        for places in (self._logins, self._asked_again):
            places.threads.shutdown(wait=False, cancel_futures=True)

    async def _any(self, places: "_Places", ask: Callable[[Asking], Found]) -> Found:
        ends = self._monotonic() + self.settings.deadline_s
        work = places.begin(lambda: self._any_server(ask, ends))
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                return await asyncio.wrap_future(work)
        except TimeoutError as error:
            raise ProviderUnavailable from error

    def _any_server(self, ask: Callable[[Asking], Found], ends: float) -> Found:
        """Ask one server after the other, those that have failed lately at the end; a refusal is an answer."""
        now = self._monotonic()
        for server in sorted(self._servers, key=lambda one: now - self._failed[one] < _LAST_FOR_S):
            if self._monotonic() >= ends:
                break
            try:
                return ask(self._servers[server])
            except (ldap.LDAPError, OSError) as error:
                self._failed[server] = self._monotonic()
                _log.warning("directory_server_failed", provider=self.settings.name, server=server, reason=type(error).__name__)
        raise ProviderUnavailable


class _Places:
    """A few threads, and as many who wait for one."""

    def __init__(self, name: str) -> None:
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self.taken = 0

    def begin(self, work: Callable[[], Found]) -> Future[Found]:
        """Begin work; raises `ProviderBusy` where too much is under way."""
        if self.taken >= _THREADS + _MOST_WAITING:
            raise ProviderBusy
        begun = self.threads.submit(work)
        self.taken += 1
        loop = asyncio.get_running_loop()

        def ended(_work: Future[Found]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended)

        begun.add_done_callback(ended)
        return begun

    def _ended(self) -> None:
        self.taken -= 1
