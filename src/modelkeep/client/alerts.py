"""Alerts: what somebody has to look at, who does, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from modelkeep.client.results import Listing, _FromDocument
from modelkeep.client.server import Server, part
from modelkeep.client.steps import Steps


@dataclass(frozen=True, repr=False)
class Alert(_FromDocument):
    """What somebody has to look at. `evidence` is what was seen the last twenty times; a list of alerts comes without it."""

    id: str
    kind: str = ""
    severity: str = ""
    state: str = ""
    labels: Mapping[str, str] | None = None
    title: str = ""
    text: str = ""
    opened_at: str = ""
    last_at: str = ""
    count: int = 1
    acknowledged_by: str = ""
    acknowledged_at: str | None = None
    acknowledged_until: str | None = None
    acknowledged_note: str = ""
    resolved_by: str = ""
    resolved_at: str | None = None
    resolved_why: str = ""
    evidence: Sequence[Mapping[str, Any]] = ()

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "severity", "state", "title", "count")


def alerts(
    server: Server,
    *,
    state: str | None = None,
    severity: str | None = None,
    deployment: str | None = None,
    model: str | None = None,
    limit: int = 50,
) -> Steps[list[Alert]]:
    """Return the newest alerts; `state`: firing, acknowledged or resolved; `severity`: page, ticket or info."""
    asked = {"state": state, "severity": severity, "deployment": deployment, "model": model}
    query = {name: value for name, value in asked.items() if value is not None}
    return Listing((yield from server.items("/alerts", Alert.read, most=limit, **query)))


def alert(server: Server, alert_id: str) -> Steps[Alert]:
    """Return one alert, with what was seen."""
    return Alert.read((yield from server.get(_path(alert_id))))


def acknowledge_alert(server: Server, alert_id: str, *, for_minutes: int | None = None, note: str = "") -> Steps[Alert]:
    """Say that you look at an alert, for so many minutes (240 unless you say otherwise); after that it fires again."""
    body = {"note": note} | ({} if for_minutes is None else {"for_minutes": for_minutes})
    return Alert.read((yield from server.document("POST", f"{_path(alert_id)}/acknowledge", body)))


def resolve_alert(server: Server, alert_id: str, *, note: str) -> Steps[Alert]:
    """Say that an alert is over, and why."""
    return Alert.read((yield from server.document("POST", f"{_path(alert_id)}/resolve", {"note": note})))


def _path(alert_id: str) -> str:
    return f"/alerts/{part(alert_id)}"
