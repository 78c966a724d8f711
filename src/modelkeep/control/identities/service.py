"""Logging in through another system: OpenID providers, directories, and services with an OpenID provider's access tokens.

A provider proves who somebody is; from there on they are a user like others, with a session like others. A login under way is
kept by the browser that began it, sealed, so that beginning one costs the database nothing.
"""

import base64
import binascii
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.contracts.actor import Actor
from modelkeep.contracts.auth import (
    Challenge,
    CodeProvider,
    Identity,
    IdentityRefused,
    PasswordProvider,
    ProviderSettings,
    ProviderUnavailable,
)
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.audit.service import Audit
from modelkeep.control.identities import store
from modelkeep.control.identities.errors import NotAdmitted, ProviderNotFound, SignOnLost
from modelkeep.control.identities.rules import (
    ACCOUNT_TRIES,
    ADDRESS_TRIES,
    SIGN_ON_LIFE,
    Known,
    SignOn,
    Why,
    check,
    name_from,
    refusal,
    role_of,
    same_login,
    shown_name,
    verified_email,
)
from modelkeep.control.links.service import Links
from modelkeep.control.sessions.errors import LoginRefused
from modelkeep.control.sessions.rules import Session, Tokens
from modelkeep.control.sessions.service import Origin, Sessions
from modelkeep.control.users.rules import Kind, Role, User
from modelkeep.control.users.service import Users
from modelkeep.infra.attempts import Attempts
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.site_key import SiteKey

_NONCE: Final = 12
_LONGEST_TOKEN: Final = 64 * 1024
_NAMES_TRIED: Final = 20
_log = structlog.get_logger(__name__)


class _Refused(NotAdmitted):
    """Somebody may not come in, for a reason that the audit trail gets."""

    def __init__(self, why: Why) -> None:
        super().__init__(NotAdmitted.__doc__)
        self.why = why


