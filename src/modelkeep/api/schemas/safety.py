"""Wire shapes of what administrators allow although it is dangerous."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StrictBool

from modelkeep.api.schemas.wire import Answer, Ask
from modelkeep.control.safety.rules import LONGEST_REASON, Accepted, Safety

Reason = Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, description="Why; it is kept with the change.")]


class AllowCode(Ask):
    """Let files that can run code be uploaded, or no more."""

    allowed: StrictBool
    reason: Reason


class AcceptSandbox(Ask):
    """Let every model be loaded at this level of the lock-down; null takes that back."""

    accepted: Accepted | None
    reason: Reason


class SetAnswer(Answer):
    """Who set a switch last, when and why; empty while nobody has."""

    reason: str
    set_by: str
    set_at: datetime | None


class CodeFormatsAnswer(SetAnswer):
    """Whether files that can run code are taken: joblib, pickle, PyTorch, Python classes."""

    allowed: bool


class SandboxAnswer(SetAnswer):
    """The level of the lock-down that is enough for every model; null where each format's own holds."""

    accepted: Accepted | None


class SafetyAnswer(Answer):
    """All switches."""

    code_formats: CodeFormatsAnswer
    sandbox: SandboxAnswer

    @classmethod
    def of(cls, safety: Safety) -> "SafetyAnswer":
        """Put the switches into words of the wire."""
        code, sandbox = safety.code_formats, safety.sandbox
        return cls(
            code_formats=CodeFormatsAnswer(
                allowed=safety.code_allowed, reason=code.reason, set_by=code.set_by, set_at=code.set_at
            ),
            sandbox=SandboxAnswer(
                accepted=safety.accepted_name, reason=sandbox.reason, set_by=sandbox.set_by, set_at=sandbox.set_at
            ),
        )
