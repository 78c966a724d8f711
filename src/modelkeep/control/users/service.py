"""People and their keys: who may come in, and with which scopes."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.certificates import KeyCertificate
from modelkeep.contracts.errors import Forbidden, Invalid
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name
from modelkeep.contracts.secret import Secret
from modelkeep.contracts.snapshot import Rate
from modelkeep.control.audit.service import Audit
from modelkeep.control.users import store
from modelkeep.control.users.errors import (
    AlreadySetUp,
    CertificateInUse,
    KeyNotFound,
    KeyRotationUnderWay,
    SetupTokenInvalid,
    UserExists,
    UserNotFound,
)
from modelkeep.control.users.events import KeysChanged, MayHaveBeenLast, PasswordChanged, SetUpDone, UserAdded, UserDisabled
from modelkeep.control.users.holders import Holders
from modelkeep.control.users.rules import (
    KEY_PREFIX,
    SETUP_TOKEN_LIFE,
    SHARED,
    Classes,
    Key,
    Kind,
    SetupToken,
    Status,
    User,
    check_may_bind,
    email_of,
    expiry,
    read_networks,
    rotated,
    told,
)
from modelkeep.infra import secrets
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events
from modelkeep.infra.passwords import Passwords

_LONGEST_NAME = 100
_TOO_FAST = (
    "Administrators of the installation alone give this rate: make it `user`, or one that is, with your other keys' rates, at "
    "most {0.per_minute}/min with a burst of {0.burst}."
)


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key together with its secret, which is shown this once."""

    key: Key
    secret: Secret


