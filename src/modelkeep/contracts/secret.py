"""A text that does not print itself: what every setting and value that is secret is, from the moment it is read.

Nothing shows it but `reveal()`, which is called in the one place that needs the text. `repr`, `str` and f-strings hide it, so
that it can stand in any value that is logged, raised or printed; what would write it down whole, such as pickle, refuses.
"""

import hmac
from typing import Final, NoReturn

HIDDEN: Final = "Secret(hidden)"


class Secret:
    """A text that does not print itself; `reveal()` gives it. Empty, it is false, as a text is."""

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same secret, which no time that this takes tells; never whether it is some text."""
        return isinstance(other, Secret) and hmac.compare_digest(_bytes(self._text), _bytes(other._text))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a secret does not change")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")


NO_SECRET: Final = Secret("")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def hidden_in(value: object) -> str:
    """Return a secret's text for `msgspec`'s `enc_hook`: for the one channel that hands secrets to a process of our own."""
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)


def hidden_again(kind: type, value: object) -> object:
    """Return the secret that `hidden_in` has sent, for `msgspec`'s `dec_hook`."""
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(kind.__name__)
