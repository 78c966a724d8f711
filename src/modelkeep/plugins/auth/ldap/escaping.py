"""Names and values of directories as text that means nothing but itself."""

from typing import Final

from modelkeep.contracts.auth import LONGEST_LOGIN, IdentityRefused

_HEX: Final = "0x"


def in_filter(value: str | bytes) -> str:
    """Return a value for a filter (RFC 4515): each byte that is no letter or digit is escaped."""
    return _escaped(value)


def in_name(value: str) -> str:
    """Return a value for the name of an entry (RFC 4514): the same escapes mean the same there."""
    return _escaped(value)


def checked_login(login: str) -> str:
    """Return a name to log in with; raises `IdentityRefused` for one that nobody has."""
    if not login.strip() or len(login) > LONGEST_LOGIN or not login.isprintable():
        raise IdentityRefused
    return login


def subject_of(raw: bytes) -> str:
    """Return the value of an attribute as a subject: as text, or where it is none, in hexadecimal."""
    text = raw.decode("ascii", errors="replace")
    return text if text.isprintable() and raw.isascii() and not text.startswith(_HEX) else _HEX + raw.hex()


def raw_of(subject: str) -> bytes:
    """Return the attribute's value of a subject."""
    return bytes.fromhex(subject[len(_HEX) :]) if subject.startswith(_HEX) else subject.encode()


def _escaped(value: str | bytes) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\{byte:02X}" for byte in raw)  # noqa: PLR2004 - ASCII
