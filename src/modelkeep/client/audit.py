"""The audit trail: who changed what, as a list or a file, and the erasure of a person from it."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from modelkeep.client.history import filters
from modelkeep.client.models import written
from modelkeep.client.results import AuditEntry, Listing
from modelkeep.client.server import Server
from modelkeep.client.steps import Ask, Save, Steps

_FILTERS = frozenset({"actor", "action", "target", "outcome", "request_id", "since", "until"})


def audit(server: Server, /, *, limit: int = 50, **wanted: object) -> Steps[list[AuditEntry]]:
    """Return the newest `limit` entries of the audit trail.

    `wanted`: actor (a key's id), action, target (an id), outcome ("done", "refused"), request_id, since and until (a datetime,
    ISO text or Unix seconds).
    """
    return Listing((yield from server.items("/audit", AuditEntry.read, most=limit, **filters(wanted, _FILTERS))))


def export_audit(
    server: Server,
    /,
    to: str | PathLike[str],
    *,
    format: str = "jsonl",  # noqa: A002 - the field's word, as in the API
    on_bytes: Callable[[int], None] | None = None,
    **wanted: object,
) -> Steps[Path]:
    """Write the audit trail to a file, oldest first, and return its path; `wanted` as for `audit`.

    `format` is "jsonl", which can be verified, or "cef". `on_bytes` hears how many bytes each piece has.
    """
    target = Path(to)

    def told(piece: bytes) -> None:
        if on_bytes is not None:
            on_bytes(len(piece))

    def fetch(file: BinaryIO) -> Steps[None]:
        def step(ask: Ask) -> Save:
            return Save(ask, file.write, told)

        return server.saved("/audit/export", step, params={"format": format} | filters(wanted, _FILTERS))

    yield from written(target, fetch)
    return target


def erase_from_audit(server: Server, subject: str, *, reason: str) -> Steps[int]:
    """Erase a person, or a key, from the audit trail by id, and return how many entries named them.

    `reason` stays in the trail: it must not name the person.
    """
    done = yield from server.document("POST", "/audit/erasures", {"subject": subject, "reason": reason})
    return int(done["entries"])
