"""Logging in with a password, going on with a refresh token, and ending: the tokens of people.

What a login or a refresh decides is committed before it is answered, and apart from whatever else the request does
(`begin_apart`): that a stolen token was found out must not be undone because the answer is a refusal.
"""

import hmac
import os
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Invalid, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.snapshot import Signer, Trust
from modelkeep.control.audit.service import Audit
from modelkeep.control.sessions import store
from modelkeep.control.sessions.errors import (
    LoginRefused,
    NoSession,
    RefreshRefused,
    RotationUnderWay,
    SessionNotFound,
    SigningKeyLost,
    WrongPassword,
)
from modelkeep.control.sessions.events import TrustChanged
from modelkeep.control.sessions.rules import (
    LONGEST_PROGRAM,
    PUBLISHED_BEFORE,
    Keyed,
    Life,
    RefreshToken,
    Resealed,
    Session,
    Tokens,
    signing,
)
from modelkeep.control.users.rules import User, email_of
from modelkeep.control.users.service import Users
from modelkeep.infra import secrets, tokens
from modelkeep.infra.attempts import ACCOUNT_TRIES, Attempts
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events
from modelkeep.infra.passwords import Passwords
from modelkeep.infra.site_key import SiteKey
from modelkeep.infra.tokens import ACCESS_LIFE, SKEW, Issuer, SigningKey, Verifier

_PREFIX: Final = "ses"
_NONCE: Final = 12
_LONG: Final = Life()


class Origin(msgspec.Struct, frozen=True):
    """Where a request comes from: an address, what the program calls itself, and the request's id."""

    address: str = ""
    program: str = ""
    request_id: str = ""