class Users:
    """People and their API keys."""

    def __init__(
        self,
        db: Database,
        audit: Audit,
        events: Events,
        clock: Clock,
        passwords: Passwords,
        *,
        classes: Classes | None = None,
    ) -> None:
        self._db = db
        self._audit = audit
        self._events = events
        self._clock = clock
        self._passwords = passwords
        self._classes = classes or Classes()
        self.holders = Holders(db, clock)

    async def anyone(self) -> bool:
        """Whether there is a user: whether this installation has been set up."""
        async with self._db.read() as tx:
            return await store.anyone(tx)

    async def ensure_setup_token(self, now: datetime) -> Secret | None:
        """Return a fresh setup token to print, replacing an older one; None when the first administrator exists."""
        async with self._db.begin() as tx:
            if await store.anyone(tx):
                return None
            token = secrets.new_secret(secrets.SETUP)
            kept = SetupToken(new_id("set"), secrets.digest(token.reveal()), now + SETUP_TOKEN_LIFE)
            await store.replace_setup_token(tx, kept)
            return token

    async def set_up(
        self,
        token: Secret,
        name: str,
        request_id: str = "",
        address: str = "",
        *,
        email: str | None = None,
        password: str | None = None,
    ) -> tuple[User, IssuedKey]:
        """Make the first administrator and their key, in exchange for the setup token.

        With an e-mail address and a password they can log in, too.
        """
        check_name(name)
        if (email is None) != (password is None):
            raise Invalid("Whoever is to log in needs both an e-mail address and a password.")
        now = self._clock()
        user = User(new_id("usr"), name, now, email=None if email is None else email_of(email), email_proven=email is not None)
        well_formed = secrets.well_formed(token.reveal(), secrets.SETUP)
        kept = await self._passwords.hashed(password, name, user.email or "") if password is not None and well_formed else None
        async with self._db.begin() as tx:
            known = await store.setup_token_for_update(tx, secrets.digest(token.reveal()))
            if await store.anyone(tx):
                raise AlreadySetUp
            if not well_formed or known is None or not known.good(now):
                raise SetupTokenInvalid
            await store.use_setup_token(tx, known.id, now)
            await store.add_user(tx, user, kept)
            actor = msgspec.structs.replace(SYSTEM, request_id=request_id, address=address)
            await self._audit.note(tx, actor, "user.create", user.id, after=name, name=name)
            issued = await self._issue(tx, actor, Key(new_id(KEY_PREFIX), user.id, "first key", b"", (Scope.ADMIN,), now))
            await self._events.publish(tx, SetUpDone(user.id, request_id))
            return user, issued

    async def issue_key(
        self,
        actor: Actor,
        name: str,
        scopes: frozenset[Scope],
        expires_in_days: int | None,
        *,
        rate: str = SHARED,
        burst: int | None = None,
        concurrency: int | None = None,
        service: str | None = None,
        models: tuple[str, ...] | None = None,
        networks: Sequence[str] = (),
        certificate: KeyCertificate | None = None,
    ) -> IssuedKey:
        """Make a key for the actor's own user, or for a service account; its secret is in the answer and nowhere else.

        `rate` is `user` (the rate that this user's keys share), `100/min`, a class of the settings or `unlimited`; more than
        `user` allows is given by administrators. `burst` is the most requests at once, a sixth of a minute's without it, and
        `concurrency` the most predictions under way. `models` are the ids of those that it is good for, None for all; from
        `networks` alone it is good, if any are named, and with `certificate` alone, if there is one.
        """
        actor.carry_all()
        check_may_bind(actor, certificate)
        if service is not None:
            actor.need(Scope.ADMIN)
        if not scopes:
            raise Invalid("A key needs at least one scope.")
        if not name.strip() or len(name) > _LONGEST_NAME:
            raise Invalid(f"A key's name has 1 to {_LONGEST_NAME} characters.")
        per_minute, burst, rate_class = self._classes.read(rate, burst)
        key = Key(
            id=new_id(KEY_PREFIX),
            user_id=service or actor.user,
            name=name.strip(),
            digest=b"",
            scopes=tuple(sorted(scopes)),
            created_at=self._clock(),
            expires_at=expiry(expires_in_days, self._clock()),
            rate_per_minute=per_minute,
            burst=burst,
            models=models,
            rate_class=rate_class,
            networks=read_networks(list(networks)),
            concurrency=concurrency,
            certificate=certificate,
        )
        async with self._db.begin() as tx:
            user = await self.user_in(tx, key.user_id, for_update=True)
            if not actor.may(Scope.ADMIN) and self._classes.above(key, await store.good_keys_of(tx, user.id, key.created_at)):
                raise Forbidden(_TOO_FAST.format(self._classes.user))
            if user.kind is not Kind.SERVICE and user.id != actor.user:
                raise Invalid("Keys are made for oneself, or for a service.")
            return await self._issue(tx, actor, key)

    async def keys(self, actor: Actor, *, limit: int, before: str | None = None) -> list[Key]:
        """List the keys that are not revoked, newest first: one's own, and for administrators all."""
        of = None if actor.may(Scope.ADMIN) else actor.user
        async with self._db.read() as tx:
            return await store.page_of_keys(tx, limit=limit, before=before, of=of)

    async def key(self, key_id: str) -> Key:
        """Return one key."""
        async with self._db.read() as tx:
            key = await store.key(tx, key_id)
        if key is None:
            raise KeyNotFound
        return key

    async def revoke_key(self, actor: Actor, key_id: str) -> None:
        """Revoke one's own key, or as an administrator anybody's; revoking it twice is no fault."""
        now = self._clock()
        async with self._db.begin() as tx:
            key = await store.key(tx, key_id)
            if key is None or not (key.user_id == actor.user or actor.may(Scope.ADMIN)):
                raise KeyNotFound
            actor.carry_all()
            if key.revoked_at is not None:
                return
            await store.revoke_key(tx, key_id, now)
            await self._events.publish(tx, MayHaveBeenLast())
            await self._audit.note(
                tx, actor, "key.revoke", key_id, before="good", after="revoked", about=key.user_id, name=key.name
            )
            await self._events.publish(tx, KeysChanged())

    async def rotate_key(self, actor: Actor, key_id: str, keep_days: int) -> IssuedKey:
        """Give a key another secret, which is in the answer and nowhere else; the present one opens the same for so many days.

        One's own key, or as an administrator one of a service: nobody gets what another person would come in with. Raises
        `KeyRotationUnderWay` where it has two already.
        """
        now = self._clock()
        async with self._db.begin() as tx:
            key = await self._good_key(tx, actor, key_id, now)
            await self._check_theirs(tx, actor, key, "rotated")
            if key.has_previous(now):
                raise KeyRotationUnderWay
            secret = secrets.new_secret(secrets.KEY)
            key = rotated(key, secrets.digest(secret.reveal()), now, keep_days)
            await store.change_key(tx, key)
            await self._audit.note(tx, actor, "key.rotate", key_id, about=key.user_id, name=key.name, keep_days=str(keep_days))
            await self._events.publish(tx, KeysChanged())
            return IssuedKey(key, secret)

    async def end_previous(self, actor: Actor, key_id: str) -> None:
        """End the secret that one's own key, or as an administrator anybody's, had before; ending it twice is no fault."""
        now = self._clock()
        async with self._db.begin() as tx:
            key = await self._good_key(tx, actor, key_id, now)
            if key.has_previous(now):
                await store.change_key(tx, msgspec.structs.replace(key, previous_digest=None, previous_until=None))
                await self._audit.note(tx, actor, "key.end_previous", key_id, about=key.user_id, name=key.name)
                await self._events.publish(tx, KeysChanged())

    async def bind_key(self, actor: Actor, key_id: str, certificate: KeyCertificate) -> Key:
        """Have a key go with these certificates, and no longer with others: on open connections, too.

        One's own key, or as an administrator one of a service: a certificate is as good as a secret.
        """
        now = self._clock()
        async with self._db.begin() as tx:
            key = await self._good_key(tx, actor, key_id, now)
            check_may_bind(actor, certificate)
            await self._check_theirs(tx, actor, key, "bound")
            before = key.certificate
            if before == certificate:
                return key
            key = msgspec.structs.replace(key, certificate=certificate)
            await store.change_key(tx, key)
            await self._claim(tx, key)
            await self._events.publish(tx, MayHaveBeenLast())
            await self._audit.note(
                tx,
                actor,
                "key.bind",
                key_id,
                before=told(before),
                after=told(certificate),
                about=key.user_id,
                name=key.name,
            )
            await self._events.publish(tx, KeysChanged())
            return key

    async def _claim(self, tx: Transaction, key: Key) -> None:
        """Have the certificates of a key stand for it, where they do; raises `CertificateInUse`."""
        if not await store.claim_certificate(tx, key, self._clock()):
            raise CertificateInUse

    async def _check_theirs(self, tx: Transaction, actor: Actor, key: Key, done: str) -> None:
        """Raise `Invalid` where a key is another person's: nobody gets what they would come in with."""
        user = await self.user_in(tx, key.user_id)
        if user.kind is not Kind.SERVICE and user.id != actor.user:
            raise Invalid(f"Keys are {done} by whoever has them, and those of services by administrators.")

    async def _good_key(self, tx: Transaction, actor: Actor, key_id: str, now: datetime) -> Key:
        """Return a good key of the actor, or of anybody where they administer, for them to change."""
        key = await store.key(tx, key_id, for_update=True)
        if key is None or not key.good(now) or not (key.user_id == actor.user or actor.may(Scope.ADMIN)):
            raise KeyNotFound
        actor.carry_all()
        return key

    async def named(self, user_id: str) -> frozenset[str]:
        """Return the ids that stand for a user in the audit trail: their own, and those of all keys they ever had."""
        async with self._db.read() as tx:
            return frozenset({user_id, *await store.key_ids_of(tx, user_id)})

    async def everybody(self) -> list[str]:
        """Return all ids by which the audit trail may know people: those of users, and of all keys that there ever were."""
        async with self._db.read() as tx:
            return await store.everybody(tx)

    async def good_keys(self, tx: Transaction) -> list[Key]:
        """Return the keys that open something now."""
        return [key for key, _user in await store.good_keys(tx, self._clock())]

    async def active_people(self, tx: Transaction) -> dict[str, str]:
        """Return the names of the people who may come in, by their ids."""
        return await store.active_people(tx)

    def rate_of_person(self, user_id: str) -> tuple[Rate, str]:
        """Return the rate of a person who has logged in, and the bucket that they share with their keys."""
        return self._classes.of_person(user_id)

    def rate_of(self, key: Key) -> tuple[Rate | None, str]:
        """Return a key's rate, None for unlimited, and the bucket that it shares with others, "" for its own."""
        return self._classes.served(key)

    async def key_in(self, tx: Transaction, key_id: str) -> Key | None:
        """Return a good key, as a transaction that is open sees it."""
        key = await store.key(tx, key_id)
        return key if key is not None and key.good(self._clock()) else None

    async def who_can_come_in(self, tx: Transaction, user_ids: set[str]) -> set[str]:
        """Return those of these users who can do with a password, or a key, all that they may."""
        with_key = {key.user_id for key in await self.good_keys(tx) if key.whole}
        return await store.who_can_log_in(tx, user_ids) | (with_key & user_ids)

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

    async def is_user(self, tx: Transaction, user_id: str) -> bool:
        """Whether there is such a user."""
        return await store.user(tx, user_id) is not None

    async def users(self, *, limit: int, before: str | None = None) -> list[User]:
        """List users, newest first."""
        async with self._db.read() as tx:
            return await store.page_of_users(tx, limit=limit, before=before)

    async def add(self, actor: Actor, user: User, kept: str | None = None, role: Role | None = None) -> User:
        """Add a person, with what is kept of their password if they have one, or a service, which has none.

        `role` is one on the installation; None for none.
        """
        actor.need(Scope.ADMIN)
        user = msgspec.structs.replace(user, email_proven=user.email is not None)
        async with self._db.begin() as tx:
            await self.add_in(tx, actor, user, kept, role)
        return user

    async def add_in(self, tx: Transaction, actor: Actor, user: User, kept: str | None, role: Role | None) -> None:
        """Add a user in `tx`: for whoever has let them in."""
        check_name(user.name)
        if user.kind is Kind.SERVICE and (kept is not None or user.email is not None):
            raise Invalid("A service has keys alone, and neither an e-mail address nor a password.")
        if user.kind is Kind.PERSON and user.email is None:
            raise Invalid("A person has an e-mail address.")
        if not await store.add_user(tx, user, kept):
            raise UserExists
        await self._audit.note(tx, actor, "user.create", user.id, name=user.name, kind=user.kind)
        await self._events.publish(tx, UserAdded(user.id, role, actor))

    async def change(self, actor: Actor, user_id: str, *, name: str | None = None, display_name: str | None = None) -> User:
        """Change what a user is called, and what is shown of them; raises `UserExists` where another has the name.

        One-time tokens that they made are good no more: those are by whoever has the name.
        """
        actor.need(Scope.ADMIN)
        if name is not None:
            check_name(name)
        async with self._db.begin() as tx:
            user = await self.user_in(tx, user_id, for_update=True)
            if name is not None and name != user.name:
                if not await store.take_name(tx, user_id, name):
                    raise UserExists
                await self._audit.note(tx, actor, "user.rename", user_id, before=user.name, after=name)
                await self._events.publish(tx, KeysChanged())
            if display_name is not None and display_name != user.display_name:
                await self._rename(tx, actor, user_id, display_name)
            return await self.user_in(tx, user_id)

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
            user = await self.user_in(tx, user_id, for_update=True)
            if user.active == active:
                return user
            await store.change_user(tx, user_id, status=Status.ACTIVE if active else Status.DISABLED)
            if not active:
                await self._events.publish(tx, MayHaveBeenLast())
                await self._events.publish(tx, UserDisabled(user_id))
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

    async def take_back_in(self, tx: Transaction, user_id: str) -> None:
        """Have a user be whoever has proven to have their address, and nobody else: password, sessions and keys are no more."""
        await store.change_user(tx, user_id, password_hash=None, email_proven=True)
        await store.revoke_keys_of(tx, user_id, self._clock())
        await self._events.publish(tx, PasswordChanged(user_id))
        await self._events.publish(tx, MayHaveBeenLast())
        await self._events.publish(tx, KeysChanged())

    async def keep_better(self, tx: Transaction, user_id: str, old: str, new: str) -> None:
        """Keep the same password in a better way."""
        await store.replace_hash(tx, user_id, old, new)

    async def _issue(self, tx: Transaction, actor: Actor, key: Key) -> IssuedKey:
        """Give a key its secret, and keep it."""
        secret = secrets.new_secret(secrets.KEY)
        key = msgspec.structs.replace(key, digest=secrets.digest(secret.reveal()))
        await store.add_key(tx, key)
        if key.certificate is not None:
            await self._claim(tx, key)
        scopes = " ".join(key.scopes)
        details = {"name": key.name, "scopes": scopes, "rate": key.rate}
        if key.concurrency is not None:
            details["concurrency"] = str(key.concurrency)
        if key.networks:
            details["networks"] = " ".join(key.networks)
        if key.certificate is not None:
            details["certificate"] = told(key.certificate)
        await self._audit.note(tx, actor, "key.create", key.id, after=scopes, about=key.user_id, **details)
        await self._events.publish(tx, KeysChanged())
        return IssuedKey(key, secret)
