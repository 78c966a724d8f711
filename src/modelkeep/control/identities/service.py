"""Logging in through another system: OpenID providers, directories, and services with an OpenID provider's access tokens.

A provider proves who somebody is; from there on they are a user like others, with a session like others. A login under way is
kept by the browser that began it, sealed, so that beginning one costs the database nothing.
"""

import base64
import binascii
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.contracts.access import Role
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.auth import (
    Challenge,
    CodeProvider,
    Identity,
    IdentityRefused,
    PasswordProvider,
    ProviderBusy,
    ProviderSettings,
    ProviderUnavailable,
)
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.secret import Secret
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.access.service import Access
from modelkeep.control.audit.service import Audit
from modelkeep.control.identities import store
from modelkeep.control.identities.errors import CodeRefused, NotAdmitted, ProviderNotFound, SignOnLost
from modelkeep.control.identities.rules import (
    ASK_EVERY,
    KEPT,
    LOOK_EVERY,
    SIGN_ON_LIFE,
    CameBack,
    Known,
    SignOn,
    Terminal,
    Why,
    challenge_of,
    check,
    check_page,
    groups_of,
    name_from,
    refusal,
    same_login,
    shown_name,
    verified_email,
)
from modelkeep.control.links.service import Links
from modelkeep.control.sessions.errors import LoginRefused
from modelkeep.control.sessions.rules import SESSION_LIFE, Life, Session, Tokens
from modelkeep.control.sessions.service import Origin, Sessions, in_session, stranger
from modelkeep.control.users.rules import Kind, User
from modelkeep.control.users.service import Users
from modelkeep.infra.attempts import Attempts
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.site_key import SiteKey

_NONCE: Final = 12
_LONGEST_TOKEN: Final = 64 * 1024
_NAMES_TRIED: Final = 20
_LONG: Final = Life()
_Ended = TypeVar("_Ended")
_log = structlog.get_logger(__name__)


