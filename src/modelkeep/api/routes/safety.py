"""What administrators allow although it is dangerous: whoever may see models can see it, they alone can change it."""

from fastapi import APIRouter

from modelkeep.api.auth import Admin, Reader
from modelkeep.api.schemas.safety import AcceptSandbox, AllowCode, SafetyAnswer
from modelkeep.api.services import Behind

router = APIRouter(prefix="/safety", tags=["safety"])


@router.get("")
async def show(actor: Reader, behind: Behind) -> SafetyAnswer:
    """Return all switches."""
    del actor
    return SafetyAnswer.of(await behind.switches.safety())


@router.put("/code-formats")
async def allow_code(body: AllowCode, actor: Admin, behind: Behind) -> SafetyAnswer:
    """Let files that can run code when they are loaded be uploaded, or no more. Versions that are there stay as they are."""
    return SafetyAnswer.of(await behind.switches.allow_code(actor, allowed=body.allowed, reason=body.reason))


@router.put("/sandbox")
async def accept(body: AcceptSandbox, actor: Admin, behind: Behind) -> SafetyAnswer:
    """Let every model be loaded at a lower level of the lock-down, where the machine's settings allow that."""
    return SafetyAnswer.of(await behind.switches.accept(actor, body.accepted, body.reason))
