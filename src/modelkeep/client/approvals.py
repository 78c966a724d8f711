"""What needs a second person: what was asked, and approving or refusing it."""

from modelkeep.client.results import Approval, Listing
from modelkeep.client.server import Server, part
from modelkeep.client.steps import Steps


def approvals(server: Server, *, state: str | None = None, limit: int = 200) -> Steps[list[Approval]]:
    """Return the newest requests for what you may do, too; `state`: pending, approved, refused, used or expired."""
    query = {} if state is None else {"state": state}
    return Listing((yield from server.items("/approvals", Approval.read, most=limit, **query)))


def approval(server: Server, approval_id: str) -> Steps[Approval]:
    """Return one of them."""
    return Approval.read((yield from server.get(_path(approval_id))))


def approve(server: Server, approval_id: str) -> Steps[Approval]:
    """Agree to what another person asked; they repeat their request, and it goes through once."""
    return Approval.read((yield from server.document("POST", f"{_path(approval_id)}/approve")))


def refuse(server: Server, approval_id: str, *, reason: str) -> Steps[Approval]:
    """Refuse what was asked, also where it was approved and is not done yet."""
    return Approval.read((yield from server.document("POST", f"{_path(approval_id)}/refuse", {"reason": reason})))


def _path(approval_id: str) -> str:
    return f"/approvals/{part(approval_id)}"
