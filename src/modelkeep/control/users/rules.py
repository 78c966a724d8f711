"""Users, keys and setup tokens as values, and when each is good."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_network
from typing import Final

import msgspec

from modelkeep.contracts import rates
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.certificates import DNS, LONGEST_NAME, MOST_NAMES, SHA256, URI, KeyCertificate
from modelkeep.contracts.errors import FieldError, Forbidden, Invalid
from modelkeep.contracts.snapshot import Rate

KEY_PREFIX: Final = "key"
SETUP_TOKEN_LIFE: Final = timedelta(hours=24)
NOTE_USE_EVERY: Final = timedelta(minutes=5)
UNLIMITED: Final = "unlimited"
SHARED: Final = "user"
LONGEST_EMAIL: Final = 254
LONGEST_OVERLAP_DAYS: Final = 90
_MOST_NETWORKS: Final = 50
_EMAIL: Final = re.compile(r"[^\s@]{1,64}@[^\s@]+")
_NAMES: Final = {
    DNS: re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"),
    URI: re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+"),
    SHA256: re.compile(r"[0-9a-f]{64}"),
}
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Kind(StrEnum):
    """Who a user is: a person, who may log in, or a service, which has keys alone."""

    PERSON = "person"
    SERVICE = "service"


class Status(StrEnum):
    """Whether a user may come in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class User(msgspec.Struct, frozen=True):
    """A person or a service. The hash of a password is no part of it, so that nothing shows it by mistake.

    `email_proven`: that the address is theirs, an administrator or an identity provider has said, and not they alone.
    """

    id: str
    name: str
    created_at: datetime
    email: str | None = None
    display_name: str = ""
    status: Status = Status.ACTIVE
    kind: Kind = Kind.PERSON
    email_proven: bool = False

    @property
    def active(self) -> bool:
        """Whether the user may come in at all."""
        return self.status is Status.ACTIVE


class Key(msgspec.Struct, frozen=True):
    """An API key, without its secret, which nobody has.

    It has a rate of its own (`rate_per_minute`; `burst` None is a sixth of it), or that of a class: "user" is the rate that
    all keys of its user share, others are named in the settings. Without either it is unlimited. `concurrency` is how many of
    its predictions may be under way at once, None for any number. `models` (ids) are those that it is good for, None for all,
    `networks` (CIDRs) those from which alone it is good, none for all, and `certificate` says over whose connections alone it
    is, None for any's; like its scopes they bound what its owner may do, and add nothing to it. Since `rotated_at` it has
    another secret; the one from before opens the same until `previous_until`.
    """

    id: str
    user_id: str
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    rate_per_minute: int | None = None
    burst: int | None = None
    models: tuple[str, ...] | None = None
    rotated_at: datetime | None = None
    previous_digest: bytes | None = None
    previous_until: datetime | None = None
    previous_used_at: datetime | None = None
    rate_class: str | None = None
    networks: tuple[str, ...] = ()
    concurrency: int | None = None
    certificate: KeyCertificate | None = None

    @property
    def rate(self) -> str:
        """Its rate as people write it."""
        if self.rate_class is not None:
            return self.rate_class
        return UNLIMITED if self.rate_per_minute is None else f"{self.rate_per_minute}/min"

    @property
    def unlimited(self) -> bool:
        """Whether it has no rate at all."""
        return self.rate == UNLIMITED

    @property
    def whole(self) -> bool:
        """Whether it does all that its owner may, from anywhere and for good."""
        return Scope.ADMIN in self.scopes and self.models is None and not self.bounded

    @property
    def bounded(self) -> bool:
        """Whether it is good from some networks, with some certificates, until some day, at some rate or for so many alone."""
        paced = self.rate not in {UNLIMITED, SHARED} or self.concurrency is not None
        return bool(self.networks) or self.certificate is not None or self.expires_at is not None or paced

    def good(self, now: datetime) -> bool:
        """Whether the key opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def has_previous(self, now: datetime) -> bool:
        """Whether the secret from before its rotation is good, where the key is."""
        return self.previous_digest is not None and self.previous_until is not None and now < self.previous_until

    def opened_by(self, digest: bytes, now: datetime) -> bool:
        """Whether the secret kept under this digest opens anything at this moment."""
        return self.good(now) and digest in dict(self.opened_with(now))

    def opened_with(self, now: datetime) -> Iterator[tuple[bytes, datetime | None]]:
        """Yield the digests of its secrets, and until when each opens what the key does; None for good."""
        yield self.digest, self.expires_at
        if self.has_previous(now) and self.previous_digest is not None and self.previous_until is not None:
            yield self.previous_digest, min(self.previous_until, self.expires_at or self.previous_until)


class SetupToken(msgspec.Struct, frozen=True):
    """The one-time token that makes the first administrator."""

    id: str
    digest: bytes
    expires_at: datetime
    used_at: datetime | None = None

    def good(self, now: datetime) -> bool:
        """Whether the token may still be used."""
        return self.used_at is None and now < self.expires_at


def by_key(actor: Actor) -> bool:
    """Whether the actor has sent a key, rather than logged in or shown another system's token."""
    return actor.id.startswith(f"{KEY_PREFIX}_")


