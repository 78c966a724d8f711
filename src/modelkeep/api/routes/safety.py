"""What administrators allow although it is dangerous: whoever may see models can see it, they alone can change it."""

from fastapi import APIRouter

from modelkeep.api.auth import Admin, Reader
from modelkeep.api.description import raises
from modelkeep.api.schemas.safety import AcceptSandbox, AllowCode, SafetyAnswer
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import ApprovalNeeded
from modelkeep.control.safety.errors import NotAcceptable

router = APIRouter(prefix="/safety", tags=["safety"])


@router.get("")
async def get_safety(actor: Reader, behind: Behind) -> SafetyAnswer:
    """Return all switches."""
    del actor
    return SafetyAnswer.of(await behind.switches.safety())


@router.put("/code-formats")
@raises(ApprovalNeeded)
async def allow_code_formats(body: AllowCode, actor: Admin, behind: Behind) -> SafetyAnswer:
    """Let files that can run code when they are loaded be uploaded, or no more. Versions that are there stay as they are."""
    return SafetyAnswer.of(await behind.switches.allow_code(actor, allowed=body.allowed, reason=body.reason))


@router.put("/sandbox")
@raises(ApprovalNeeded, NotAcceptable)
async def accept_sandbox(body: AcceptSandbox, actor: Admin, behind: Behind) -> SafetyAnswer:
    """Accept a lower level of the lock-down for every model, where the machine's settings allow that."""
    return SafetyAnswer.of(await behind.switches.accept(actor, body.accepted, body.reason))
