"""Deployments: which versions answer where, and with which settings; plans, going back, and what was when."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelkeep.client.releases import AsOf, Plan, Revision, ScheduledChange, Shadow
from modelkeep.client.results import Deployment, Listing
from modelkeep.client.server import Server, if_match, model_path, part
from modelkeep.client.steps import Steps


def deployments(server: Server) -> Steps[list[Deployment]]:
    """Return the deployments."""
    return Listing((yield from server.items("/deployments", Deployment.read)))


def deployment(server: Server, name: str) -> Steps[Deployment]:
    """Return one deployment."""
    return Deployment.read((yield from server.get(f"/deployments/{part(name)}")))


def promote(server: Server, name: str, version: int, *, revision: int | None = None) -> Steps[Deployment]:
    """Let `version` answer at the deployment `name`. With `revision`, only if it was not changed since that one."""
    path, body = f"/deployments/{part(name)}/promote", {"version": version}
    return Deployment.read((yield from server.document("POST", path, body, headers=if_match(revision))))


def configure(server: Server, name: str, settings: Mapping[str, Any], *, revision: int | None = None) -> Steps[Deployment]:
    """Change settings of a deployment: what is not named stays, None brings a default back.

    With `revision`, only if it was not changed since that one; otherwise `Conflict` is raised.
    """
    path, body = f"/deployments/{part(name)}", {"settings": dict(settings)}
    document = yield from server.document("PATCH", path, body, headers=if_match(revision))
    return Deployment.read(document)


def create_deployment(
    server: Server,
    name: str,
    model: str,
    *,
    version: int | None = None,
    settings: Mapping[str, Any] | None = None,
    traffic: Mapping[str, Any] | None = None,
    reason: str = "",
) -> Steps[Deployment]:
    """Give a model another deployment; without a version it answers once one is promoted."""
    body = {"name": name, "model": model, **_change(version, settings, traffic), **_reason(reason)}
    return Deployment.read((yield from server.document("POST", "/deployments", body)))


def delete_deployment(server: Server, name: str, *, revision: int | None = None) -> Steps[None]:
    """Delete a deployment that is not its model's own; its revisions stay. `revision` as in `promote`."""
    yield from server.document("DELETE", f"/deployments/{part(name)}", headers=if_match(revision))


def set_traffic(
    server: Server, name: str, traffic: Mapping[str, Any], *, revision: int | None = None, reason: str = ""
) -> Steps[Deployment]:
    """Change how a deployment shares its requests out: what is not named stays, None brings a default back.

    `{"split": {"4": 5}, "shadow": {"version": 5, "share": 20}}` gives 5 % to version 4, and shows 20 % to version 5 as well.
    """
    path, body = f"/deployments/{part(name)}", {"traffic": dict(traffic), **_reason(reason)}
    return Deployment.read((yield from server.document("PATCH", path, body, headers=if_match(revision))))


def plan(
    server: Server,
    name: str,
    *,
    version: int | None = None,
    settings: Mapping[str, Any] | None = None,
    traffic: Mapping[str, Any] | None = None,
) -> Steps[Plan]:
    """Return what a change would do: promoting `version`, and changing `settings` and `traffic`. Nothing is changed."""
    body = _change(version, settings, traffic)
    return Plan.read((yield from server.document("POST", f"/deployments/{part(name)}/plan", body)))


def rollback(
    server: Server, name: str, to: int | None = None, *, revision: int | None = None, reason: str = ""
) -> Steps[Deployment]:
    """Go back to what answered before the newest version came in, or to the revision `to`. `revision` as in `promote`."""
    path, body = f"/deployments/{part(name)}/rollback", ({} if to is None else {"revision": to}) | _reason(reason)
    return Deployment.read((yield from server.document("POST", path, body, headers=if_match(revision))))


def revisions(server: Server, name: str, *, limit: int = 50) -> Steps[list[Revision]]:
    """Return what a deployment was, newest first: who made it so, when, and why."""
    return Listing((yield from server.items(f"/deployments/{part(name)}/revisions", Revision.read, most=limit)))


def as_of(server: Server, model: str, at: datetime | str, *, deployment: str | None = None) -> Steps[AsOf]:
    """Return what answered for a model at a moment, also in deployments that are gone, and where its aliases pointed."""
    params = {"t": _moment(at)} | ({} if deployment is None else {"deployment": deployment})
    return AsOf.read((yield from server.document("GET", f"{model_path(model)}/as-of", params=params)))


def shadow(server: Server, name: str, version: int | None = None) -> Steps[Shadow]:
    """Return how the answers of a deployment's shadow compare with the promoted version's: of this version, or the last one."""
    query = "" if version is None else f"?version={version}"
    return Shadow.read((yield from server.get(f"/deployments/{part(name)}/shadow{query}")))


def shadows(server: Server, name: str) -> Steps[list[Shadow]]:
    """Return the shadows that a deployment has had, the one last heard of first, in a few numbers each."""
    return Listing((yield from server.items(f"/deployments/{part(name)}/shadows", Shadow.read)))


def _change(version: int | None, settings: Mapping[str, Any] | None, traffic: Mapping[str, Any] | None) -> dict[str, object]:
    said = {"version": version, "settings": settings, "traffic": traffic}
    return {name: value for name, value in said.items() if value is not None}


def _reason(reason: str) -> dict[str, str]:
    return {"reason": reason} if reason else {}


def schedule(
    server: Server,
    name: str,
    at: datetime | str,
    *,
    version: int | None = None,
    settings: Mapping[str, Any] | None = None,
    traffic: Mapping[str, Any] | None = None,
    reason: str = "",
) -> Steps[ScheduledChange]:
    """Have a change made at a later moment, in your name: promoting `version`, changing `settings` and `traffic`."""
    body = {"at": _moment(at), **_change(version, settings, traffic), **_reason(reason)}
    return ScheduledChange.read((yield from server.document("POST", f"/deployments/{part(name)}/schedule", body)))


def scheduled(server: Server, name: str, *, limit: int = 50) -> Steps[list[ScheduledChange]]:
    """Return the changes that were scheduled for a deployment, the last that was asked for first, and what became of each."""
    return Listing((yield from server.items(f"/deployments/{part(name)}/schedule", ScheduledChange.read, most=limit)))


def cancel_scheduled(server: Server, name: str, scheduled: str) -> Steps[None]:
    """Cancel a change, by its id, that has not been made yet."""
    yield from server.document("DELETE", f"/deployments/{part(name)}/schedule/{part(scheduled)}")


def _moment(at: datetime | str) -> str:
    return at.isoformat() if isinstance(at, datetime) else at
