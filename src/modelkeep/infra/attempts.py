"""Growing waits between attempts that fail, by the name of what is tried: in the database, so that all processes count.

    await attempts.take({"link address y": 20}, now)     # raises `TriedTooOften` while it is not time yet
    ...                                                  # the attempt
    await attempts.uncounted(tx, "link address y", now)  # in the transaction of what it was for

A login has three names (`take_login`): the account from this network, the network, and the account from anywhere, which many
more may fail for. So who fails from elsewhere does not keep its owner out, and who fails from a thousand places does not either
where its owner has come in lately. Of IPv6 a network has 64 bits, for who has one of its addresses has them all.

An attempt counts as failed from its beginning, so that of many at once no more are let through than one after the other. After
the first few, each doubles the wait for the next, to a quarter of an hour. Nothing is locked for good, and an attempt that was
turned away makes no wait longer: whoever knows the secret comes in with the first attempt after it.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from modelkeep.contracts.errors import Limited
from modelkeep.infra.addresses import shared
from modelkeep.infra.db import Database, Transaction, UtcTime, metadata

LONGEST_WAIT: Final = timedelta(minutes=15)
FORGOTTEN: Final = timedelta(days=1)
REMEMBERED: Final = timedelta(days=30)
"""How long an account is known to have been logged in to from a network."""
ACCOUNT_TRIES: Final = 5
NETWORK_TRIES: Final = 20
ANYWHERE_TRIES: Final = 100
_AT_ONCE: Final = 100

failures = sa.Table(
    "failed_attempts",
    metadata,
    sa.Column("name", sa.LargeBinary, primary_key=True),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("next_at", UtcTime, nullable=False),
    sa.Index(None, "at"),
)


class TriedTooOften(Limited):
    """This has failed too often from here or for this account: wait as long as `Retry-After` says, then try again."""

    code = "tried_too_often"


class Attempts:
    """Counts what fails."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def take(self, names: Mapping[str, int], now: datetime) -> timedelta:
        """Begin an attempt under these names, each with how many may fail before a wait; returns the wait if this fails, too.

        It is certain before it returns, whatever becomes of the request.
        """
        longest = timedelta()
        async with self._db.begin_apart() as tx:
            for name, free in sorted((_digest(name), free) for name, free in names.items()):  # in one order: no deadlock
                row = {"name": name, "failed": 0, "at": now, "next_at": now}
                await tx.execute(tx.insert(failures).values(**row).on_conflict_do_nothing())
                found = await tx.one(sa.select(failures).where(failures.c.name == name).with_for_update())
                if found is None or found.at < now - FORGOTTEN:
                    count = 0
                elif now < found.next_at:
                    raise TriedTooOften(retry_after_s=(found.next_at - now).total_seconds())
                else:
                    count = found.failed
                wait = wait_after(count + 1, free)
                longest = max(longest, wait)
                changed = sa.update(failures).where(failures.c.name == name)
                await tx.execute(changed.values(failed=count + 1, at=now, next_at=now + wait))
            await self._forget(tx, now)
        return longest

    async def take_login(self, account: str, address: str, now: datetime) -> timedelta:
        """Begin an attempt to log in to an account ("" where it is not known before) from an address; as `take`.

        The account from anywhere does not count where it was logged in to from this network lately.
        """
        names = _names(account, address)
        async with self._db.read() as tx:
            known = await tx.one(sa.select(failures.c.at).where(failures.c.name == _known(account, address)))
        if known is not None and known.at >= now - FORGOTTEN:
            names.pop(_anywhere(account), None)
        return await self.take(names, now)

    async def logged_in(self, tx: Transaction, account: str, address: str, now: datetime) -> None:
        """An attempt to log in was right: the account begins anew, and is known to be its owner's from there."""
        for name in sorted(_names(account, address), key=_digest):  # in the order of `take`: no deadlock
            await (self.uncounted(tx, name, now) if name == _network(address) else self.cleared(tx, name))
        if account:
            until = now + REMEMBERED - FORGOTTEN  # from then on it is forgotten like others
            new = tx.insert(failures).values(name=_known(account, address), failed=0, at=until, next_at=now)
            await tx.execute(new.on_conflict_do_update(index_elements=["name"], set_={"at": until}))

    async def not_tried(self, tx: Transaction, account: str, address: str, now: datetime) -> None:
        """It was not found out whether an attempt to log in is right: it is as if it had not been."""
        for name in sorted(_names(account, address), key=_digest):
            await self.uncounted(tx, name, now)

    async def cleared(self, tx: Transaction, name: str) -> None:
        """An attempt was right, and this name begins anew."""
        await tx.execute(sa.delete(failures).where(failures.c.name == _digest(name)))

    async def uncounted(self, tx: Transaction, name: str, now: datetime) -> None:
        """An attempt was right, and for this name it is as if it had not been.

        An address must not be cleared: whoever has one account could try all others from it without ever waiting.
        """
        less = sa.update(failures).where(failures.c.name == _digest(name), failures.c.failed > 0)
        await tx.execute(less.values(failed=failures.c.failed - 1, next_at=now))

    async def _forget(self, tx: Transaction, now: datetime) -> None:
        old = sa.select(failures.c.name).where(failures.c.at < now - FORGOTTEN).order_by(failures.c.at).limit(_AT_ONCE)
        names = [row.name for row in await tx.all(old.with_for_update(skip_locked=True))]
        if names:
            await tx.execute(sa.delete(failures).where(failures.c.name.in_(names)))


def wait_after(count: int, free: int) -> timedelta:
    """Return how long to wait after so many failures."""
    doubled = min(max(count - free, 0), 20)
    return min(timedelta(seconds=2 ** (doubled - 1)), LONGEST_WAIT) if doubled else timedelta()


def _names(account: str, address: str) -> dict[str, int]:
    """Return under which names an attempt to log in counts, and how many may fail before a wait."""
    of_account = {_here(account, address): ACCOUNT_TRIES, _anywhere(account): ANYWHERE_TRIES} if account else {}
    return of_account | {_network(address): NETWORK_TRIES}


def _network(address: str) -> str:
    return f"login address {shared(address)}"


def _here(account: str, address: str) -> str:
    return f"login from {shared(address)} {account}"  # a network has no space: no account has the name of another's place


def _anywhere(account: str) -> str:
    return f"login anywhere {account}"


def _known(account: str, address: str) -> bytes:
    """Return the name under which it is kept that an account was logged in to from there."""
    return _digest(f"right {_here(account, address)}")


def _digest(name: str) -> bytes:
    """What was typed as a name may be a password that slipped into the wrong field: it is not kept as it is."""
    return hashlib.sha256(name.encode()).digest()
