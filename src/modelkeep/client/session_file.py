"""A file that keeps a login for all programs of one person on a machine.

It is theirs alone and whole at every moment, and one program at a time changes it.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, Self
from urllib.parse import quote, urlsplit

from modelkeep.client.errors import Invalid, NotAuthenticated
from modelkeep.client.identity import Tokens
from modelkeep.client.server import address

_PRIVATE: Final = 0o600
_OF_OTHERS: Final = 0o077


class SessionFile:
    """Keeps the tokens of a login in the file `path`, which nobody else may read (Linux, macOS).

    Several processes may use it: whoever renews the tokens holds `path`.lock meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, folder: str | os.PathLike[str], url: str) -> Self:
        """Return the file in `folder` for one server, by its address: what is kept for one is never shown to another."""
        where = urlsplit(address(url))
        name = quote(f"{where.scheme}://{where.netloc.rpartition('@')[2].lower()}{where.path}", safe="")
        return cls(Path(folder) / f"{name}.json")

    def read(self) -> Tokens | None:
        """Return the tokens, if there are any; refuses a file that others could have read or written."""
        try:
            with self.path.open(encoding="utf-8") as file:
                facts = os.fstat(file.fileno())
                if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & _OF_OTHERS:
                    raise NotAuthenticated(
                        f"{self.path} is not yours alone: others may have read or written it. Remove it, and log in again.",
                        code="session_file_exposed",
                    )
                return Tokens.read(json.load(file))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, AttributeError, TypeError, ValueError) as error:
            raise Invalid(
                f"{self.path} cannot be read as a login: {error}. Log in again.", code="session_file_unreadable"
            ) from error

    def write(self, tokens: Tokens | None) -> None:
        """Keep these tokens from now on; None forgets them."""
        with _in_words(self.path):
            if tokens is None:
                self.path.unlink(missing_ok=True)
                return
            with NamedTemporaryFile("w", dir=self.path.parent, prefix=".", delete=False) as file:  # of mode 0600
                try:
                    json.dump(dict(tokens.raw), file)
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).replace(self.path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it: who asks next has to wait."""
        import fcntl  # not everywhere, and the client is

        with _in_words(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}.", code="file_unwritable") from error
