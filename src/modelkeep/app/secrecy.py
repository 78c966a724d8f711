"""Hides the secrets in a setting, so that it can be shown.

Where it cannot be told which part of an address is secret, all of it is hidden.
"""

import re
from urllib.parse import unquote

from modelkeep.contracts.secret import Secret

HIDDEN = "***"
_SEPARATORS = ("", "?", "&", ";", "#")
_SECRET = re.compile(
    r"pass|pwd|secret|token|credential|auth|signature|api_?key|access_?key|private_?key|sslkey|\bsig\b|\bkey\b"
)


def shown(name: str, value: object) -> str:
    """Return the value of the setting `name` as text that anybody may read."""
    if isinstance(value, Secret):
        text = value.reveal()
        return without_secrets(text) if "://" in text else HIDDEN if text else ""
    if isinstance(value, tuple):
        return ", ".join(str(getattr(one, "name", one)) for one in value)  # of tables their names will do
    text = str(value)
    if not isinstance(value, str) or not text:
        return text
    if _looks_secret(name.rpartition(".")[2]):
        return HIDDEN
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """Return an address (`scheme://user:password@host/path?name=value`) with `***` for each secret in it; other text as it is.

    Secret are the password before the host, and every parameter whose name looks like a secret's.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return HIDDEN if _looks_secret(text) and "=" in text else text
    address, *parameters = re.split(r"([?&;#])", rest)
    if any("@" in part for part in parameters):
        return f"{scheme}://{HIDDEN}"  # a password with ? or # in it, or a parameter with @: nobody can tell
    return f"{scheme}://{_without_password(address)}{''.join(map(_without_value, parameters))}"


def _without_password(address: str) -> str:
    user_part, at, host = address.rpartition("@")
    user, colon, _password = user_part.partition(":")
    return f"{user}{colon}{HIDDEN if colon else ''}{at}{host}"


def _without_value(parameter: str) -> str:
    """Return `name=***` for a secret; a separator, and what is none, as it is."""
    name, equals, _value = parameter.partition("=")
    if not equals and parameter not in _SEPARATORS:
        return HIDDEN  # not a parameter: the rest of a password with & in it, perhaps
    return f"{name}={HIDDEN}" if _looks_secret(parameter) else parameter


def _looks_secret(text: str) -> bool:
    plain = text
    while (decoded := unquote(plain)) != plain:  # what is written with %61 for a is the same name
        plain = decoded
    return _SECRET.search(plain.lower()) is not None
