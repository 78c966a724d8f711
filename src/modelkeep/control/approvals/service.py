"""Acts that need two people: asking for one, approving or refusing it, and going on with it once."""

from contextlib import suppress
from datetime import timedelta
from functools import partial

from modelkeep.contracts.access import Guarded
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import ApprovalNeeded, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.service import Access
from modelkeep.control.approvals import store
from modelkeep.control.approvals.errors import ApprovalNotFound
from modelkeep.control.approvals.rules import Act, Approval, State, Voice, approve, as_of, ask, refuse, use
from modelkeep.control.audit.service import Audit
from modelkeep.control.users.rules import Kind
from modelkeep.control.users.service import Users
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.settings import AccessSettings, guarded


class Approvals:
    """The one place that says whether an act may go on."""

    def __init__(
        self, *, db: Database, audit: Audit, access: Access, users: Users, clock: Clock, settings: AccessSettings
    ) -> None:
        self._db = db
        self._audit = audit
        self._access = access
        self._users = users
        self._clock = clock
        self._guarded = guarded(settings.two_person) or ()
        self._life = timedelta(hours=settings.approval_hours)

    def guards(self, kind: Guarded) -> bool:
        """Whether acts of this kind need two people."""
        return kind in self._guarded

    async def need(self, tx: Transaction, actor: Actor, act: Act) -> None:
        """Let an act go on in `tx` that one person may do alone, or that two want, whose approval is then used up.

        Raises `ApprovalNeeded` else, with the approval that others may give from now on. Whoever calls has decided that the
        actor may do it, keeps to `tx` what the act is about, and has changed nothing yet. The installation asks nobody.
        """
        if not self.guards(act.kind) or actor.id == SYSTEM.id:
            return
        now = self._clock()
        asked = await store.of_request(tx, actor.user, act.digest())
        able = [] if asked is None else await self._able(tx, asked)
        used = None if asked is None else use(asked, (one.user for one in able), now)
        if used is not None:
            await store.save(tx, used)
            said = _said(used) | {"approved_by": ", ".join(one.name for one in able)}
            await self._audit.note(tx, actor, "approval.use", used.id, about=" ".join(one.user for one in able), **said)
            return
        if asked is None or not asked.is_open(now):
            person = (await self._users.user_in(tx, actor.user)).kind is Kind.PERSON
            asked = ask(new_id("apr"), act, Voice(actor.id, actor.user, actor.name, now), person=person, until=now + self._life)
            tx.if_refused(partial(self._ask, actor, asked))
        raise _needed(asked.id)

    async def approvals(
        self, actor: Actor, *, limit: int, before: str | None = None, state: State | None = None
    ) -> list[Approval]:
        """List the approvals of acts that the actor may do themselves, newest first: what they asked, and what others did."""
        now = self._clock()
        async with self._db.read() as tx:
            found = await store.page(tx, actor.standing, now, limit=limit, before=before, state=state)
        return [as_of(one, now) for one in found]

    async def approval(self, actor: Actor, approval_id: str) -> Approval:
        """Return one of them."""
        async with self._db.read() as tx:
            return as_of(await self._found(tx, actor, approval_id), self._clock())

    async def approve(self, actor: Actor, approval_id: str) -> Approval:
        """Agree to what another has asked, who may then do it. Raises `SecondPersonNeeded` and `ApprovalOver`."""
        async with self._db.begin() as tx:
            found = await self._found(tx, actor, approval_id, for_update=True)
            person = (await self._users.user_in(tx, actor.user)).kind is Kind.PERSON
            changed = approve(found, self._voice(actor), person=person)
            await store.save(tx, changed)
            await self._audit.note(tx, actor, "approval.approve", found.id, about=found.asked_by, **_said(found))
            return changed

    async def refuse(self, actor: Actor, approval_id: str, reason: str) -> Approval:
        """Refuse what was asked, also where it has been approved and was not done yet. Raises `ApprovalOver`."""
        async with self._db.begin() as tx:
            found = await self._found(tx, actor, approval_id, for_update=True)
            changed = refuse(found, self._voice(actor), reason)
            await store.save(tx, changed)
            said = _said(found) | {"reason": changed.reason}
            await self._audit.note(tx, actor, "approval.refuse", found.id, about=found.asked_by, **said)
            return changed

    async def _ask(self, actor: Actor, wanted: Approval) -> None:
        """Keep what somebody wants; raises `ApprovalNeeded` where the same request was kept at this moment."""
        async with self._db.begin_apart() as tx:
            kept = await store.add(tx, wanted)
            if kept == wanted.id:
                await self._audit.note(tx, actor, "approval.ask", wanted.id, **_said(wanted))
        if kept != wanted.id:
            raise _needed(kept)

    async def _found(self, tx: Transaction, actor: Actor, approval_id: str, *, for_update: bool = False) -> Approval:
        """Return an approval; there is none to whom may not do themselves what it is about."""
        found = await store.approval(tx, approval_id, for_update=for_update)
        if found is None or not actor.may(found.scope, found.place):
            raise ApprovalNotFound
        return found

    async def _able(self, tx: Transaction, approval: Approval) -> list[Voice]:
        """Return who, of those who approved, may do it themselves as of now, with the key or as the person they did so."""
        able = []
        for voice in approval.approved_by:
            with suppress(Unauthenticated):
                actor = await self._access.renewed_in(tx, Actor(voice.actor, voice.name, voice.user))
                if actor.may(approval.scope, approval.place):
                    able.append(voice)
        return able

    def _voice(self, actor: Actor) -> Voice:
        return Voice(actor.id, actor.user, actor.name, self._clock())


def _needed(approval_id: str) -> ApprovalNeeded:
    said = f"This needs a second person: once another who may do it has approved {approval_id}, repeat the same request."
    return ApprovalNeeded(said, approval=approval_id)


def _said(approval: Approval) -> dict[str, str]:
    """Return what entries of the audit trail say of an approval."""
    return {
        "act": approval.action,
        "subject": approval.subject,
        "summary": approval.summary,
        "asked_by": approval.asked_by_name,
    }
