"""Passwords: which are good enough, how they are kept, and checking them without stopping anything else.

New ones are kept as Argon2id. Hashes of bcrypt, of cost 12 and above, are accepted from elsewhere, and the first login with one
replaces it. bcrypt reads 72 bytes and no more, so a longer password is never asked of it.

A hash takes tens of milliseconds and tens of MiB on purpose. So they are computed in a few threads of their own, which nothing
else waits for, and where too many wait for one, the next is turned away at once. Whether a name exists cannot be told from how
much is computed: without a hash to compare with, a decoy is computed instead.
"""

import asyncio
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from modelkeep.contracts.errors import FieldError, Invalid, Unavailable

T = TypeVar("T")
SHORTEST: Final = 12
LONGEST: Final = 1024
_THREADS: Final = 2
_WAITING: Final = 16
_BCRYPT: Final = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")
_ARGON2ID: Final = re.compile(r"\$argon2id\$v=19\$m=\d{1,8},t=\d{1,3},p=\d{1,3}\$[A-Za-z0-9+/]{11,88}\$[A-Za-z0-9+/]{22,172}")
_BCRYPT_READS: Final = 72
_LEAST_COST: Final = 12
_MOST_COST: Final = 16
_MOST_MIB: Final = 1024
_STEMS: Final = (
    "password", "passwort", "passw0rd", "p@ssword", "p@ssw0rd", "motdepasse", "contrasena", "qwerty", "qwertz", "azerty",
    "qwertyuiop", "asdfghjkl", "iloveyou", "letmein", "welcome", "administrator", "admin", "changeme", "secret", "default",
    "dragon", "monkey", "football", "baseball", "superman", "sunshine", "princess", "master", "modelkeep", "test", "guest",
)  # fmt: skip
_RUNS: Final = ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm", "1qaz2wsx3edc4rfv5tgb6yhn")
_FILLING: Final = re.compile(r"[\d\W_]+")
_FEWEST_SIGNS: Final = 5


class WeakPassword(Invalid):
    """This password is too short or too well known: take one of at least 12 characters that nobody would guess."""

    code = "weak_password"


class UnknownHash(Invalid):
    """A password's hash must be Argon2id, or bcrypt of cost 12 to 16."""

    code = "unknown_password_hash"


class PasswordsBusy(Unavailable):
    """Too many passwords are being checked at this moment: try again soon."""

    code = "passwords_busy"


class Hasher(Protocol):
    """What computes hashes; those of pwdlib do."""

    def hash(self, password: str) -> str:
        """Return what to keep of a password."""

    def verify(self, password: str, hash: str) -> bool:  # noqa: A002 - pwdlib's name
        """Whether it is of this password."""

    def check_needs_rehash(self, hash: str) -> bool:  # noqa: A002 - pwdlib's name
        """Whether it is of another strength than new ones are."""


class Checked(NamedTuple):
    """Whether a password was right; `better` is what to keep of it from now on, where it has been kept in an older way."""

    right: bool
    better: str | None = None


