"""People and their keys: who may come in, and with which scopes."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import structlog

from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import Invalid, StorageFull, Unauthenticated, WrongNetwork
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name
from modelkeep.contracts.snapshot import Scope, ServedKey
from modelkeep.control.audit.service import Audit
from modelkeep.control.users import store
from modelkeep.control.users.errors import AlreadySetUp, KeyNotFound, LastAdminKey, SetupTokenInvalid
from modelkeep.control.users.events import KeysChanged, SetUpDone
from modelkeep.control.users.rules import (
    SETUP_TOKEN_LIFE,
    UNLIMITED,
    Classes,
    Key,
    SetupToken,
    User,
    expiry,
    is_last_admin,
    read_networks,
    use_is_news,
)
from modelkeep.infra import secrets
from modelkeep.infra.addresses import within
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction
from modelkeep.infra.events import Events

_LONGEST_NAME = 100
_log = structlog.get_logger(__name__)


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key together with its secret, which is shown this once."""

    key: Key
    secret: secrets.Secret


class Users:
    """People and their API keys."""

    def __init__(self, db: Database, audit: Audit, events: Events, clock: Clock, classes: Classes | None = None) -> None:
        self._db = db
        self._audit = audit
        self._events = events
        self._clock = clock
        self._classes = classes or Classes()

    async def anyone(self) -> bool:
        """Whether there is a user: whether this installation has been set up."""
        async with self._db.read() as tx:
            return await store.anyone(tx)

    async def ensure_setup_token(self, now: datetime) -> str | None:
        """Return a fresh setup token to print, replacing an older one; None when the first administrator exists."""
        async with self._db.begin() as tx:
            if await store.anyone(tx):
                return None
            token = secrets.new_secret(secrets.SETUP).reveal()
            await store.replace_setup_token(tx, SetupToken(new_id("set"), secrets.digest(token), now + SETUP_TOKEN_LIFE))
            return token

    async def set_up(self, token: str, name: str, request_id: str = "") -> tuple[User, IssuedKey]:
        """Make the first administrator and their key, in exchange for the setup token."""
        check_name(name)
        now = self._clock()
        async with self._db.begin() as tx:
            known = await store.setup_token_for_update(tx, secrets.digest(token))
            if await store.anyone(tx):
                raise AlreadySetUp
            if not secrets.well_formed(token, secrets.SETUP) or known is None or not known.good(now):
                raise SetupTokenInvalid
            await store.use_setup_token(tx, known.id, now)
            user = User(new_id("usr"), name, now)
            await store.add_user(tx, user)
            actor = msgspec.structs.replace(SYSTEM, request_id=request_id)
            await self._audit.note(tx, actor, "user.create", user.id, name=name)
            issued = await self._issue(tx, actor, Key(new_id("key"), user.id, "first key", b"", (Scope.ADMIN,), now))
            await self._events.publish(tx, SetUpDone())
            return user, issued

    async def authenticate(self, secret: str, request_id: str = "", address: str | None = None) -> Actor:
        """Return who holds this secret.

        Raises `Unauthenticated` for anything but a good key, `WrongNetwork` for one that is not good from `address`.
        """
        if not secrets.well_formed(secret, secrets.KEY):
            raise Unauthenticated
        now = self._clock()
        async with self._db.read() as tx:
            found = await store.key_by_digest(tx, secrets.digest(secret))
        if found is None or not found[0].good(now):
            raise Unauthenticated
        key, user = found
        if key.networks and not within(address, key.networks):
            raise WrongNetwork
        if use_is_news(key, now):
            await self._note_use(key, now)
        return Actor(key.id, user.name, user.id, frozenset(key.scopes), request_id, limited=not key.unlimited)

    async def issue_key(
        self,
        actor: Actor,
        name: str,
        scopes: frozenset[Scope],
        expires_in_days: int | None,
        *,
        rate: str = UNLIMITED,
        burst: int | None = None,
        networks: Sequence[str] = (),
    ) -> IssuedKey:
        """Make a key for the actor's own user; its secret is in the answer and nowhere else.

        `rate` is `100/min`, a class of the settings, `user` (the rate that this user's keys share) or `unlimited`; `burst` the
        most requests at once, a sixth of a minute's without it. From `networks` alone it is good, if any are named.
        """
        actor.need(Scope.ADMIN)
        if not scopes:
            raise Invalid("A key needs at least one scope.")
        if not name.strip() or len(name) > _LONGEST_NAME:
            raise Invalid(f"A key's name has 1 to {_LONGEST_NAME} characters.")
        per_minute, burst, rate_class = self._classes.read(rate, burst)
        key = Key(
            id=new_id("key"),
            user_id=actor.user,
            name=name.strip(),
            digest=b"",
            scopes=tuple(sorted(scopes)),
            created_at=self._clock(),
            expires_at=expiry(expires_in_days, self._clock()),
            rate_per_minute=per_minute,
            burst=burst,
            rate_class=rate_class,
            networks=read_networks(list(networks)),
        )
        async with self._db.begin() as tx:
            return await self._issue(tx, actor, key)

    async def keys(self, *, limit: int, before: str | None = None) -> list[Key]:
        """List the keys that are not revoked, newest first."""
        async with self._db.read() as tx:
            return await store.page_of_keys(tx, limit=limit, before=before)

    async def key(self, key_id: str) -> Key:
        """Return one key."""
        async with self._db.read() as tx:
            key = await store.key(tx, key_id)
        if key is None:
            raise KeyNotFound
        return key

    async def revoke_key(self, actor: Actor, key_id: str) -> None:
        """Revoke a key; revoking it twice is no fault."""
        actor.need(Scope.ADMIN)
        now = self._clock()
        async with self._db.begin() as tx:
            good = await store.good_keys(tx, now, for_update=True)
            key = await store.key(tx, key_id)
            if key is None:
                raise KeyNotFound
            if key.revoked_at is not None:
                return
            if is_last_admin(key, [other for other in good if other.id != key_id], now):
                raise LastAdminKey
            await store.revoke_key(tx, key_id, now)
            await self._audit.note(tx, actor, "key.revoke", key_id, name=key.name)
            await self._events.publish(tx, KeysChanged())

    async def served_keys(self, tx: Transaction) -> tuple[ServedKey, ...]:
        """Return the keys that serving must know, for a snapshot made in `tx`."""
        return tuple(
            ServedKey(
                key.id,
                key.digest,
                key.name,
                frozenset(key.scopes),
                key.expires_at.timestamp() if key.expires_at else None,
                rate,
                bucket=bucket,
                networks=key.networks,
            )
            for key in await store.good_keys(tx, self._clock())
            for rate, bucket in (self._classes.served(key),)
        )

    async def _issue(self, tx: Transaction, actor: Actor, key: Key) -> IssuedKey:
        """Give a key its secret, and keep it."""
        secret = secrets.new_secret(secrets.KEY)
        key = msgspec.structs.replace(key, digest=secrets.digest(secret.reveal()))
        await store.add_key(tx, key)
        details = {"name": key.name, "scopes": " ".join(key.scopes), "rate": key.rate}
        if key.networks:
            details["networks"] = " ".join(key.networks)
        await self._audit.note(tx, actor, "key.create", key.id, **details)
        await self._events.publish(tx, KeysChanged())
        return IssuedKey(key, secret)

    async def _note_use(self, key: Key, now: datetime) -> None:
        try:
            async with self._db.begin() as tx:
                await store.note_use(tx, key.id, now)
        except (DatabaseUnavailable, StorageFull) as error:
            _log.info("key_use_not_noted", key=key.id, reason=error.code)  # the key is good all the same
