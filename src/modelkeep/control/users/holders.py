"""Who holds a key: by its secret, or by a client certificate that stands for it."""

from datetime import datetime

import structlog

from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.contracts.errors import CertificateUnclear, StorageFull, Unauthenticated, WrongNetwork
from modelkeep.control.users import store
from modelkeep.control.users.rules import Key, User, use_is_news
from modelkeep.infra import secrets
from modelkeep.infra.addresses import within
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, DatabaseUnavailable

_log = structlog.get_logger(__name__)


class Holders:
    """Tells whose key was shown, and lets it in where it is good."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def by_secret(
        self, secret: str, address: str | None = None, shown: ShownCertificate | None = None
    ) -> tuple[Key, User]:
        """Return the key with this secret and whose it is.

        Raises `Unauthenticated` for anything but a key that is good over a connection with the certificate `shown`, and
        `WrongNetwork` for one that is not good from `address`.
        """
        if not secrets.well_formed(secret, secrets.KEY):
            raise Unauthenticated
        now, digest = self._clock(), secrets.digest(secret)
        found = await self.presented(secret)
        if found is None or not found[0].opened_by(digest, now) or not found[1].active:
            raise Unauthenticated
        await self._admit(found[0], digest, now, address, shown)
        return found

    async def by_certificate(self, shown: ShownCertificate, address: str | None = None) -> tuple[Key, User]:
        """Return the key that a certificate stands for and whose it is.

        Raises as `by_secret` does, and `CertificateUnclear` where it stands for several.
        """
        now = self._clock()
        good = [(key, user) for key, user in await self.claimed(shown) if key.good(now) and user.active]
        if len(good) > 1:
            raise CertificateUnclear
        if not good:
            raise Unauthenticated
        ((key, user),) = good
        await self._admit(key, key.digest, now, address, shown)
        return key, user

    async def presented(self, secret: str) -> tuple[Key, User] | None:
        """Return whose secret this is, good or not; None where it is nobody's."""
        async with self._db.read() as tx:
            return await store.key_by_digest(tx, secrets.digest(secret))

    async def claimed(self, shown: ShownCertificate) -> list[tuple[Key, User]]:
        """Return the keys, good or not, that a certificate stands for, and whose they are."""
        async with self._db.read() as tx:
            return await store.keys_by_certificate(tx, shown.names)

    async def _admit(self, key: Key, digest: bytes, now: datetime, address: str | None, shown: ShownCertificate | None) -> None:
        """Let a good key in, where it is good from here and with what was shown; note that it was used."""
        if key.certificate is not None:
            key.certificate.check(shown, now.timestamp())
        if key.networks and not within(address, key.networks):
            raise WrongNetwork
        if use_is_news(key.last_used_at if digest == key.digest else key.previous_used_at, now):
            await self._note_use(key.id, digest, now)

    async def _note_use(self, key_id: str, digest: bytes, now: datetime) -> None:
        try:
            async with self._db.begin() as tx:
                await store.note_use(tx, digest, now)
        except (DatabaseUnavailable, StorageFull) as error:
            _log.info("key_use_not_noted", key=key_id, reason=error.code)  # the key is good all the same