class Passwords:
    """Hashes and checks passwords. `known` are those that nobody may take, beside those that rules of our own tell."""

    def __init__(
        self,
        known: frozenset[str] = frozenset(),
        *,
        argon2: Hasher | None = None,
        bcrypt: Hasher | None = None,
        threads: int = _THREADS,
        waiting: int = _WAITING,
    ) -> None:
        self._known = known
        self._given = (argon2, bcrypt)
        self._most = threads + waiting
        self._under_way = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="password")

    async def hashed(self, password: str, *names: str) -> str:
        """Return what to keep of a new password; raises `WeakPassword`. `names` are its owner's, and are no passwords."""
        plain = _plain(password)
        self._check(plain, names)
        return await self._computed(lambda: self._argon2.hash(plain))

    async def checked(self, password: str, kept: str | None) -> Checked:
        """Compare a password with what is kept of one, or with a decoy where nothing is."""
        plain = _plain(password)
        if kept is not None and len(password) <= LONGEST:
            if _ARGON2ID.fullmatch(kept):
                return await self._compared(lambda: self._against_argon2(plain, kept))
            if _BCRYPT.fullmatch(kept) and len(plain.encode()) <= _BCRYPT_READS:
                return await self._compared(lambda: self._against_bcrypt(plain, kept))
        await self._computed(lambda: self._argon2.verify(plain[:LONGEST], self._decoy))
        return Checked(right=False)

    async def _compared(self, compare: Callable[[], Checked]) -> Checked:
        """Compute a comparison with what is kept. The first makes the decoy, too: else the first unknown name took longer."""
        return await self._computed(lambda: (self._decoy, compare())[1])

    def close(self) -> None:
        """End the threads, without waiting for what they compute."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _argon2(self) -> Hasher:
        from pwdlib.hashers.argon2 import Argon2Hasher

        return self._given[0] or Argon2Hasher()

    @cached_property
    def _bcrypt(self) -> Hasher:
        from pwdlib.hashers.bcrypt import BcryptHasher

        return self._given[1] or BcryptHasher()

    @cached_property
    def _decoy(self) -> str:
        """A hash that costs what a real one does, and that no password fits: its own has been thrown away."""
        import secrets

        return self._argon2.hash(secrets.token_urlsafe())

    def _against_argon2(self, plain: str, kept: str) -> Checked:
        if not self._argon2.verify(plain, kept):
            return Checked(right=False)
        return Checked(right=True, better=self._argon2.hash(plain) if self._argon2.check_needs_rehash(kept) else None)

    def _against_bcrypt(self, plain: str, kept: str) -> Checked:
        if not self._bcrypt.verify(plain, kept):
            return Checked(right=False)
        return Checked(right=True, better=self._argon2.hash(plain))

    def _check(self, plain: str, names: tuple[str, ...]) -> None:
        """Refuse what is too short, too long, well known, or the owner's own name."""
        if len(plain) < SHORTEST:
            raise _weak(f"A password has at least {SHORTEST} characters.")
        if len(plain) > LONGEST:
            raise _weak(f"A password has at most {LONGEST} characters.")
        if well_known(plain) or plain.casefold() in self._known:
            raise _weak("This password is well known: take another.")
        if _core(plain) in {_core(name) for name in names if _core(name)}:
            raise _weak("This password is its owner's name: take another.")

    async def _computed(self, work: Callable[[], T]) -> T:
        """Compute in a thread, unless too many wait for one."""
        if self._under_way >= self._most:
            raise PasswordsBusy(retry_after_s=1)
        self._under_way += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._one_less)  # when it is done, not when whoever asked has gone
        return await asyncio.shield(future)

    def _one_less(self, done: "asyncio.Future[T]") -> None:
        self._under_way -= 1
        if not done.cancelled():
            done.exception()  # whoever asked has been told, or has gone


def read_known(path: Path) -> frozenset[str]:
    """Return the passwords of a file, one a line; raises `Invalid` where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"The list of known passwords {path} cannot be read as UTF-8.") from error
    return frozenset(_plain(line).casefold() for line in text.splitlines() if line)


def check_hash(kept: str) -> str:
    """Return a hash from elsewhere when it is one that can be checked here; raises `UnknownHash`."""
    bcrypt = _BCRYPT.fullmatch(kept)
    if bcrypt is not None and _LEAST_COST <= int(bcrypt["cost"]) <= _MOST_COST:
        return kept
    if _ARGON2ID.fullmatch(kept):
        memory, rounds, lanes = (int(number) for number in re.findall(r"[mtp]=(\d+)", kept))
        if 19 * 1024 <= memory <= _MOST_MIB * 1024 and 1 <= rounds <= 10 and 1 <= lanes <= 16:  # noqa: PLR2004 - OWASP's least
            return kept
    raise UnknownHash


def well_known(plain: str) -> bool:
    """Whether it is a common word with filling, a run along the alphabet or the keyboard, or hardly any signs at all."""
    small = plain.casefold()
    if len(set(small)) < _FEWEST_SIGNS or any(_repeats(small, size) for size in range(1, len(small) // 2 + 1)):
        return True
    if any(_runs(small, run) for run in _RUNS):
        return True
    rest = small
    for stem in sorted(_STEMS, key=len, reverse=True):
        rest = rest.replace(stem, "")
    return rest != small and not _core(rest)


def _repeats(text: str, size: int) -> bool:
    return text == (text[:size] * (len(text) // size + 1))[: len(text)]


def _runs(text: str, run: str) -> bool:
    """Whether it goes along `run`, in either direction."""
    return text in run * 2 or text[::-1] in run * 2


def _core(text: str) -> str:
    """Return it without digits, signs and case."""
    return _FILLING.sub("", text.casefold())


def _plain(password: str) -> str:
    """Return it as every keyboard and system writes it."""
    return unicodedata.normalize("NFKC", password)


def _weak(message: str) -> WeakPassword:
    return WeakPassword(message, fields=(FieldError("password", "weak_password", message),))
