"""Wire shapes of workspaces, groups, grants and explanations."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask, Name
from modelkeep.contracts.access import PlaceKind, Reason, Role, Scope
from modelkeep.control.access.rules import SubjectKind

Id = Annotated[str, Field(min_length=1, max_length=100)]


class NewWorkspace(Ask):
    """Make a workspace."""

    name: Name


class WorkspaceAnswer(Answer):
    """A tenant: models lie in one."""

    id: str
    name: str
    created_at: datetime


class NewGroup(Ask):
    """Make a group."""

    name: Name


class GroupAnswer(Answer):
    """People who are granted roles together."""

    id: str
    name: str
    created_at: datetime


class MembersAnswer(Answer):
    """The people in a group, by their ids."""

    items: list[str]


class NewGrant(Ask):
    """Give a role: to a person or key by id or a group by name, on a workspace or model by name, or on the installation."""

    subject_kind: SubjectKind
    subject: Id
    role: Role
    kind: PlaceKind
    on: Annotated[str, Field(max_length=100)] = ""


class GrantAnswer(Answer):
    """A role that was given. `subject` and `on` are ids; `on` is empty for the installation."""

    id: str
    subject_kind: SubjectKind
    subject: str
    role: Role
    kind: PlaceKind
    on: str
    created_at: datetime
    created_by: str


class GrantFacts(Answer):
    """The grant that decides; `through` names the group by which the subject has it, "" for one of their own."""

    role: Role
    kind: PlaceKind
    on: str
    through: str


class ExplanationAnswer(Answer):
    """What is decided, and why.

    `granted`: by the grant. `owner`: the subject owns the model. `scope`: the key lacks the scope. `other_model`: the key is
    bound to other models. `no_grant`: nothing gives it. `inactive`: nobody who may do anything.
    """

    allowed: bool
    reason: Reason
    scope: Scope
    grant: GrantFacts | None
