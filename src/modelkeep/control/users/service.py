"""People and their keys: who may come in, and with which scopes."""

from datetime import datetime

import msgspec
import structlog

from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import Invalid, StorageFull, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name
from modelkeep.contracts.snapshot import Scope, ServedKey
from modelkeep.control.audit.service import Audit
from modelkeep.control.users import store
from modelkeep.control.users.errors import (
    AlreadySetUp,
    BeyondRole,
    KeyNotFound,
    LastAdmin,
    LastAdminKey,
    SetupTokenInvalid,
    UserExists,
    UserNotFound,
)
from modelkeep.control.users.events import KeysChanged, PasswordChanged, SetUpDone, UserDisabled
from modelkeep.control.users.rules import (
    KEY_PREFIX,
    SETUP_TOKEN_LIFE,
    UNLIMITED,
    Key,
    Kind,
    Role,
    SetupToken,
    Status,
    User,
    email_of,
    expiry,
    is_last_admin,
    read_rate,
    use_is_news,
    within,
)
from modelkeep.infra import secrets
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction
from modelkeep.infra.events import Events
from modelkeep.infra.passwords import Passwords

_LONGEST_NAME = 100
_log = structlog.get_logger(__name__)


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key together with its secret, which is shown this once."""

    key: Key
    secret: secrets.Secret


class Users:
    """People and their API keys."""

    def __init__(self, db: Database, audit: Audit, events: Events, clock: Clock, passwords: Passwords) -> None:
        self._db = db
        self._audit = audit
        self._events = events
        self._clock = clock
        self._passwords = passwords

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

    async def set_up(
        self, token: str, name: str, request_id: str = "", *, email: str | None = None, password: str | None = None
    ) -> tuple[User, IssuedKey]:
        """Make the first administrator and their key, in exchange for the setup token.

        With an e-mail address and a password they can log in, too.
        """
        check_name(name)
        if (email is None) != (password is None):
            raise Invalid("Whoever is to log in needs both an e-mail address and a password.")
        now = self._clock()
        user = User(new_id("usr"), name, now, email=None if email is None else email_of(email))
        well_formed = secrets.well_formed(token, secrets.SETUP)
        kept = await self._passwords.hashed(password, name, user.email or "") if password is not None and well_formed else None
        async with self._db.begin() as tx:
            known = await store.setup_token_for_update(tx, secrets.digest(token))
            if await store.anyone(tx):
                raise AlreadySetUp
            if not well_formed or known is None or not known.good(now):
                raise SetupTokenInvalid
            await store.use_setup_token(tx, known.id, now)
            await store.add_user(tx, user, kept)
            actor = msgspec.structs.replace(SYSTEM, request_id=request_id)
            await self._audit.note(tx, actor, "user.create", user.id, name=name)
            issued = await self._issue(tx, actor, Key(new_id(KEY_PREFIX), user.id, "first key", b"", (Scope.ADMIN,), now))
            await self._events.publish(tx, SetUpDone())
            return user, issued

    async def authenticate(self, secret: str, request_id: str = "") -> Actor:
        """Return who holds this secret; raises `Unauthenticated` for anything but a good key."""
        if not secrets.well_formed(secret, secrets.KEY):
            raise Unauthenticated
        now = self._clock()
        async with self._db.read() as tx:
            found = await store.key_by_digest(tx, secrets.digest(secret))
        if found is None or not found[0].good(now) or not found[1].active:
            raise Unauthenticated
        key, user = found
        if use_is_news(key, now):
            await self._note_use(key, now)
        return Actor(key.id, user.name, user.id, within(frozenset(key.scopes), user), request_id)

    async def issue_key(
        self,
        actor: Actor,
        name: str,
        scopes: frozenset[Scope],
        expires_in_days: int | None,
        *,
        rate: str = UNLIMITED,
        burst: int | None = None,
        service: str | None = None,
    ) -> IssuedKey:
        """Make a key for the actor's own user, or for a service account; its secret is in the answer and nowhere else.

        `rate` is `100/min` or `unlimited`; `burst` the most requests at once, a sixth of a minute's without it.
        """
        actor.need(Scope.ADMIN)
        if not scopes:
            raise Invalid("A key needs at least one scope.")
        if not name.strip() or len(name) > _LONGEST_NAME:
            raise Invalid(f"A key's name has 1 to {_LONGEST_NAME} characters.")
        if burst is not None and rate == UNLIMITED:
            raise Invalid("A burst needs a rate.")
        key = Key(
            id=new_id(KEY_PREFIX),
            user_id=service or actor.user,
            name=name.strip(),
            digest=b"",
            scopes=tuple(sorted(scopes)),
            created_at=self._clock(),
            expires_at=expiry(expires_in_days, self._clock()),
            rate_per_minute=read_rate(rate),
            burst=burst,
        )
        async with self._db.begin() as tx:
            user = await self.user_in(tx, key.user_id)
            if user.kind is not Kind.SERVICE and user.id != actor.user:
                raise Invalid("Keys are made for oneself, or for a service.")
            if within(scopes, user) != scopes:
                raise BeyondRole
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
            if is_last_admin(key, _administering(good, without=key_id), now):
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
                within(frozenset(key.scopes), user),
                key.expires_at.timestamp() if key.expires_at else None,
                key.served_rate,
            )
            for key, user in await store.good_keys(tx, self._clock())
        )

    # ---- people and services

    async def user(self, user_id: str) -> User:
        """Return one user."""
        async with self._db.read() as tx:
            return await self.user_in(tx, user_id)

    async def user_in(self, tx: Transaction, user_id: str, *, for_update: bool = False) -> User:
        """Return one user, as `tx` sees them."""
        user = await store.user(tx, user_id, for_update=for_update)
        if user is None:
            raise UserNotFound
        return user

    async def users(self, *, limit: int, before: str | None = None) -> list[User]:
        """List users, newest first."""
        async with self._db.read() as tx:
            return await store.page_of_users(tx, limit=limit, before=before)

    async def add(self, actor: Actor, user: User, kept: str | None = None) -> User:
        """Add a person, with what is kept of their password if they have one, or a service, which has none."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            await self.add_in(tx, actor, user, kept)
        return user

    async def add_in(self, tx: Transaction, actor: Actor, user: User, kept: str | None) -> None:
        """Add a user in `tx`: for whoever has let them in."""
        check_name(user.name)
        if user.kind is Kind.SERVICE and (kept is not None or user.email is not None):
            raise Invalid("A service has keys alone, and neither an e-mail address nor a password.")
        if user.kind is Kind.PERSON and user.email is None:
            raise Invalid("A person has an e-mail address.")
        if not await store.add_user(tx, user, kept):
            raise UserExists
        await self._audit.note(tx, actor, "user.create", user.id, name=user.name, kind=user.kind, role=user.role)

    async def change(self, actor: Actor, user_id: str, *, role: Role | None = None, display_name: str | None = None) -> User:
        """Change a user's role, which holds from their next request on, or the name that is shown; None leaves it."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            admins = await store.active_admins(tx)  # first, so that of two who demote each other one waits
            user = await self.user_in(tx, user_id, for_update=True)
            if role is not None and role is not user.role:
                await self._give_role(tx, actor, user, role, admins)
            if display_name is not None and display_name != user.display_name:
                await self._rename(tx, actor, user_id, display_name)
            return await self.user_in(tx, user_id)

    async def give_role_in(self, tx: Transaction, actor: Actor, user_id: str, role: Role) -> None:
        """Give a user the role that an identity provider says; raises `LastAdmin` like any other change."""
        admins = await store.active_admins(tx)
        user = await self.user_in(tx, user_id, for_update=True)
        if role is not user.role:
            await self._give_role(tx, actor, user, role, admins)

    async def _give_role(self, tx: Transaction, actor: Actor, user: User, role: Role, admins: list[tuple[User, bool]]) -> None:
        if role is not Role.ADMIN:
            await self._need_another(tx, user, admins)
        await store.change_user(tx, user.id, role=role)
        await self._audit.note(tx, actor, "user.role", user.id, name=user.name, old=user.role, new=role)
        await self._events.publish(tx, KeysChanged())

    async def rename(self, actor: Actor, display_name: str) -> User:
        """Change the name that is shown of the actor."""
        async with self._db.begin() as tx:
            await self._rename(tx, actor, actor.user, display_name)
            return await self.user_in(tx, actor.user)

    async def _rename(self, tx: Transaction, actor: Actor, user_id: str, display_name: str) -> None:
        await store.change_user(tx, user_id, display_name=display_name)
        await self._audit.note(tx, actor, "user.rename", user_id)

    async def set_active(self, actor: Actor, user_id: str, *, active: bool) -> User:
        """Let a user in again, or no more; what they have opened ends with that. Doing it twice is no fault."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            admins = await store.active_admins(tx)
            user = await self.user_in(tx, user_id, for_update=True)
            if user.active == active:
                return user
            if not active:
                await self._need_another(tx, user, admins)
                await self._events.publish(tx, UserDisabled(user_id))
            await store.change_user(tx, user_id, status=Status.ACTIVE if active else Status.DISABLED)
            await self._audit.note(tx, actor, "user.enable" if active else "user.disable", user_id, name=user.name)
            await self._events.publish(tx, KeysChanged())
            return await self.user_in(tx, user_id)

    async def password_of_email(self, tx: Transaction, email: str) -> tuple[User, str | None] | None:
        """Return the user with this address, as `email_of` gives it, and what is kept of their password."""
        return await store.password_of_email(tx, email)

    async def named_in(self, tx: Transaction, name: str) -> User | None:
        """Return the user of this name."""
        return await store.user_named(tx, name)

    async def password_of(self, user_id: str) -> str | None:
        """Return what is kept of a user's password."""
        async with self._db.read() as tx:
            return await self.password_of_in(tx, user_id)

    async def password_of_in(self, tx: Transaction, user_id: str) -> str | None:
        """Return what is kept of a user's password, as `tx` sees it."""
        return await store.password_of(tx, user_id)

    async def set_password_in(self, tx: Transaction, actor: Actor, user_id: str, kept: str, *, session: str = "") -> None:
        """Give a user another password; all their sessions end, except `session`."""
        await store.change_user(tx, user_id, password_hash=kept)
        await self._audit.note(tx, actor, "user.password", user_id)
        await self._events.publish(tx, PasswordChanged(user_id, session))

    async def keep_better(self, tx: Transaction, user_id: str, old: str, new: str) -> None:
        """Keep the same password in a better way."""
        await store.replace_hash(tx, user_id, old, new)

    async def _need_another(self, tx: Transaction, user: User, admins: list[tuple[User, bool]]) -> None:
        """Raise `LastAdmin` where nobody could administer without this user."""
        with_key = {owner.id for key, owner in await store.good_keys(tx, self._clock()) if Scope.ADMIN in key.scopes}
        others = [one for one, has_password in admins if one.id != user.id and (has_password or one.id in with_key)]
        if user.id in {one.id for one, _has in admins} and not others:
            raise LastAdmin

    async def _issue(self, tx: Transaction, actor: Actor, key: Key) -> IssuedKey:
        """Give a key its secret, and keep it."""
        secret = secrets.new_secret(secrets.KEY)
        key = msgspec.structs.replace(key, digest=secrets.digest(secret.reveal()))
        await store.add_key(tx, key)
        await self._audit.note(tx, actor, "key.create", key.id, name=key.name, scopes=" ".join(key.scopes), rate=key.rate)
        await self._events.publish(tx, KeysChanged())
        return IssuedKey(key, secret)

    async def _note_use(self, key: Key, now: datetime) -> None:
        try:
            async with self._db.begin() as tx:
                await store.note_use(tx, key.id, now)
        except (DatabaseUnavailable, StorageFull) as error:
            _log.info("key_use_not_noted", key=key.id, reason=error.code)  # the key is good all the same


def _administering(good: list[tuple[Key, User]], *, without: str) -> list[Key]:
    """Return the keys but one, of users who may administer."""
    return [key for key, user in good if key.id != without and user.role is Role.ADMIN]