def use_is_news(used_at: datetime | None, now: datetime) -> bool:
    """Whether a use of a secret now is worth writing down: only now and then, so that reading does not become writing."""
    return used_at is None or now - used_at >= NOTE_USE_EVERY


def rotated(key: Key, digest: bytes, now: datetime, keep_days: int) -> Key:
    """Return a key with another secret, and its present one for so many days beside it."""
    if not 0 <= keep_days <= LONGEST_OVERLAP_DAYS:
        raise Invalid(f"The secret from before is kept for 0 to {LONGEST_OVERLAP_DAYS} days.")
    return msgspec.structs.replace(
        key,
        digest=digest,
        last_used_at=None,
        rotated_at=now,
        previous_digest=key.digest if keep_days else None,
        previous_until=now + timedelta(days=keep_days) if keep_days else None,
        previous_used_at=key.last_used_at if keep_days else None,
    )


def email_of(text: str) -> str:
    """Return an e-mail address as it is kept: the same for all ways of writing it. Raises `Invalid` for what is none."""
    email = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold())
    unseen = any(unicodedata.category(sign) in _UNSEEN for sign in email)
    if unseen or len(email) > LONGEST_EMAIL or not _EMAIL.fullmatch(email):
        message = f"Write it as ada@example.org, with at most {LONGEST_EMAIL} characters."
        raise Invalid("This is no e-mail address.", fields=(FieldError("email", "invalid_email", message),))
    return email


def expiry(days: int | None, now: datetime) -> datetime | None:
    """Return when a key made now ends; None for never."""
    if days is None:
        return None
    if days < 1:
        raise Invalid("A key lives for at least one day.")
    return now + timedelta(days=days)


