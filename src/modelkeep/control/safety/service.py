"""The switches of an installation: who may set them, and what is written down when they do."""

from modelkeep.contracts import confinement
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit, Circumstances
from modelkeep.control.safety import store
from modelkeep.control.safety.events import SandboxAccepted
from modelkeep.control.safety.rules import (
    CODE_FORMATS,
    SANDBOX,
    Accepted,
    Safety,
    Switch,
    check_acceptable,
    check_reason,
    overriding,
)
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events


def lower_lock_down(acceptable: str) -> Circumstances:
    """Return what audit entries say of the level that an administrator accepts, while it is in force on this machine."""

    async def noted(tx: Transaction) -> dict[str, str]:
        accepted = (await store.load(tx)).accepted
        level = confinement.in_force(accepted, confinement.level(acceptable))
        return {} if level is None else {"sandbox_accepted": level.short}

    return noted


class Switches:
    """What is allowed although it is dangerous. `acceptable` is the lowest level that may be accepted here ("" for none)."""

    def __init__(
        self, db: Database, audit: Audit, approvals: Approvals, events: Events, clock: Clock, *, acceptable: str = ""
    ) -> None:
        self._db = db
        self._audit = audit
        self._approvals = approvals
        self._events = events
        self._clock = clock
        self._acceptable = acceptable

    async def safety(self) -> Safety:
        """Return all switches."""
        async with self._db.read() as tx:
            return await store.load(tx)

    async def safety_in(self, tx: Transaction) -> Safety:
        """Return all switches, as a transaction that is open sees them."""
        return await store.load(tx)

    async def allow_code(self, actor: Actor, *, allowed: bool, reason: str) -> Safety:
        """Let files that can run code be uploaded, or no more. Ready versions stay; those being validated are not."""
        return await self._set(actor, CODE_FORMATS, "on" if allowed else "", reason)

    async def accept(self, actor: Actor, level: Accepted | None, reason: str) -> Safety:
        """Let every model be loaded at this level of the lock-down; None takes that back."""
        if level is not None:
            check_acceptable(level, self._acceptable)
        return await self._set(actor, SANDBOX, level or "", reason)

    async def _set(self, actor: Actor, name: str, value: str, reason: str) -> Safety:
        actor.need(Scope.ADMIN)
        switch = Switch(name, value, check_reason(reason), actor.name, self._clock())
        async with self._db.begin() as tx:
            known = await store.load(tx)
            was = {CODE_FORMATS: known.code_formats, SANDBOX: known.sandbox}[name]
            override = overriding(was, switch)
            if override is not None:
                await self._approvals.need(tx, actor, override)
            await store.save(tx, switch)
            before, now, reason = was.value or "off", value or "off", switch.reason
            await self._audit.note(tx, actor, f"safety.{name}", name, before=before, after=now, value=now, reason=reason)
            if name == SANDBOX:
                await self._events.publish(tx, SandboxAccepted())
            return await store.load(tx)
