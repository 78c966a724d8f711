"""People and services: adding them, letting them in, and letting them in no more."""

from typing import Any

from modelkeep.client.identity import Invitation, PasswordLink, User
from modelkeep.client.results import Listing
from modelkeep.client.server import Server, part
from modelkeep.client.steps import Steps


def users(server: Server, *, limit: int | None = None) -> Steps[list[User]]:
    """Return the newest `limit` people and services, or all of them, newest first."""
    return Listing((yield from server.items("/users", User.read, most=limit)))


def user(server: Server, user_id: str) -> Steps[User]:
    """Return a person or a service."""
    return User.read((yield from server.get(_path(user_id))))


def add_user(
    server: Server,
    name: str,
    *,
    email: str | None = None,
    role: str | None = None,
    display_name: str = "",
    kind: str = "person",
    password_hash: str | None = None,
) -> Steps[User]:
    """Add a person, who gets a password from `reset_password`, or a "service", which gets keys from `create_key`.

    `role` is theirs on the installation. `password_hash` comes from elsewhere: Argon2id, or bcrypt of cost 12 to 16.
    """
    body = {"name": name, "email": email, "role": role, "display_name": display_name, "kind": kind}
    return User.read((yield from server.document("POST", "/users", _given(**body, password_hash=password_hash))))


def rename_user(server: Server, user_id: str, display_name: str | None = None, *, name: str | None = None) -> Steps[User]:
    """Change the name that people read of a user, or their short `name`, which is theirs alone."""
    body = _given(name=name, display_name=display_name)
    return User.read((yield from server.document("PATCH", _path(user_id), body)))


def disable_user(server: Server, user_id: str) -> Steps[User]:
    """Let a user in no more: sessions end, and keys open nothing, from this moment on."""
    return User.read((yield from server.document("POST", f"{_path(user_id)}/disable")))


def enable_user(server: Server, user_id: str) -> Steps[User]:
    """Let a user in again. Sessions stay ended; keys are good again."""
    return User.read((yield from server.document("POST", f"{_path(user_id)}/enable")))


def sign_out_user(server: Server, user_id: str) -> Steps[None]:
    """End all sessions of a user, who may log in again; their keys stay good."""
    yield from server.document("DELETE", f"{_path(user_id)}/sessions")


def reset_password(server: Server, user_id: str) -> Steps[PasswordLink]:
    """Make a token with which this one person sets a password, once, within 24 hours."""
    return PasswordLink.read((yield from server.document("POST", f"{_path(user_id)}/reset-password")))


def set_password(server: Server, token: str, password: str) -> Steps[None]:
    """Set a password with the token that an administrator handed over; one's sessions end. Needs no key."""
    body = {"token": token, "password": password}
    yield from server.document("POST", "/auth/reset-password", body, anonymous=True)


def register(
    server: Server, name: str, email: str, password: str, *, token: str | None = None, display_name: str = ""
) -> Steps[User]:
    """Register with the token of an invitation, or without where the installation is open to anyone. Needs no key."""
    body = _given(token=token, name=name, email=email, password=password, display_name=display_name)
    return User.read((yield from server.document("POST", "/auth/register", body, anonymous=True)))


def invitations(server: Server) -> Steps[list[Invitation]]:
    """Return the invitations that may still be used, newest first, without their tokens."""
    return Listing(Invitation.read(one) for one in (yield from server.get("/invitations"))["items"])


def invite(
    server: Server, *, role: str | None = None, email: str | None = None, expires_in_days: int | None = None
) -> Steps[Invitation]:
    """Let one person register, at this address where one is given; `token` in the answer is shown this once."""
    body = _given(role=role, email=email, expires_in_days=expires_in_days)
    return Invitation.read((yield from server.document("POST", "/invitations", body)))


def withdraw_invitation(server: Server, invitation_id: str) -> Steps[None]:
    """Have an invitation be good no more."""
    yield from server.document("DELETE", f"/invitations/{part(invitation_id)}")


def _path(user_id: str) -> str:
    return f"/users/{part(user_id)}"


def _given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    return {name: value for name, value in fields.items() if value is not None}
