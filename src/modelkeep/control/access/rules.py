"""Workspaces, groups and grants as values, and who may give what."""

from datetime import datetime
from typing import Final, Literal, NamedTuple

import msgspec

from modelkeep.contracts.access import GIVES, OWNER, Grant, Place, PlaceKind, Role, Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden
from modelkeep.control.access.errors import GrantNotFound

DEFAULT_WORKSPACE: Final = "wsp_default"
"""The id of the workspace that is always there, for models that name none."""

SubjectKind = Literal["user", "group", "key"]


class Subject(NamedTuple):
    """Who has a role, or may have one: a person, a group or a key, by id."""

    kind: SubjectKind
    id: str


class Workspace(msgspec.Struct, frozen=True):
    """A tenant: models lie in one, and whoever has a role on it has it on all of them."""

    id: str
    name: str
    created_at: datetime


class Group(msgspec.Struct, frozen=True):
    """People who are granted roles together."""

    id: str
    name: str
    created_at: datetime


class Given(msgspec.Struct, frozen=True):
    """A role that was granted: to whom, where, when and by whom. `on` is the id of the place, "" for the installation."""

    id: str
    subject_kind: SubjectKind
    subject: str
    role: Role
    kind: PlaceKind
    on: str
    created_at: datetime
    created_by: str

    @property
    def whose(self) -> Subject:
        """Who has it."""
        return Subject(self.subject_kind, self.subject)

    def grant(self, through: str = "") -> Grant:
        """Return it as the decision reads it; `through` names the group that has it."""
        return Grant(self.role, self.kind, self.on, through)


def check_may_list(actor: Actor, place: Place | None) -> None:
    """Raise `Forbidden` unless the actor may see what was granted on this place, or on all (None)."""
    if place is None:
        actor.need(Scope.ADMIN)
    else:
        check_may_give(actor, Role.VIEWER, place)


def check_may_take(actor: Actor, role: Role, place: Place) -> None:
    """As `check_may_give`; to who may not see what was granted on this place, a grant there is not there."""
    try:
        check_may_list(actor, place)
    except Forbidden as error:
        raise GrantNotFound from error
    check_may_give(actor, role, place)


def check_may_give(actor: Actor, role: Role, place: Place) -> None:
    """Raise `Forbidden` unless the actor may give, and take away, this role here.

    Administrators of the place may; and owners of a model, as far as it gives no more on it than they have themselves. A key
    that bounds them gives nothing, or it could give what it has not.
    """
    if actor.may(Scope.ADMIN, place):
        return
    if place.model and place.owner == actor.user and GIVES[role] <= OWNER:
        actor.carry_all()
        return
    raise Forbidden("Only administrators of this place may do that; owners of a model as far as their own rights on it go.")
