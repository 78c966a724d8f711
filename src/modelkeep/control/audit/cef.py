"""Entries in ArcSight's Common Event Format, a line each, escaped so that no name in them can make a line or a field."""

import re
from importlib.metadata import version
from ipaddress import ip_address
from typing import Final

from modelkeep.contracts.audit_chain import canonical
from modelkeep.control.audit.rules import Entry

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SEVERITY: Final = {"done": 3, "refused": 6}


def line(entry: Entry) -> bytes:
    """Return an entry as a line."""
    head = ("CEF:0", "Modelkeep", "Modelkeep", version("modelkeep"), entry.action, entry.action.replace(".", " "))
    fields = {
        "rt": str(int(entry.at.timestamp() * 1000)),
        "externalId": entry.id,
        "act": entry.action,
        "outcome": entry.outcome,
        "suid": entry.actor,
        "suser": entry.actor_name,
        **_source(entry.address),
        "cn1Label": "sequence",
        "cn1": str(entry.seq),
        "cs1Label": "target",
        "cs1": entry.target,
        "cs2Label": "request",
        "cs2": entry.request_id,
        "cs3Label": "before",
        "cs3": entry.before or "",
        "cs4Label": "after",
        "cs4": entry.after or "",
        "cs5Label": "details",
        "cs5": canonical(entry.details).decode(),
        "cs6Label": "hash",
        "cs6": entry.hash,
    }
    header = "|".join([*(_header(one) for one in head), str(_SEVERITY[entry.outcome])])
    said = " ".join(f"{name}={_extension(value)}" for name, value in fields.items())
    return f"{header}|{said}\n".encode()


def _source(address: str) -> dict[str, str]:
    """Return the caller's address in the field of its kind."""
    try:
        known = ip_address(address)
    except ValueError:
        return {}
    return {"src": str(known)} if known.version == 4 else {"c6a2Label": "Source IPv6 Address", "c6a2": str(known)}  # noqa: PLR2004 - a kind of address


def _header(text: str) -> str:
    return _plain(text.replace("\\", "\\\\").replace("|", "\\|"))


def _extension(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")
    return _plain(escaped)


def _plain(text: str) -> str:
    """Write what else could end a line, or command a terminal, as its number."""
    return _CONTROLS.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
