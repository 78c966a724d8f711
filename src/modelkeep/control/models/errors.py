"""What models and versions refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, InvalidName, NotFound, Stale


class ModelNotFound(NotFound):
    """There is no model with this name."""

    code = "model_not_found"


class VersionNotFound(NotFound):
    """This model has no version with this number."""

    code = "version_not_found"


class HooksNotFound(NotFound):
    """This version has no hooks."""

    code = "hooks_not_found"


class AliasNotFound(NotFound):
    """This model has no alias of this name."""

    code = "alias_not_found"


class InvalidAlias(InvalidName):
    """An alias is a name, and none that reads as a version's number (`3`, `v3`) or says `latest`."""

    code = "invalid_alias"


class AliasStale(Stale):
    """The alias was changed since you looked at it: read it again, then repeat the change."""


class TooManyAliases(Conflict):
    """This model has as many aliases as a model may have (100): delete one first."""

    code = "too_many_aliases"


class ModelExists(Conflict):
    """There is a model with this name already: upload a version to it, or choose another name."""

    code = "model_exists"


class ModelArchived(Conflict):
    """This model is archived: restore it first."""

    code = "model_archived"


class VersionArchived(Conflict):
    """This version is archived: restore it first."""

    code = "version_archived"


class ModelTrashed(Conflict):
    """This model is in the trash: restore it first."""

    code = "model_trashed"


class VersionTrashed(Conflict):
    """This version is in the trash: restore it first."""

    code = "version_trashed"


class Purged(Conflict):
    """This was purged, or is being purged, and does not come back."""

    code = "purged"


class NotTrashed(Conflict):
    """Only what is in the trash is purged: put it there first."""

    code = "not_trashed"


class OnHold(Conflict):
    """A legal hold is on this: an administrator takes it away first."""

    code = "on_hold"


class ModelInUse(Conflict):
    """This model is in use: archive it first, so that it answers no more."""

    code = "model_in_use"


class InvalidParent(Invalid):
    """There is no such parent: it is a version's number, MODEL/NUMBER or the id of a version that you may see."""

    code = "invalid_parent"


class VersionNotReady(Conflict):
    """This version is not ready: only a version that passed validation can serve."""

    code = "version_not_ready"


class VersionInUse(Conflict):
    """This version is in use, by a deployment, an alias or its validation: end that before you put it away."""

    code = "version_in_use"


class InvalidPreprocess(Invalid):
    """The preprocessing cannot be read: send "imagenet", or a JSON object with fields of an image specification."""

    code = "invalid_preprocess"


class InvalidLabels(Invalid):
    """The labels cannot be read: send a UTF-8 text file with one label a line, in class order."""

    code = "invalid_labels"