class Sessions:
    """Who is logged in."""

    def __init__(
        self,
        *,
        db: Database,
        users: Users,
        audit: Audit,
        events: Events,
        passwords: Passwords,
        site_key: SiteKey,
        clock: Clock,
    ) -> None:
        self._db = db
        self._events = events
        self._users = users
        self._audit = audit
        self._passwords = passwords
        self._attempts = Attempts(db)
        self._issuer = Issuer(site_key)
        self._site_key = site_key
        self._clock = clock

    async def login(self, email: str, password: str, origin: Origin, *, life: Life = _LONG) -> Tokens:
        """Begin a session; raises `LoginRefused`, for one reason or another, and `TriedTooOften`.

        As much is computed, read and written for a name that there is not.
        """
        try:
            email = email_of(email)
        except Invalid:
            email = ""  # which nobody has: refused as any other
        account = f"account {email}"
        wait = await self._attempts.take_login(account, origin.address, self._clock())
        async with self._db.read() as tx:
            found = await self._users.password_of_email(tx, email)
        user, kept = found or (None, None)
        right, better = await self._passwords.checked(password, kept)
        now = self._clock()
        if not right or user is None or kept is None or not user.active:
            target = "" if user is None else user.id
            await self._audit.refused(stranger(origin), "login.refuse", target, wait_s=f"{wait.total_seconds():.0f}")
            raise LoginRefused
        async with self._db.begin_apart() as tx:
            user = await self._users.user_in(tx, user.id, for_update=True)
            if not user.active or await self._users.password_of_email(tx, email) != (user, kept):
                raise LoginRefused  # it was changed while it was computed
            await self._attempts.logged_in(tx, account, origin.address, now)
            if better is not None:
                await self._users.keep_better(tx, user.id, kept, better)
            return await self.begin_in(tx, user, origin, life=life)

    async def refresh(self, token: str, *, browser: bool = False) -> Tokens:
        """Go on with a session: the token is used up with that, and its answer has the next one; raises `RefreshRefused`.

        A token that is used again, later than a double click would, has been stolen: its session ends, for both who have it.
        """
        await self.of_token(token, browser=browser)
        digest, now = secrets.digest(token), self._clock()
        async with self._db.begin_apart() as tx:
            answer = await self._refreshed(tx, token, digest, now)
        if answer is None:
            raise RefreshRefused
        return answer

    async def _refreshed(self, tx: Transaction, token: str, digest: bytes, now: datetime) -> Tokens | None:
        """Return what a refresh token gets; None where that is nothing."""
        session_id = await store.session_of_token(tx, digest)
        session = None if session_id is None else await store.session(tx, session_id, for_update=True)
        known = await store.token(tx, digest)  # read once the session is held
        if session is None or known is None or not session.good(now):
            return None
        user = await self._users.user_in(tx, session.user_id)
        if not user.active:
            return None
        if known.again(now):
            return _opened(token, known)
        if known.rotated_at is not None:
            await self.end_in(tx, session)
            actor = Actor(session.id, user.name, user.id)
            await self._audit.note(tx, actor, "session.reuse", session.id, user=user.id)
            return None
        if now >= known.expires_at:
            return None
        answer = await self._next(tx, session, now)
        await store.note_use(tx, session.id, now)
        await store.rotate(tx, known, now, _sealed(token, answer))
        return answer

    async def of_token(self, token: str, *, browser: bool = False) -> Session:
        """Return the session, of a `browser` or of others, that a refresh token goes on with; raises `RefreshRefused`.

        It reads, and no more: what anybody can make up must not have others wait for the one who writes.
        """
        if not secrets.well_formed(token, secrets.REFRESH):
            raise RefreshRefused
        async with self._db.read() as tx:
            session_id = await store.session_of_token(tx, secrets.digest(token))
            session = None if session_id is None else await store.session(tx, session_id)
        if session is None or not session.good(self._clock()) or session.browser is not browser:
            raise RefreshRefused
        return session

    async def check_goes_on(self, actor: Actor) -> None:
        """Raise `Unauthenticated` where the session that the actor asked in has ended; its access token may have."""
        async with self._db.read() as tx:
            session = await store.session(tx, actor.id)
        if session is None or not session.good(self._clock()):
            raise Unauthenticated

    async def end_in(self, tx: Transaction, session: Session) -> None:
        """End a session in `tx`."""
        await store.end(tx, session.id, self._clock())
        await self._events.publish(tx, TrustChanged())

    async def authenticate(self, token: str) -> tuple[Session, User]:
        """Return a good access token's session and whose it is, as of this moment; raises `Unauthenticated`."""
        now = self._clock()
        async with self._db.read() as tx:
            verifier = Verifier([_signer(key) for key in await store.keys(tx) if key.good(now)], self._issuer.names)
            claims = verifier.verified(token.encode(errors="replace"), now.timestamp())
            session = await store.session(tx, claims.sid)
            if session is None or not session.good(now) or session.user_id != claims.sub:
                raise Unauthenticated
            user = await self._users.user_in(tx, session.user_id)
        if not user.active:
            raise Unauthenticated
        return session, user

    def secrets_of(self, actor: Actor) -> tuple[bytes, ...]:
        """Return what answers to a person's repeated writes are sealed with, and may have been: their tokens change."""
        return self._site_key.derive_all(f"answers to {actor.user}")

    # ---- of the one who asks

    async def mine(self, actor: Actor) -> list[Session]:
        """List the actor's sessions that go on, newest first."""
        async with self._db.read() as tx:
            return await store.going_on(tx, actor.user, self._clock())

    async def end(self, actor: Actor, session_id: str) -> None:
        """End one of the actor's sessions."""
        now = self._clock()
        async with self._db.begin() as tx:
            session = await store.session(tx, session_id, for_update=True)
            if session is None or session.user_id != actor.user or not session.good(now):
                raise SessionNotFound
            await self.end_in(tx, session)
            await self._audit.note(tx, actor, "session.end", session_id, user=actor.user)

    async def logout(self, actor: Actor) -> None:
        """End the session that this is asked in."""
        if not in_session(actor):
            raise NoSession
        await self.end(actor, actor.id)

    async def logout_all(self, actor: Actor) -> None:
        """End all of the actor's sessions."""
        async with self._db.begin() as tx:
            if await self.end_all_in(tx, actor.user):
                await self._audit.note(tx, actor, "session.end_all", actor.user)

    async def leave(self, token: str, origin: Origin) -> None:
        """End the session of a browser by its refresh token, whoever has that; raises `RefreshRefused`."""
        session = await self.of_token(token, browser=True)
        user = await self._users.user(session.user_id)
        await self.end(Actor(session.id, user.name, user.id, request_id=origin.request_id, address=origin.address), session.id)

    async def of_browser(self, actor: Actor) -> Session:
        """Return the browser's session that this is asked in; raises `NoSession`."""
        async with self._db.read() as tx:
            session = await store.session(tx, actor.id)
        if session is None or not session.browser:
            raise NoSession
        return session

    async def sign_out(self, actor: Actor, user_id: str) -> None:
        """End all sessions of somebody else, who may log in again."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            user = await self._users.user_in(tx, user_id)
            await self.end_all_in(tx, user.id)
            await self._audit.note(tx, actor, "session.end_all", user.id, name=user.name)

    async def change_password(self, actor: Actor, old: str, new: str) -> None:
        """Give the actor another password, who must know the present one; their other sessions end."""
        user = await self._users.user(actor.user)
        account = f"password of {user.id}"  # apart from logins: whoever guesses here keeps nobody from coming in
        await self._attempts.take({account: ACCOUNT_TRIES}, self._clock())
        kept = await self._users.password_of(user.id)
        if not (await self._passwords.checked(old, kept)).right:
            raise WrongPassword
        better = await self._passwords.hashed(new, user.name, user.email or "")
        async with self._db.begin() as tx:
            await self._users.user_in(tx, user.id, for_update=True)
            if await self._users.password_of_in(tx, user.id) != kept:
                raise WrongPassword  # it was changed meanwhile
            await self._attempts.cleared(tx, account)
            await self._users.set_password_in(tx, actor, user.id, better, session=actor.id)

    async def end_all_in(self, tx: Transaction, user_id: str, *, kept: str = "") -> bool:
        """End the sessions of a user in `tx`, except `kept`; returns whether there was one."""
        ended = await store.end_all(tx, user_id, self._clock(), kept=kept)
        if ended:
            await self._events.publish(tx, TrustChanged())
        return ended

    # ---- signing keys

    async def published(self) -> dict[str, Any]:
        """Return the keys that tokens can be checked with, also those that do not sign yet or any more."""
        now = self._clock()
        async with self._db.read() as tx:
            return tokens.published(_pair(key) for key in await store.keys(tx) if key.good(now))

    async def trusted(self, tx: Transaction) -> Trust:
        """Return what serving checks access tokens by, without the people, for a snapshot made in `tx`."""
        now = self._clock()
        return Trust(
            issuers=self._issuer.names,
            signers=tuple(_signer(key) for key in await store.keys(tx) if key.good(now)),
            ended=frozenset(await store.ended_since(tx, now - ACCESS_LIFE - SKEW)),
        )

    async def rotate_keys(self, actor: Actor) -> datetime:
        """Publish a new signing key; returns from when on it signs. Nobody is logged out."""
        actor.need(Scope.ADMIN)
        now = self._clock()
        async with self._db.begin() as tx:
            await self._signing_key(tx, now, lost=True)
            alive = []
            for key in await store.keys(tx, for_update=True):
                if key.good(now):
                    alive.append(key)
                else:
                    await store.remove_key(tx, key.number)
            old = alive[-1]
            usable = self._issuer.opens(_pair(old))
            if usable and len(alive) > 1:
                raise RotationUnderWay
            signs_from = now + PUBLISHED_BEFORE if usable else now
            new = self._issuer.new_key()
            await store.limit_key(tx, old.number, signs_from + ACCESS_LIFE + SKEW)
            await store.add_key(tx, Keyed(old.number + 1, new.kid, new.public, new.sealed, signs_from))
            await self._events.publish(tx, TrustChanged())
            await self._audit.note(tx, actor, "signing_key.rotate", new.kid, signs_from=signs_from.isoformat())
            return signs_from

    async def reseal(self, actor: Actor) -> Resealed:
        """Seal the signing keys with the site key that seals now; which one opens them is no matter of those who log in."""
        now, done = self._clock(), Resealed()
        async with self._db.begin() as tx:
            for key in await store.keys(tx, for_update=True):
                try:
                    sealed = self._issuer.resealed(_pair(key)).sealed
                except InvalidTag:
                    done = msgspec.structs.replace(done, lost=done.lost + key.good(now))
                    continue
                if sealed == key.sealed:
                    done = msgspec.structs.replace(done, already=done.already + 1)
                else:
                    await store.reseal_key(tx, key.number, sealed)
                    done = msgspec.structs.replace(done, rewritten=done.rewritten + 1)
            if done.rewritten:
                await self._audit.note(tx, actor, "site_key.rotate", "", signing_keys=str(done.rewritten))
        return done

    async def _signing_key(self, tx: Transaction, now: datetime, *, lost: bool = False) -> SigningKey:
        """Return the key that signs; the first is made when it is needed. With `lost`, it need not open."""
        key = signing(await store.keys(tx), now)
        if key is None:
            new = self._issuer.new_key()
            await store.add_key(tx, Keyed(1, new.kid, new.public, new.sealed, now))
            await self._events.publish(tx, TrustChanged())
            key = signing(await store.keys(tx), now)
        if key is None or not (lost or self._issuer.opens(_pair(key))):
            raise SigningKeyLost
        return _pair(key)

    # ---- tokens

    async def begin_in(self, tx: Transaction, user: User, origin: Origin, *, provider: str = "", life: Life = _LONG) -> Tokens:
        """Begin a session in `tx`, for whoever has made sure that it is this user: as said by `provider`, or by a password."""
        now = self._clock()
        program = "".join(sign for sign in origin.program if sign.isprintable())[:LONGEST_PROGRAM]
        session = Session(
            id=new_id(_PREFIX),
            user_id=user.id,
            created_at=now,
            used_at=now,
            expires_at=now + life.whole,
            address=origin.address,
            program=program,
            provider=provider,
            idle_s=int(life.idle.total_seconds()),
            browser=life.browser,
        )
        await store.add(tx, session)
        actor = Actor(session.id, user.name, user.id, request_id=origin.request_id, address=origin.address)
        said_by = {"provider": provider} if provider else {}
        await self._audit.note(tx, actor, "session.begin", session.id, user=user.id, **said_by)
        return await self._next(tx, session, now)

    async def _next(self, tx: Transaction, session: Session, now: datetime) -> Tokens:
        """Return new tokens for a session."""
        ends = min(now + timedelta(seconds=session.idle_s), session.expires_at)
        until = min(now + ACCESS_LIFE, ends)
        access = self._issuer.sign(await self._signing_key(tx, now), session.user_id, session.id, now=now, until=until)
        refresh = secrets.new_secret(secrets.REFRESH).reveal()
        await store.add_token(tx, RefreshToken(secrets.digest(refresh), session.id, ends), now)
        return Tokens(access, refresh, session.id, until, ends)


def stranger(origin: Origin) -> Actor:
    """Return whoever asks from there as somebody of whom nothing is known."""
    return Actor("unknown", "", request_id=origin.request_id, address=origin.address)


def in_session(actor: Actor) -> bool:
    """Whether the actor has logged in, rather than sent a key."""
    return actor.id.startswith(f"{_PREFIX}_")


def _pair(key: Keyed) -> SigningKey:
    return SigningKey(key.kid, key.public, key.sealed)


def _signer(key: Keyed) -> Signer:
    return Signer(key.kid, key.public, None if key.good_until is None else key.good_until.timestamp())


def _sealed(token: str, answer: Tokens) -> bytes:
    """Return an answer so that only who has the refresh token, which nobody keeps, can read it."""
    nonce = os.urandom(_NONCE)
    return nonce + _cipher(token).encrypt(nonce, msgspec.msgpack.encode(answer), None)


def _opened(token: str, known: RefreshToken) -> Tokens:
    sealed = known.answer or b""
    return msgspec.msgpack.decode(_cipher(token).decrypt(sealed[:_NONCE], sealed[_NONCE:], None), type=Tokens)


def _cipher(token: str) -> AESGCM:
    return AESGCM(hmac.digest(token.encode(), b"modelkeep refresh answer 1", "sha256"))
