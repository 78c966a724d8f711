"""What deployments refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound, Stale, Timeout, Unavailable


class DeploymentNotFound(NotFound):
    """There is no deployment with this name."""

    code = "deployment_not_found"


class NothingPromoted(Conflict):
    """No version of this model is ready to answer yet."""

    code = "nothing_promoted"


class CannotBeServed(Unavailable):
    """The servers cannot answer with the promoted version now."""

    code = "cannot_be_served"


class NotSettled(Timeout):
    """The change was made, and not every server has followed yet: look again in a moment."""

    code = "not_settled"


class InvalidSettings(Invalid):
    """These settings cannot be taken; nothing was changed."""

    code = "invalid_settings"


class DeploymentStale(Stale):
    """The deployment was changed since you looked at it: read it again, then repeat the change."""