class Begun(msgspec.Struct, frozen=True):
    """A login that has begun: where to send the browser, and what it keeps meanwhile."""

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

    async def begin(self, provider: str) -> Begun:
        """Begin a login with an OpenID provider."""
        asked = self._code_provider(provider)
        challenge = Challenge(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        address = await asked.address(challenge)
        made = SignOn(challenge.state, challenge.nonce, challenge.verifier, self._clock() + SIGN_ON_LIFE)
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(made), provider.encode())
        return Begun(address, base64.urlsafe_b64encode(sealed).decode(), int(SIGN_ON_LIFE.total_seconds()))

    async def finish(
        self, provider: str, sealed: str, *, state: str, code: str | None, issuer: str | None, origin: Origin
    ) -> Tokens:
        """Go on with the login that this browser began, and begin a session; without a code, the provider has refused."""
        asked = self._code_provider(provider)
        began = self._opened(provider, sealed)
        if not secrets.compare_digest(began.state.encode(), state.encode()) or self._clock() >= began.expires_at:
            raise SignOnLost
        challenge = Challenge(began.state, began.nonce, began.verifier)

        async def prove() -> Identity:
            if code is None:
                raise IdentityRefused
            return await asked.identity(code, issuer, challenge)

        return await self._sign_on(asked.settings, prove, origin, account=None)

    async def logout_address(self, provider: str) -> str:
        """Return where people log out of an OpenID provider."""
        address = await self._code_provider(provider).logout_address()
        if address is None:
            raise ProviderNotFound("This identity provider has no place to log out.")
        return address

    async def authenticate(self, token: str, request_id: str = "") -> Actor:
        """Return who holds an access token: ours, or an OpenID provider's of a service; raises `Unauthenticated`."""
        provider = self._services.get(_issuer(token))
        if provider is None:
            return await self._sessions.authenticate(token, request_id)
        name = await provider.service(token)
        async with self._db.read() as tx:
            user = await self._users.named_in(tx, name)
        if user is None or user.kind is not Kind.SERVICE or not user.active:
            raise Unauthenticated
        return Actor(f"{provider.settings.name}:{user.id}", user.name, user.id, user.scopes, request_id)

    # ---- directories

    async def login(self, provider: str, login: str, password: str, origin: Origin) -> Tokens:
        """Begin a session of somebody in a directory; raises `LoginRefused`, for one reason or another, and `TriedTooOften`."""
        asked = self._password.get(provider)
        if asked is None:
            raise ProviderNotFound

        async def prove() -> Identity:
            return await asked.identity(login, password)

        account = f"login account {provider} {same_login(login)}"
        try:
            return await self._sign_on(asked.settings, prove, origin, account=account)
        except IdentityRefused as error:
            raise LoginRefused from error

    async def refresh(self, token: str) -> Tokens:
        """Go on with a session; of somebody in a directory, as that knows them now. While it is away, as it knew them."""
        session = await self._sessions.of_token(token)
        directory = None if session is None else self._password.get(session.provider)
        if session is not None and directory is not None and directory.follows:
            await self._follow(session, directory)
        return await self._sessions.refresh(token)

    async def _follow(self, session: Session, directory: PasswordProvider) -> None:
        """Give somebody the role that their directory says now, or end their session where it lets them in no more."""
        name = directory.settings.name
        async with self._db.read() as tx:
            known = await store.of_user(tx, name, session.user_id)
        if known is None:
            return
        try:
            identity = await directory.again(known.subject)
        except ProviderUnavailable:
            _log.warning("directory_away_at_refresh", provider=name)
            return
        gone = identity is None or refusal(identity, directory.settings) is not None
        actor = Actor(session.id, name, session.user_id)
        async with self._db.begin_apart() as tx:
            if gone or identity is None:
                await self._sessions.end_in(tx, session)
                await self._audit.note(tx, actor, "session.gone", session.id, user=session.user_id, provider=name)
                return
            await self._follow_role(tx, actor, identity, directory.settings)

    # ---- both

    async def _sign_on(
        self, settings: ProviderSettings, prove: Callable[[], Awaitable[Identity]], origin: Origin, *, account: str | None
    ) -> Tokens:
        """Begin a session of whoever is proven; who fails often waits, but not for a provider that is away."""
        address = f"login address {origin.address}"
        tried = {address: ADDRESS_TRIES} | ({account: ACCOUNT_TRIES} if account is not None else {})
        await self._attempts.take(tried, self._clock())
        try:
            identity = await prove()
        except ProviderUnavailable:
            async with self._db.begin_apart() as tx:
                for one in sorted(tried):
                    await self._attempts.uncounted(tx, one, self._clock())
            raise
        except IdentityRefused:
            await self._note_refusal(settings, origin, "not_proven", "")
            raise
        try:
            async with self._db.begin_apart() as tx:
                user = await self._admitted(tx, identity, settings, origin)
                tokens = await self._sessions.begin_in(tx, user, origin, provider=settings.name)
                if account is not None:
                    await self._attempts.cleared(tx, account)
                await self._attempts.uncounted(tx, address, self._clock())
                return tokens
        except _Refused as refused:
            await self._note_refusal(settings, origin, refused.why, identity.subject)
            raise NotAdmitted from refused

    async def _note_refusal(self, settings: ProviderSettings, origin: Origin, why: str, subject: str) -> None:
        actor = Actor("anonymous", "anonymous", request_id=origin.request_id)
        async with self._db.begin_apart() as tx:
            details = {"address": origin.address, "provider": settings.name, "why": why, "subject": subject}
            await self._audit.note(tx, actor, "login.refuse", "", **details)

    async def _admitted(self, tx: Transaction, identity: Identity, settings: ProviderSettings, origin: Origin) -> User:
        """Return the user who somebody is here, with the role that their groups give; raises `_Refused`."""
        why = refusal(identity, settings)
        if why is not None:
            raise _Refused(why)
        now, known = self._clock(), await store.known(tx, settings.name, identity.subject)
        if known is None:
            user_id = (await self._newly_known(tx, identity, settings, origin)).id
            if not await store.add(tx, Known(settings.name, identity.subject, user_id, now, now)):
                raise _Refused(Why.UNKNOWN)  # somebody was faster with the same: they come in when they ask again
        else:
            user_id = known.user_id
            await store.note_use(tx, settings.name, identity.subject, now)
        actor = Actor(user_id, settings.name, user_id, request_id=origin.request_id)
        await self._follow_role(tx, actor, identity, settings)
        user = await self._users.user_in(tx, user_id, for_update=True)
        if not user.active or user.kind is not Kind.PERSON:
            raise _Refused(Why.DISABLED)
        return user

    async def _follow_role(self, tx: Transaction, actor: Actor, identity: Identity, settings: ProviderSettings) -> None:
        role = role_of(identity, settings) if settings.roles else None
        if role is not None:
            await self._users.give_role_in(tx, actor, actor.user, role)

    async def _newly_known(self, tx: Transaction, identity: Identity, settings: ProviderSettings, origin: Origin) -> User:
        """Return the user who somebody is that comes for the first time: one who is there, or a new one."""
        email = verified_email(identity, settings)
        if not email:
            raise _Refused(Why.EMAIL)
        there = await self._users.password_of_email(tx, email)
        if there is not None:
            if not settings.link_by_email:
                raise _Refused(Why.TAKEN)
            user = there[0]
            actor = Actor(user.id, user.name, user.id, request_id=origin.request_id)
            await self._audit.note(tx, actor, "user.link", user.id, provider=settings.name, subject=identity.subject)
            return user
        invitation = await self._links.accept_in(tx, email) if settings.people != "known" else None
        if invitation is None and settings.people != "all":
            raise _Refused(Why.UNKNOWN)
        role = role_of(identity, settings) if invitation is None or settings.roles else invitation.role
        if role is None:
            raise _Refused(Why.ROLE)
        user = self._new(identity, email, role)
        return await self._made(tx, user, Actor(user.id, settings.name, user.id, request_id=origin.request_id))

    def _new(self, identity: Identity, email: str, role: Role) -> User:
        name, shown = name_from(identity, email), shown_name(identity)
        return User(new_id("usr"), name, self._clock(), email=email, display_name=shown, role=role)

    async def _made(self, tx: Transaction, user: User, actor: Actor) -> User:
        """Add a new user, whose name is as near to what it would be as is free."""
        name = user.name
        for number in range(2, _NAMES_TRIED):
            if await self._users.named_in(tx, name) is None:
                break
            name = f"{user.name}-{number}"
        user = msgspec.structs.replace(user, name=name)
        await self._users.add_in(tx, actor, user, None)
        return user

    def _code_provider(self, name: str) -> CodeProvider:
        provider = self._code.get(name)
        if provider is None:
            raise ProviderNotFound
        return provider

    def _opened(self, provider: str, sealed: str) -> SignOn:
        """Return the login under way that a browser keeps; raises `SignOnLost` for another provider's, and for what is none."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode("ascii", errors="replace"))
            opened = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], provider.encode())
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise SignOnLost from error
        return msgspec.msgpack.decode(opened, type=SignOn)


def _issuer(token: str) -> str:
    """Return who a token says has made it, to choose who checks that; "" where it says nothing."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN or not token.isascii():  # noqa: PLR2004 - head, claims, signature
        return ""
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(claims, type=_Issuer).iss
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return ""
