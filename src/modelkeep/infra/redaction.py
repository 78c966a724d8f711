"""Takes secrets out of what is about to be written down: keys and tokens, passwords in addresses, credentials by their name.

It would rather hide a word too many than one too few: a log is read by more people than a database.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "[secret]"

_NAME: Final = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|authorization|cookie|credentials?|signature"
    r"|(?:x[-_])?api[-_]?key|access[-_]?key|private[-_]?key|ssl[-_]?key"
)
_IS: Final = r"[\\\"']*\s*[:=]\s*(?:b?[\\\"']+)?"  # from a name to its value, also as `repr` of `repr` writes it
_SECRET_NAME: Final = re.compile(rf"(?:{_NAME})$", re.IGNORECASE)
_DEEPEST: Final = 8

# Each keeps its group 1. None begins with a repetition, and each looks only so far, or a long value would take its square.
_PATTERNS: Final = (
    re.compile(r"()mk[slr]?(?:_|%5f)[0-9a-z]{16,}", re.IGNORECASE),  # our own keys, whole or cut short, wherever they stand
    re.compile(r"()eyJ[\w-]{8,1024}\.[\w-]+(?:\.[\w-]*)?"),  # a JSON Web Token
    re.compile(r"(://[^\s:/?#\"'<>]{0,256}:)[^\s\"'<>]{0,1024}(?=@)"),  # ://user:password@, whatever is in the password
    re.compile(rf"(authorization{_IS})(?:[a-z]+\s+)?[^\s\"',]+", re.IGNORECASE),
    re.compile(r"(bearer\s+)[^\s\"',]{6,}", re.IGNORECASE),
    re.compile(r"(Basic\s+)(?=\S*[a-z][A-Z]|\S*[0-9+/=])[0-9A-Za-z+/]{6,}={0,2}"),
    re.compile(rf"((?:{_NAME}){_IS})[^\s\"',&;#}}]+", re.IGNORECASE),
    re.compile(r"([?&;](?:key|sig|auth)=)[^\s\"'&;#]+", re.IGNORECASE),
)


def without_secrets(value: Any) -> Any:  # noqa: ANN401 - a line may carry anything
    """Return `value` in plain JSON types, with `[secret]` in the place of each secret; what is no JSON type by its `repr`."""
    return _clean(value, 0)


def _clean(value: Any, depth: int) -> Any:  # noqa: ANN401 - as above
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {_text(name): _named(_text(name), inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean(inner, depth + 1) for inner in value]
    return _text(value)


def _named(name: str, value: Any, depth: int) -> Any:  # noqa: ANN401 - as above
    """Hide all that stands under a secret's name."""
    return HIDDEN if value and _SECRET_NAME.search(name) else _clean(value, depth)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text