class _Refused(Exception):
    """Somebody may not come in, for a reason that the audit trail gets; `user_id` is who they are here, if anybody."""

    def __init__(self, why: Why, user_id: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.user_id = user_id


class Begun(msgspec.Struct, frozen=True):
    """A login that has begun: where to send the browser, and what it keeps, for how long."""

    address: str
    sealed: str
    life_s: int


class _Issuer(msgspec.Struct, frozen=True):
    """As much of a token as says who may have made it."""

    iss: str = ""


class Identities:
    """Who people of other systems are here."""

    def __init__(
        self,
        *,
        db: Database,
        users: Users,
        access: Access,
        sessions: Sessions,
        links: Links,
        audit: Audit,
        site_key: SiteKey,
        clock: Clock,
        code: Sequence[CodeProvider] = (),
        password: Sequence[PasswordProvider] = (),
    ) -> None:
        check([*(one.settings for one in code), *(one.settings for one in password)])
        self._db = db
        self._users = users
        self._access = access
        self._sessions = sessions
        self._links = links
        self._audit = audit
        self._attempts = Attempts(db)
        self._cipher = AESGCM(site_key.derive("logins under way"))
        self._clock = clock
        self._code = {one.settings.name: one for one in code}
        self._password = {one.settings.name: one for one in password}
        self._services = {one.settings.issuer: one for one in code if one.settings.service_audience}

    def providers(self) -> Mapping[str, CodeProvider | PasswordProvider]:
        """Return the providers by their names."""
        return {**self._code, **self._password}

    async def close(self) -> None:
        """Let go of what the providers hold."""
        for one in self.providers().values():
            await one.close()

    # ---- OpenID Connect

    async def begin(self, provider: str, *, page: str = "", terminal: Terminal | None = None) -> Begun:
        """Begin a login with an OpenID provider: for a `page` (a path), for a `terminal`, or for whoever reads tokens.

        Raises `InvalidPage`.
        """
        if page:
            check_page(page)
        asked = self._code_provider(provider)
        challenge = Challenge(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        address = await asked.address(challenge)
        ends = self._clock() + SIGN_ON_LIFE
        made = SignOn(challenge.state, challenge.nonce, challenge.verifier, ends, page, terminal)
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(made), provider.encode())
        return Begun(address, base64.urlsafe_b64encode(sealed).decode(), int(KEPT.total_seconds()))

    def begun(self, provider: str, sealed: str) -> SignOn:
        """Return the login under way that a browser keeps; raises `SignOnLost` for another provider's, and for what is none."""
        self._code_provider(provider)
        try:
            raw = base64.urlsafe_b64decode(sealed.encode("ascii", errors="replace"))
            opened = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], provider.encode())
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise SignOnLost from error
        return msgspec.msgpack.decode(opened, type=SignOn)

    async def finish(self, provider: str, began: SignOn, back: CameBack, origin: Origin, *, life: Life = _LONG) -> Tokens:
        """Go on with the login that a browser keeps (`begun`), and begin a session.

        Raises `SignOnLost` where it was not this one that the provider was asked for, and where too much time has passed.
        """

        async def end(tx: Transaction, user: User) -> Tokens:
            return await self._sessions.begin_in(tx, user, origin, provider=provider, life=life)

        return await self._finish(provider, began, back, origin, end)

    async def hand_over(
        self, provider: str, began: SignOn, terminal: Terminal, back: CameBack, origin: Origin
    ) -> tuple[Secret, User]:
        """Go on as `finish` does; returns a code with which the terminal, and nobody else, begins a session, and whose."""

        async def end(tx: Transaction, user: User) -> tuple[Secret, User]:
            code = await self._links.hand_over_in(tx, user.id, provider, terminal.challenge)
            actor = Actor(user.id, user.name, user.id, request_id=origin.request_id, address=origin.address)
            await self._audit.note(tx, actor, "login.hand_over", user.id, provider=provider)
            return code, user

        return await self._finish(provider, began, back, origin, end)

    async def take_over(self, code: str, verifier: str, origin: Origin) -> Tokens:
        """Begin the session of a login that was handed over; raises `CodeRefused`."""
        async with self._db.begin_apart() as tx:
            taken = await self._links.taken_in(tx, code, challenge_of(verifier))
            if taken is None:
                raise CodeRefused
            user = await self._users.user_in(tx, taken[0], for_update=True)
            if not user.active:
                raise CodeRefused
            return await self._sessions.begin_in(tx, user, origin, provider=taken[1])

    async def _finish(
        self,
        provider: str,
        began: SignOn,
        back: CameBack,
        origin: Origin,
        end: Callable[[Transaction, User], Awaitable[_Ended]],
    ) -> _Ended:
        asked = self._code_provider(provider)
        if not secrets.compare_digest(began.state.encode(), back.state.encode()) or self._clock() >= began.expires_at:
            raise SignOnLost
        challenge = Challenge(began.state, began.nonce, began.verifier)

        async def prove() -> Identity:
            if back.code is None:
                raise IdentityRefused
            return await asked.identity(back.code, back.issuer, challenge)

        return await self._sign_on(asked.settings, prove, origin, end)

    async def logout_address(self, provider: str) -> str:
        """Return where people log out of an OpenID provider."""
        address = await self._code_provider(provider).logout_address()
        if address is None:
            raise ProviderNotFound("This identity provider has no place to log out.")
        return address

    async def authenticate(self, token: str, origin: Origin) -> Actor:
        """Return who holds an access token, ours, or an OpenID provider's of a service, with what they may do.

        Raises `Unauthenticated` for anything but a good one.
        """
        provider = self._services.get(_issuer(token))
        if provider is None:
            session, user = await self._sessions.authenticate(token)
            return await self._access.by_token(session.id, user, origin.request_id)
        name, said_by = await provider.service(token), provider.settings.name
        async with self._db.read() as tx:
            service = await self._users.named_in(tx, name)
        if service is None or service.kind is not Kind.SERVICE or not service.active:
            target = "" if service is None else service.id
            await self._audit.refused(stranger(origin), "token.refuse", target, provider=said_by, service=name)
            raise Unauthenticated
        return await self._access.by_token(f"{said_by}:{service.id}", service, origin.request_id)

    # ---- directories

    async def login(self, provider: str, login: str, password: str, origin: Origin, *, life: Life = _LONG) -> Tokens:
        """Begin a session of somebody in a directory; raises `LoginRefused`, for one reason or another, and `TriedTooOften`."""
        asked = self._password.get(provider)
        if asked is None:
            raise ProviderNotFound

        async def prove() -> Identity:
            return await asked.identity(login, password)

        async def begin(tx: Transaction, user: User) -> Tokens:
            return await self._sessions.begin_in(tx, user, origin, provider=provider, life=life)

        account = f"account {provider} {same_login(login)}"
        try:
            return await self._sign_on(asked.settings, prove, origin, begin, account=account)
        except IdentityRefused as error:
            raise LoginRefused from error

    async def named(self, user_id: str) -> frozenset[str]:
        """Return the ids that stand for a user in the audit trail from before they were one here."""
        async with self._db.read() as tx:
            return frozenset(_id_at(one.provider, one.subject) for one in await store.all_of_user(tx, user_id))

    async def refresh(self, token: str, *, browser: bool = False) -> Tokens:
        """Go on with a session; of somebody in a directory, as that knows them now. While it is away, as it knew them.

        That so many ask it here does not mean that it is away: raises `ProviderBusy`.
        """
        session = await self._sessions.of_token(token, browser=browser)
        directory = self._password.get(session.provider)
        if directory is not None and directory.follows:
            await self._follow(session, directory)
        return await self._sessions.refresh(token, browser=browser)

    async def _follow(self, session: Session, directory: PasswordProvider) -> None:
        """Put somebody into the groups that their directory says now; where it lets them in no more, their session ends."""
        name = directory.settings.name
        async with self._db.read() as tx:
            known = await store.of_user(tx, name, session.user_id)
        if known is None:
            return
        try:
            identity = await _asked_again(directory, known.subject)
        except ProviderBusy:
            raise
        except ProviderUnavailable:
            _log.warning("directory_away_at_refresh", provider=name)
            return
        actor = Actor(session.id, name, session.user_id)
        if identity is not None:
            async with self._db.begin_apart() as tx:
                await self._follow_groups(tx, actor, identity, directory.settings)
            return
        async with self._db.begin_apart() as tx:
            await self._sessions.end_in(tx, session)
            await self._audit.note(tx, actor, "session.gone", session.id, user=session.user_id, provider=name)
        await self._let_go(actor, directory.settings)

    # ---- both

    async def follow(self) -> None:
        """Put people into the groups that their providers say now, also who do not come: keys of theirs do no more than that.

        A directory is asked again, every half an hour for each. Who has not come to another provider for as long as a session
        lives is taken out of its groups. Several processes may do this at once, and share the work.
        """
        for name, one in self.providers().items():
            try:
                while await self._follow_next(name, one.settings):
                    pass
            except ProviderUnavailable:
                _log.warning("directory_away", provider=name)

    async def _follow_next(self, name: str, settings: ProviderSettings) -> bool:
        """Follow one of those for whom it is time; False where there is none."""
        now, directory = self._clock(), self._password.get(name)
        asked = directory if directory is not None and directory.follows else None
        before, came = (now - LOOK_EVERY, now - SESSION_LIFE) if asked is None else (now - ASK_EVERY, now)
        async with self._db.begin_apart() as tx:
            known = await store.take_due(tx, name, now, asked_before=before, used_before=came)
            newest = None if known is None else await store.of_user(tx, name, known.user_id)
        if known is None or newest is None:
            return False
        if newest.subject != known.subject:
            return True  # they have come as somebody else since
        identity = None if asked is None else await _asked_again(asked, known.subject)
        actor = _as_said_by(settings, known.user_id, Origin())
        try:
            if identity is None:
                await self._let_go(actor, settings)
            else:
                async with self._db.begin_apart() as tx:
                    await self._follow_groups(tx, actor, identity, settings)
        except LastAdmin:
            _log.warning("last_administrator_stays_in_groups", provider=name, user=known.user_id)
        return True

    async def renewed(self, actor: Actor) -> Actor:
        """Return whoever asked a while ago, with what they may do now; raises `Unauthenticated` where they come in no more."""
        if in_session(actor):
            await self._sessions.check_goes_on(actor)
        return await self._access.renewed(actor)

    async def _sign_on(
        self,
        settings: ProviderSettings,
        prove: Callable[[], Awaitable[Identity]],
        origin: Origin,
        end: Callable[[Transaction, User], Awaitable[_Ended]],
        *,
        account: str = "",
    ) -> _Ended:
        """Do what a login is to `end` in for whoever is proven; who fails often waits, but not for a provider that is away."""
        await self._attempts.take_login(account, origin.address, self._clock())
        try:
            identity = await prove()
        except ProviderUnavailable:
            async with self._db.begin_apart() as tx:
                await self._attempts.not_tried(tx, account, origin.address, self._clock())
            raise
        except IdentityRefused:
            await self._audit.refused(stranger(origin), "login.refuse", provider=settings.name, why="not_proven")
            raise
        try:
            async with self._db.begin_apart() as tx:
                user = await self._admitted(tx, identity, settings, origin)
                ended = await end(tx, user)
                await self._attempts.logged_in(tx, account, origin.address, self._clock())
                return ended
        except LastAdmin:  # their groups would leave nobody to administer
            said = {"provider": settings.name, "why": LastAdmin.code, "subject": identity.subject}
            await self._audit.refused(stranger(origin), "login.refuse", _id_at(settings.name, identity.subject), **said)
            raise
        except _Refused as refused:
            said = {"provider": settings.name, "why": refused.why, "subject": identity.subject}
            who = refused.user_id or _id_at(settings.name, identity.subject)
            await self._audit.refused(stranger(origin), "login.refuse", who, **said)
            if refused.user_id:
                await self._let_go(_as_said_by(settings, refused.user_id, origin), settings)
            raise NotAdmitted from refused

    async def _admitted(self, tx: Transaction, identity: Identity, settings: ProviderSettings, origin: Origin) -> User:
        """Return the user who somebody is here, in the groups that theirs stand for; raises `_Refused`."""
        now, known = self._clock(), await store.known(tx, settings.name, identity.subject)
        why = refusal(identity, settings)
        if why is not None:
            raise _Refused(why, "" if known is None else known.user_id)
        user_id = known.user_id if known is not None else await self._newly_known(tx, identity, settings, origin)
        user = await self._users.user_in(tx, user_id, for_update=True)
        if not user.active or user.kind is not Kind.PERSON:
            raise _Refused(Why.DISABLED, user_id)
        if known is not None:
            await store.note_use(tx, settings.name, identity.subject, now)
        elif not await store.add(tx, Known(settings.name, identity.subject, user_id, now, now, now)):
            raise _Refused(Why.UNKNOWN)  # somebody was faster with the same: they come in when they ask again
        await self._follow_groups(tx, _as_said_by(settings, user_id, origin), identity, settings)
        return user

    async def _follow_groups(self, tx: Transaction, actor: Actor, identity: Identity, settings: ProviderSettings) -> None:
        into, among = groups_of(identity, settings), frozenset(settings.group_map.values())
        await self._access.follow_in(tx, actor, actor.user, into=into, among=among)

    async def _let_go(self, actor: Actor, settings: ProviderSettings) -> None:
        """Take somebody whom their provider lets in no more out of its groups: their keys do no more what those gave."""
        async with self._db.begin_apart() as tx:
            await self._access.follow_in(tx, actor, actor.user, into=(), among=frozenset(settings.group_map.values()))

    async def _newly_known(self, tx: Transaction, identity: Identity, settings: ProviderSettings, origin: Origin) -> str:
        """Return the id of the user who somebody is that comes for the first time: one who is there, or a new one."""
        email = verified_email(identity, settings)
        if not email:
            raise _Refused(Why.EMAIL)
        there = await self._users.password_of_email(tx, email)
        if there is not None:
            if not settings.link_by_email:
                raise _Refused(Why.TAKEN)
            actor = _as_said_by(settings, there[0].id, origin)
            said = {"provider": settings.name, "subject": identity.subject}
            if not there[0].email_proven:  # whoever registered with it is now known to be another, or nobody knows
                await self._users.take_back_in(tx, actor.user)
                await self._links.forget_resets_in(tx, actor.user)
                said["ended"] = "password, sessions, keys"
            await self._audit.note(tx, actor, "user.link", actor.user, **said)
            return actor.user
        invitation = await self._links.accept_in(tx, email) if settings.people != "known" else None
        if invitation is None and settings.people != "all":
            raise _Refused(Why.UNKNOWN)
        role = Role(settings.default_role) if settings.default_role else None
        if invitation is not None and invitation.role is not None:
            role = invitation.role
        name = await self._free_name(tx, name_from(identity, email))
        user = User(new_id("usr"), name, self._clock(), email=email, display_name=shown_name(identity), email_proven=True)
        await self._users.add_in(tx, _as_said_by(settings, user.id, origin), user, None, role)
        return user.id

    async def _free_name(self, tx: Transaction, wanted: str) -> str:
        """Return a name for a new user, as near to what it would be as is free."""
        name = wanted
        for number in range(2, _NAMES_TRIED):
            if await self._users.named_in(tx, name) is None:
                break
            name = f"{wanted}-{number}"
        return name

    def _code_provider(self, name: str) -> CodeProvider:
        provider = self._code.get(name)
        if provider is None:
            raise ProviderNotFound
        return provider


async def _asked_again(directory: PasswordProvider, subject: str) -> Identity | None:
    """Return what a directory says of somebody whom it lets in now; None of anybody else."""
    try:
        identity = await directory.again(subject)
    except IdentityRefused:
        return None
    return None if identity is None or refusal(identity, directory.settings) is not None else identity


def _as_said_by(settings: ProviderSettings, user_id: str, origin: Origin) -> Actor:
    """Return whoever a provider says is this user."""
    return Actor(user_id, settings.name, user_id, request_id=origin.request_id, address=origin.address)


def _id_at(provider: str, subject: str) -> str:
    """Return by what somebody is found in the audit trail who is nobody here."""
    return f"{provider}:{subject}"


def _issuer(token: str) -> str:
    """Return who a token says has made it, to choose who checks that; "" where it says nothing."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN or not token.isascii():  # noqa: PLR2004 - head, claims, signature
        return ""
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(claims, type=_Issuer).iss
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return ""
