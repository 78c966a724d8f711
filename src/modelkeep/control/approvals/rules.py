"""Approvals as values, and the one rule: an act goes on once two people want exactly it.

Whoever asks is one of them, where they are a person; for a service account two others have to be found. An approval is of one
request and of how its subject was then: what has changed since is another request.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from modelkeep.contracts.access import Guarded, Place, Scope
from modelkeep.contracts.errors import Invalid
from modelkeep.control.approvals.errors import ApprovalOver, SecondPersonNeeded

LONGEST_REASON: Final = 1000
_PEOPLE: Final = 2


class State(StrEnum):
    """Where an approval stands. From `approved` on, the same request goes through, once."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    USED = "used"
    EXPIRED = "expired"


OPEN: Final = (State.PENDING, State.APPROVED)


class Act(msgspec.Struct, frozen=True):
    """What somebody is about to do, and what they need for it where. `seen`: how things are before it, and all it asks for."""

    kind: Guarded
    action: str
    subject: str
    summary: str
    scope: Scope
    place: Place
    seen: object

    def digest(self) -> str:
        """Return what is equal for the same act on the same state of things alone."""
        return hashlib.sha256(msgspec.msgpack.encode(self, order="deterministic")).hexdigest()


class Voice(msgspec.Struct, frozen=True):
    """Who has asked, approved or refused, when, and by which key or session."""

    actor: str
    user: str
    name: str
    at: datetime


class Approval(msgspec.Struct, frozen=True):
    """A request that needs a second person, who made it, and what others said. `place` is taken apart, to be found by."""

    id: str
    kind: Guarded
    action: str
    subject: str
    summary: str
    digest: str
    scope: Scope
    workspace: str
    model: str
    owner: str
    asked_by: str
    asked_by_name: str
    by_person: bool
    asked_at: datetime
    until: datetime
    state: State = State.PENDING
    approved_by: tuple[Voice, ...] = ()
    refused_by: Voice | None = None
    reason: str = ""
    used_at: datetime | None = None

    @property
    def place(self) -> Place:
        """Where it would be done."""
        return Place(self.workspace, self.model, self.owner)

    @property
    def request(self) -> str:
        """Who asked for what: at most one that is open has it."""
        return f"{self.asked_by} {self.digest}"

    def is_open(self, now: datetime) -> bool:
        """Whether something may still come of it."""
        return self.state in OPEN and now < self.until

    def agreed(self, approvers: Iterable[str]) -> bool:
        """Whether whoever asked and these people are two."""
        return len({*approvers, *((self.asked_by,) if self.by_person else ())}) >= _PEOPLE


def ask(approval_id: str, act: Act, by: Voice, *, person: bool, until: datetime) -> Approval:
    """Return what somebody asked for, whom nobody has answered yet."""
    return Approval(
        approval_id,
        act.kind,
        act.action,
        act.subject,
        act.summary,
        act.digest(),
        act.scope,
        act.place.workspace,
        act.place.model,
        act.place.owner,
        asked_by=by.user,
        asked_by_name=by.name,
        by_person=person,
        asked_at=by.at,
        until=until,
    )


def as_of(approval: Approval, now: datetime) -> Approval:
    """Return an approval as it stands at this moment."""
    if approval.state in OPEN and not approval.is_open(now):
        return msgspec.structs.replace(approval, state=State.EXPIRED)
    return approval


def approve(approval: Approval, voice: Voice, *, person: bool) -> Approval:
    """Return it with this approval, which takes the place of an earlier one of the same person."""
    _check_open(approval, voice.at)
    if not person or voice.user == approval.asked_by:
        raise SecondPersonNeeded
    voices = (*(one for one in approval.approved_by if one.user != voice.user), voice)
    state = State.APPROVED if approval.agreed(one.user for one in voices) else State.PENDING
    return msgspec.structs.replace(approval, approved_by=voices, state=state)


def refuse(approval: Approval, voice: Voice, reason: str) -> Approval:
    """Return it refused, also where it had been approved. Whoever asked may take it back so."""
    _check_open(approval, voice.at)
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise Invalid(f"Say why, in 1 to {LONGEST_REASON} characters: the reason is kept with the refusal.")
    return msgspec.structs.replace(approval, refused_by=voice, reason=reason.strip(), state=State.REFUSED)


def use(approval: Approval, able: Iterable[str], now: datetime) -> Approval | None:
    """Return it used up; None where it is not open, or too few have approved it of those who are `able` to do it themselves."""
    if not approval.is_open(now):
        return None
    among = set(able)
    if not approval.agreed(one.user for one in approval.approved_by if one.user in among):
        return None
    return msgspec.structs.replace(approval, state=State.USED, used_at=now)


def _check_open(approval: Approval, now: datetime) -> None:
    if not approval.is_open(now):
        raise ApprovalOver
