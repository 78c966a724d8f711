"""Setting up, keys, and what is allowed although it is dangerous; and whether a server is well."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelkeep.client.results import Key, Listing
from modelkeep.client.server import Server, part
from modelkeep.client.steps import Steps


def setup(
    server: Server, token: str, *, name: str = "admin", email: str | None = None, password: str | None = None
) -> Steps[Key]:
    """Make the first administrator from the one-time token that the server printed; returns a key with its secret.

    With `email` and `password`, the administrator can log in, too.
    """
    body = {"token": token, "name": name, "email": email, "password": password}
    given = {field: value for field, value in body.items() if value is not None}
    return Key.read((yield from server.document("POST", "/setup", given, anonymous=True))["key"])


def keys(server: Server) -> Steps[list[Key]]:
    """Return the API keys, without their secrets."""
    return Listing((yield from server.items("/keys", Key.read)))


def create_key(
    server: Server,
    name: str,
    scopes: Sequence[str],
    *,
    expires_in_days: int | None = None,
    rate: str = "user",
    concurrency: int | None = None,
    models: Sequence[str] | None = None,
    networks: Sequence[str] = (),
    certificates: Sequence[str] = (),
    stands_for: bool = False,
    service: str | None = None,
) -> Steps[Key]:
    """Make an API key; `secret` in the answer is shown this once.

    `rate`: "user", which all keys of one user share, requests a minute as "100/min", a class, or "unlimited"; more than "user"
    allows is given by administrators. `concurrency`: how many of its predictions may be under way at once. `models` are the
    names of those that it is good for; without, all that you may use. `networks`: those from which alone it is good, as
    "10.1.0.0/16". `certificates` and `stands_for` are as for `bind_key`. `service`: the id of the service that it is for;
    without, it is your own.
    """
    body: dict[str, Any] = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days, "rate": rate}
    body |= {} if concurrency is None else {"concurrency": concurrency}
    body |= {} if models is None else {"models": list(models)}
    body |= {"networks": list(networks)} if networks else {}
    body |= {"certificate": {"names": list(certificates), "stands_for": stands_for}} if certificates else {}
    body |= {"service": service} if service else {}
    return Key.read((yield from server.document("POST", "/keys", body)))


def revoke_key(server: Server, key_id: str) -> Steps[None]:
    """Make a key worthless at once."""
    yield from server.document("DELETE", f"/keys/{part(key_id)}")


def rotate_key(server: Server, key_id: str, *, keep_days: int = 7) -> Steps[Key]:
    """Give a key another `secret`, shown this once; the present one stays good for `keep_days` (0 to 90)."""
    return Key.read((yield from server.document("POST", f"/keys/{part(key_id)}/rotate", {"keep_days": keep_days})))


def bind_key(server: Server, key_id: str, certificates: Sequence[str], *, stands_for: bool = False) -> Steps[Key]:
    """Have a key go with these client certificates alone: without one of them it is good for nothing.

    They are named as "dns:scoring.example.org", "uri:spiffe://example.org/scoring", or "sha256:" with a fingerprint. With
    `stands_for` the certificate is enough: who shows it needs no secret. Administrators say so.
    """
    body = {"names": list(certificates), "stands_for": stands_for}
    return Key.read((yield from server.document("PUT", f"/keys/{part(key_id)}/certificate", body)))


def end_previous_secret(server: Server, key_id: str) -> Steps[None]:
    """End the secret that a key had before its rotation."""
    yield from server.document("DELETE", f"/keys/{part(key_id)}/previous")


def safety(server: Server) -> Steps[Mapping[str, Any]]:
    """Return the switches of the installation: what they are set to, by whom, when and why."""
    return dict((yield from server.get("/safety")))


def allow_code(server: Server, *, allowed: bool = True, reason: str) -> Steps[Mapping[str, Any]]:
    """Let files that can run code when they are loaded be uploaded, or no more; for administrators."""
    return dict((yield from server.document("PUT", "/safety/code-formats", {"allowed": allowed, "reason": reason})))


def accept_sandbox(server: Server, level: str | None, *, reason: str) -> Steps[Mapping[str, Any]]:
    """Let every model be loaded at this level of the lock-down ("L1", "L0"); None takes that back."""
    return dict((yield from server.document("PUT", "/safety/sandbox", {"accepted": level, "reason": reason})))


def health(server: Server) -> Steps[Mapping[str, Any]]:
    """Return what the server says of itself; needs no key."""
    return dict((yield from server.status("/healthz")))


def readiness(server: Server) -> Steps[Mapping[str, Any]]:
    """Return whether the server is ready to answer predictions, and if not, why; needs no key."""
    return dict((yield from server.status("/readyz")))