class Classes(msgspec.Struct, frozen=True):
    """The rates that keys name: `user` is what all keys of one person share, `named` those of the settings."""

    user: Rate = Rate(100, 16)
    named: Mapping[str, Rate] = {}

    def served(self, key: Key) -> tuple[Rate | None, str]:
        """Return a key's rate as serving holds it, None for unlimited, and the bucket that it shares, "" for its own.

        A key whose class the settings name no more is held to what it would be without one: to its person's rate.
        """
        if key.rate_class is None:
            return None if key.rate_per_minute is None else Rate(key.rate_per_minute, key.burst or 0).whole, ""
        named = self.named.get(key.rate_class)
        return (named, "") if named is not None else self.of_person(key.user_id)

    def above(self, key: Key, others: Iterable[Key] = ()) -> bool:
        """Whether a key may ask more than its person, or what the settings have set aside for some.

        Rates of their own count together with those of the `others` that a person has: many small ones are a large one.
        """
        if key.rate_class is not None:
            return key.rate_class != SHARED
        if key.rate_per_minute is None:
            return True
        paced = [one for one in (*others, key) if one.rate_per_minute is not None]
        own = [Rate(one.rate_per_minute or 0, one.burst or 0).whole for one in paced]
        too_often = sum(rate.per_minute for rate in own) > self.user.per_minute
        return too_often or sum(rate.burst for rate in own) > self.user.burst

    def of_person(self, user_id: str) -> tuple[Rate, str]:
        """Return the rate that all keys and tokens of one person share, and their bucket."""
        return self.user, f"{SHARED}/{user_id}"

    def read(self, text: str, burst: int | None) -> tuple[int | None, int | None, str | None]:
        """Return the requests a minute, the burst and the class that a key's rate says; raises `Invalid`."""
        if text == UNLIMITED:
            said: Rate | None = None
        elif text == SHARED or text in self.named:
            if burst is not None:
                raise Invalid("A burst needs a rate of the key's own: a class has its own.")
            return None, None, text
        else:
            said = rates.read(text)
            if said is None or ":" in text:
                choices = ", ".join((SHARED, *self.named))
                message = f"Write it as 100/min, from 1/min to {rates.HIGHEST_RATE}/min, or as {UNLIMITED}, {choices}."
                raise Invalid("A rate is so many requests a minute.", fields=(FieldError("rate", "invalid_rate", message),))
        if said is None and burst is not None:
            raise Invalid("A burst needs a rate.")
        return None if said is None else said.per_minute, burst, None


def check_may_bind(actor: Actor, certificate: KeyCertificate | None) -> None:
    """Raise `Forbidden` where somebody says what certificates stand for, which are other people's as well as theirs."""
    if certificate is not None and certificate.stands_for and not actor.may(Scope.ADMIN):
        raise Forbidden("Administrators of the installation alone have certificates stand for a key.")


def told(certificate: KeyCertificate | None) -> str:
    """Return what the audit trail says of the certificates of a key."""
    if certificate is None:
        return ""
    names = " ".join(certificate.names)
    return f"{names} (stands for it)" if certificate.stands_for else names


def certificate_of(names: Iterable[str], *, stands_for: bool) -> KeyCertificate:
    """Return what a key asks of certificates; raises `Invalid` for what is no name of one."""
    read = tuple(sorted({_certificate_name(name) for name in names}))
    if not 1 <= len(read) <= MOST_NAMES:
        raise Invalid(f"A key goes with 1 to {MOST_NAMES} certificates or names.")
    return KeyCertificate(read, stands_for)


def _certificate_name(text: str) -> str:
    """Return a name of a certificate as it is compared: DNS names and fingerprints in small letters, addresses as they are."""
    kind, colon, name = text.strip().partition(":")
    kind += colon
    if kind == SHA256:
        name = name.replace(":", "").lower()
    elif kind == DNS:
        name = name.lower()
    if kind not in _NAMES or len(kind + name) > LONGEST_NAME or not _NAMES[kind].fullmatch(name):
        message = "Write it as dns:scoring.example.org, uri:spiffe://example.org/scoring, or sha256: and a fingerprint."
        fields = (FieldError("certificate.names", "invalid_certificate_name", message),)
        raise Invalid("This is no name of a client certificate.", fields=fields)
    return kind + name


def read_networks(texts: list[str]) -> tuple[str, ...]:
    """Return networks as CIDRs; raises `Invalid` with a field error for each that is none."""
    found, faults = [], []
    for at, text in enumerate(texts):
        try:
            found.append(str(ip_network(text.strip())))
        except ValueError:
            message = "Write a network as 10.1.0.0/16 or 2001:db8::/32, its host bits 0, or one address."
            faults.append(FieldError(f"networks[{at}]", "invalid_network", message))
    if faults or len(found) > _MOST_NETWORKS:
        raise Invalid(f"A key may be bound to {_MOST_NETWORKS} networks at most.", fields=tuple(faults))
    return tuple(dict.fromkeys(found))
