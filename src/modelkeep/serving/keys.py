"""Who is calling: API keys checked in memory, by the SHA-256 of what was presented, and access tokens by their signatures."""

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.contracts.errors import CertificateUnclear, Forbidden, Unauthenticated, Unavailable
from modelkeep.contracts.snapshot import ServedKey, Trust
from modelkeep.infra import tokens

_MOST_TOKENS: Final = 10_000
_NOBODY: Final = Trust()
_NO_KEYS: Final[dict[str, bytes]] = {}


class StaleNews(Unavailable):
    """The server has heard nothing from the control plane for so long that keys may have been revoked meanwhile."""

    code = "stale_news"


class Keys:
    """The keys of the newest snapshot. Looking one up takes the same time whether it is known or not.

    An access token's signature is checked once; its session then counts as a key, with all that its person may do by the newest
    snapshot.
    """

    def __init__(self, *, max_staleness_s: float, clock: Callable[[], float] = time.time) -> None:
        self._max_staleness_s = max_staleness_s
        self._clock = clock
        self._keys: dict[bytes, ServedKey] = {}
        self._tokens: dict[bytes, ServedKey] = {}
        self._claims: dict[bytes, tokens.Claims] = {}  # of tokens with good signatures
        self._by_name: dict[str, dict[str, bytes]] = {}  # digests of the keys that certificates stand for, by name and key
        self._certified: dict[bytes, frozenset[bytes]] = {}
        self._trust = _NOBODY
        self._verifier = tokens.Verifier((), ())
        self._news_at = 0.0

    def replace(self, keys: Iterable[ServedKey], trust: Trust = _NOBODY) -> None:
        """Take the keys of a newer snapshot, and what tokens are checked by; all others are gone."""
        keys = tuple(keys)
        self._keys = {key.digest: key for key in keys}
        self._tokens = {}
        self._by_name, self._certified = {}, {}
        for key in keys:
            if key.certificate is not None and key.certificate.stands_for:
                for name in key.certificate.names:
                    self._by_name.setdefault(name, {}).setdefault(key.id, key.digest)  # the first: its secret stays longest
        if (trust.signers, trust.issuers) != (self._trust.signers, self._trust.issuers):
            self._claims = {}
            self._verifier = tokens.Verifier(trust.signers, trust.issuers)
        self._trust = trust

    def heard(self, at: float) -> None:
        """The control plane vouched at `at` (Unix seconds) that the newest snapshot is the newest."""
        self._news_at = max(self._news_at, at)

    @property
    def staleness_s(self) -> float:
        """Seconds since the control plane was last heard of."""
        return max(0.0, self._clock() - self._news_at)

    def check(self, presented: bytes | None, scope: Scope, look: Callable[[], object] = bool) -> ServedKey:
        """Return the key; raises `Unauthenticated`, `Forbidden`, or `StaleNews` when nothing can be trusted any more.

        A signature costs many times what a key does, and anybody can make one up: `look` is called before, and may raise.
        """
        if presented is None:
            raise Unauthenticated
        digest = hashlib.sha256(presented).digest()
        if digest not in self._keys and digest not in self._tokens and self._verifier.may_sign(presented):
            if digest not in self._claims:
                look()
            self._take(presented, digest)
        return self.check_digest(digest, scope)

    def certified(self, shown: ShownCertificate, scope: Scope) -> ServedKey | None:
        """Return the key that a certificate stands for, None where it stands for none.

        Raises as `check` does, and `CertificateUnclear` where it could be several.
        """
        digests = self._certified.get(shown.digest)
        if digests is None:
            digests = frozenset(digest for name in shown.names for digest in self._by_name.get(name, _NO_KEYS).values())
            if len(self._certified) >= _MOST_TOKENS:
                self._certified.clear()
            self._certified[shown.digest] = digests
        if not digests:
            return None
        if len(digests) > 1:
            raise CertificateUnclear
        return self.check_digest(next(iter(digests)), scope)

    def now(self) -> float:
        """Return the time, in Unix seconds."""
        return self._clock()

    def check_digest(self, digest: bytes, scope: Scope) -> ServedKey:
        """Return the key of which this is the SHA-256; raises as `check` does."""
        key = self._keys.get(digest) or self._tokens.get(digest)
        now = self._clock()
        if now - self._news_at > self._max_staleness_s:
            raise StaleNews(retry_after_s=5)
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            raise Unauthenticated("This key or token is not known, has expired, or was revoked.")
        if not key.standing.carries(scope):
            raise Forbidden(f"This key may not do that: it needs the scope {scope.value!r}.")
        return key

    def _take(self, token: bytes, digest: bytes) -> None:
        """Remember whose access token this is, if it is one that is good now."""
        claims = self._claims.get(digest)
        if claims is None:
            try:
                claims = self._verifier.verified(token, self._clock())
            except Unauthenticated:
                return
        person = self._trust.people.get(claims.sub)
        if person is None or claims.sid in self._trust.ended:
            return
        if len(self._claims) >= _MOST_TOKENS:
            self._tokens.clear()
            self._claims.clear()
        self._claims[digest] = claims
        self._tokens[digest] = ServedKey(
            claims.sid, digest, person.name, person.standing, claims.exp, person.rate, bucket=person.bucket
        )
