"""Workspaces, groups and roles: who may do what, and why."""

from typing import Any

from modelkeep.client.results import Explanation, Grant, Group, Listing, Model, Workspace
from modelkeep.client.server import Server, model_path, part
from modelkeep.client.steps import Steps


def workspaces(server: Server) -> Steps[list[Workspace]]:
    """Return the workspaces on which you have a role, by name."""
    return Listing((yield from server.items("/workspaces", Workspace.read)))


def create_workspace(server: Server, name: str) -> Steps[Workspace]:
    """Make a workspace."""
    return Workspace.read((yield from server.document("POST", "/workspaces", {"name": name})))


def remove_workspace(server: Server, name: str) -> Steps[None]:
    """Remove a workspace without models, and what was granted on it."""
    yield from server.document("DELETE", f"/workspaces/{part(name)}")


def move_model(server: Server, name: str, *, workspace: str | None = None, owner: str | None = None) -> Steps[Model]:
    """Move a model into another workspace, or give it to another person, by their id."""
    body = {"workspace": workspace, "owner": owner}
    return Model.read((yield from server.document("POST", f"{model_path(name)}/move", body)))


def groups(server: Server) -> Steps[list[Group]]:
    """Return the groups, by name."""
    return Listing((yield from server.items("/groups", Group.read)))


def create_group(server: Server, name: str) -> Steps[Group]:
    """Make a group."""
    return Group.read((yield from server.document("POST", "/groups", {"name": name})))


def remove_group(server: Server, name: str) -> Steps[None]:
    """Remove a group; what its members had through it, they have no more."""
    yield from server.document("DELETE", f"/groups/{part(name)}")


def members(server: Server, group: str) -> Steps[list[str]]:
    """Return the ids of the people in a group."""
    return list((yield from server.get(f"/groups/{part(group)}/members"))["items"])


def add_member(server: Server, group: str, user_id: str) -> Steps[None]:
    """Put a person into a group."""
    yield from server.document("PUT", f"/groups/{part(group)}/members/{part(user_id)}")


def remove_member(server: Server, group: str, user_id: str) -> Steps[None]:
    """Take a person out of a group."""
    yield from server.document("DELETE", f"/groups/{part(group)}/members/{part(user_id)}")


def grants(server: Server, *, to: str | None = None, on: str | None = None) -> Steps[list[Grant]]:
    """Return the roles that were given: to "user:ID", "group:NAME" or "key:ID", on "model:NAME" and the like."""
    return Listing((yield from server.items("/grants", Grant.read, **_subject(to), **_place(on))))


def give_role(server: Server, role: str, *, to: str, on: str = "installation") -> Steps[Grant]:
    """Give a role to "user:ID", "group:NAME" or "key:ID", on "installation", "workspace:NAME" or "model:NAME"."""
    body = {"role": role, **_subject(to), **_place(on)}
    return Grant.read((yield from server.document("POST", "/grants", body)))


def take_role(server: Server, grant_id: str) -> Steps[None]:
    """Take a role back."""
    yield from server.document("DELETE", f"/grants/{part(grant_id)}")


def explain(server: Server, scope: str, *, on: str = "installation", who: str | None = None) -> Steps[Explanation]:
    """Return whether somebody (you, by default) may do what a scope names on a place, and why."""
    params = {"scope": scope, **_subject(who), **_place(on)}
    return Explanation.read((yield from server.document("GET", "/authz/explain", params=params)))


def _subject(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    kind, _colon, subject = text.partition(":")
    return {"subject_kind": kind, "subject": subject}


def _place(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    kind, _colon, on = text.partition(":")
    return {"kind": kind, "on": on}
