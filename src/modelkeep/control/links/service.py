"""How people come by their first password, or by another: with a token that is good once, and shown to one administrator.

And how a login that ended in a browser comes to the program that it was begun for: with a code that is good once, there alone.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeAlias

import msgspec

from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name
from modelkeep.contracts.secret import Secret
from modelkeep.control.audit.service import Audit
from modelkeep.control.links import store
from modelkeep.control.links.errors import InvitationNotFound, LinkRefused, RegistrationClosed
from modelkeep.control.links.rules import (
    HANDED_LIFE,
    INVITATION_DAYS,
    LONGEST_INVITATION_DAYS,
    RESET_LIFE,
    Link,
    Purpose,
    Registration,
)
from modelkeep.control.users.rules import Kind, User, email_of
from modelkeep.control.users.service import Users
from modelkeep.infra import secrets
from modelkeep.infra.addresses import shared
from modelkeep.infra.attempts import NETWORK_TRIES, Attempts
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.passwords import Passwords

MayInvite: TypeAlias = Callable[[Transaction, User], Awaitable[bool]]
"""Whether somebody may, as of now, make such links."""


class IssuedLink(msgspec.Struct, frozen=True):
    """A new link together with its token, which is shown this once."""

    link: Link
    token: Secret


class Newcomer(msgspec.Struct, frozen=True):
    """Somebody who registers."""

    name: str
    email: str
    password: str
    display_name: str = ""

    def __repr__(self) -> str:
        return f"Newcomer({self.name!r})"


class Links:
    """Invitations and new passwords: good for as long as whoever made them may make them."""

    def __init__(
        self,
        *,
        db: Database,
        users: Users,
        audit: Audit,
        passwords: Passwords,
        registration: Registration,
        may_invite: MayInvite,
        clock: Clock,
    ) -> None:
        self._db = db
        self._users = users
        self._audit = audit
        self._passwords = passwords
        self._registration = registration
        self._may_invite = may_invite
        self._attempts = Attempts(db)
        self._clock = clock

    async def invite(
        self, actor: Actor, *, role: Role | None, email: str | None = None, expires_in_days: int = INVITATION_DAYS
    ) -> IssuedLink:
        """Let one person register with this role on the installation, or none, and with this address if one is given."""
        actor.need(Scope.ADMIN)
        if self._registration is Registration.OFF:
            raise RegistrationClosed
        if not 1 <= expires_in_days <= LONGEST_INVITATION_DAYS:
            raise Invalid(f"An invitation lives for 1 to {LONGEST_INVITATION_DAYS} days.")
        life = timedelta(days=expires_in_days)
        async with self._db.begin() as tx:
            new = Link(new_id("lnk"), Purpose.INVITATION, email=email and email_of(email), role=role)
            issued = await self._issue(tx, actor, new, life)
            await self._audit.note(tx, actor, "invitation.create", issued.link.id, role=role or "none")
            return issued

    async def invitations(self) -> list[Link]:
        """List the invitations that may still be used, newest first."""
        async with self._db.read() as tx:
            return await store.invitations(tx, self._clock())

    async def withdraw(self, actor: Actor, link_id: str) -> None:
        """Have an invitation be good no more."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            if not await store.withdraw(tx, link_id, self._clock()):
                raise InvitationNotFound
            await self._audit.note(tx, actor, "invitation.withdraw", link_id)

    async def register(self, token: str | None, new: Newcomer, *, address: str, request_id: str = "") -> User:
        """Make a user of somebody who was invited; without a token of anyone, without a role, where that is open."""
        if self._registration is Registration.OFF or (token is None and self._registration is not Registration.OPEN):
            raise RegistrationClosed
        check_name(new.name)
        now, email, tried = self._clock(), email_of(new.email), _tried(address)
        await self._attempts.take({tried: NETWORK_TRIES}, now)
        link = None if token is None else await self._good(token, Purpose.INVITATION, now)
        if link is not None and link.email not in {None, email}:
            raise LinkRefused
        kept = await self._passwords.hashed(new.password, new.name, email)
        proven = link is not None and link.email is not None  # the token was handed to whoever has this address
        user = User(new_id("usr"), new.name, now, email=email, display_name=new.display_name, email_proven=proven)
        actor = Actor(user.id, new.name, user.id, request_id=request_id)
        async with self._db.begin() as tx:
            if token is not None:
                await self._use(tx, token, Purpose.INVITATION, now)
                await self._attempts.uncounted(tx, tried, now)
            await self._users.add_in(tx, actor, user, kept, None if link is None else link.role)
        return user

    async def accept_in(self, tx: Transaction, email: str) -> Link | None:
        """Use up the invitation of this address, for somebody whom an identity provider has proven to have it."""
        now = self._clock()
        link = await store.invitation_of(tx, email, now)
        if link is None or not await self._stands(tx, link):
            return None
        await store.use(tx, link.id, now)
        return link

    async def forget_resets_in(self, tx: Transaction, user_id: str) -> None:
        """Have tokens with which somebody could set a password be good no more."""
        await store.forget_resets(tx, user_id)

    async def hand_over_in(self, tx: Transaction, user_id: str, provider: str, challenge: str) -> Secret:
        """Return a code for whoever has the verifier of `challenge` (PKCE): what it is kept under is made of both."""
        code, now = secrets.new_secret(secrets.LINK), self._clock()
        digest, until = _bound(code.reveal(), challenge), now + HANDED_LIFE
        await store.add(tx, Link(new_id("lnk"), Purpose.SIGN_ON, digest, now, provider, until, user_id))
        return code

    async def taken_in(self, tx: Transaction, code: str, challenge: str) -> tuple[str, str] | None:
        """Use up a code; returns whose login it is, and by which provider. None where it is not good, or another program's."""
        now = self._clock()
        found = await store.by_digest(tx, _bound(code, challenge), for_update=True)
        if found is None or found.user_id is None or not found.good(Purpose.SIGN_ON, now):
            return None
        await store.use(tx, found.id, now)
        return found.user_id, found.created_by

    async def reset(self, actor: Actor, user_id: str) -> IssuedLink:
        """Return a token with which this one person sets a password; an earlier one of theirs is good no more."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            user = await self._users.user_in(tx, user_id)
            if user.kind is not Kind.PERSON or user.email is None:
                raise Invalid("Only a person with an e-mail address has a password.")
            issued = await self._issue(tx, actor, Link(new_id("lnk"), Purpose.RESET, user_id=user.id), RESET_LIFE)
            await self._audit.note(tx, actor, "user.reset_password", user.id, name=user.name)
            return issued

    async def set_password(self, token: str, password: str, *, address: str, request_id: str = "") -> None:
        """Give the one person whom the token is for another password; all their sessions end."""
        now, tried = self._clock(), _tried(address)
        await self._attempts.take({tried: NETWORK_TRIES}, now)
        link = await self._good(token, Purpose.RESET, now)
        user = await self._users.user(link.user_id or "")
        kept = await self._passwords.hashed(password, user.name, user.email or "")
        async with self._db.begin() as tx:
            await self._use(tx, token, Purpose.RESET, now)
            await self._attempts.uncounted(tx, tried, now)
            actor = Actor(user.id, user.name, user.id, request_id=request_id)
            await self._users.set_password_in(tx, actor, user.id, kept)

    async def _issue(self, tx: Transaction, actor: Actor, new: Link, life: timedelta) -> IssuedLink:
        """Give a link its token and its time, and keep it."""
        token, now = secrets.new_secret(secrets.LINK), self._clock()
        digest = secrets.digest(token.reveal())
        link = msgspec.structs.replace(new, digest=digest, created_at=now, created_by=actor.name, expires_at=now + life)
        await store.add(tx, link)
        return IssuedLink(link, token)

    async def _good(self, token: str, purpose: Purpose, now: datetime) -> Link:
        async with self._db.read() as tx:
            return await self._known(tx, token, purpose, now)

    async def _use(self, tx: Transaction, token: str, purpose: Purpose, now: datetime) -> None:
        await store.use(tx, (await self._known(tx, token, purpose, now, for_update=True)).id, now)

    async def _known(self, tx: Transaction, token: str, purpose: Purpose, now: datetime, *, for_update: bool = False) -> Link:
        """Return the link of this token; raises `LinkRefused` unless it may be used for this.

        That it was used counts only for who is about to use it: a write that is repeated finds its answer on the way there.
        """
        found = await store.by_digest(tx, secrets.digest(token), for_update=for_update)
        if not secrets.well_formed(token, secrets.LINK) or found is None:
            raise LinkRefused
        seen = found if for_update else msgspec.structs.replace(found, used_at=None)
        if not seen.good(purpose, now) or not await self._stands(tx, found):
            raise LinkRefused
        return found

    async def _stands(self, tx: Transaction, link: Link) -> bool:
        """Whether the administrator who made a link is one still: what they left behind opens nothing."""
        maker = await self._users.named_in(tx, link.created_by)
        return maker is not None and await self._may_invite(tx, maker)


def _bound(code: str, challenge: str) -> bytes:
    return secrets.digest(f"{code} {challenge}")


def _tried(address: str) -> str:
    return f"link address {shared(address)}"
