"""What granting and grouping refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound


class WorkspaceNotFound(NotFound):
    """There is no workspace of this name."""

    code = "workspace_not_found"


class WorkspaceExists(Conflict):
    """There is a workspace of this name already."""

    code = "workspace_exists"


class WorkspaceInUse(Conflict):
    """There are models in this workspace: move them to another one first."""

    code = "workspace_in_use"


class WorkspaceUnclear(Invalid):
    """You may make models in several workspaces: name one."""

    code = "workspace_unclear"


class GroupNotFound(NotFound):
    """There is no group of this name."""

    code = "group_not_found"


class GroupExists(Conflict):
    """There is a group of this name already."""

    code = "group_exists"


class GrantNotFound(NotFound):
    """There is no grant with this id."""

    code = "grant_not_found"


class SubjectNotFound(NotFound):
    """There is nobody of this kind and id."""

    code = "subject_not_found"


class InvalidGrant(Invalid):
    """A grant on the installation names no place; one on a workspace or a model names it."""

    code = "invalid_grant"


class LastAdmin(Conflict):
    """Nobody could administer the installation any more: make another administrator first."""

    code = "last_admin"
