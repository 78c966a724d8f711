"""Deployments: which version answers where, and with which settings."""

from collections.abc import Mapping
from typing import Any

from modelkeep.client.results import Deployment, Listing, Shadow
from modelkeep.client.server import Server, if_match, part
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


def shadow(server: Server, name: str, version: int | None = None) -> Steps[Shadow]:
    """Return how the answers of a deployment's shadow compare with the promoted version's: of this version, or the last one."""
    query = "" if version is None else f"?version={version}"
    return Shadow.read((yield from server.get(f"/deployments/{part(name)}/shadow{query}")))


def shadows(server: Server, name: str) -> Steps[list[Shadow]]:
    """Return the shadows that a deployment has had, the one last heard of first, in a few numbers each."""
    return Listing((yield from server.items(f"/deployments/{part(name)}/shadows", Shadow.read)))
