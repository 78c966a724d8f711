"""What deployments refuse."""

from modelkeep.contracts.errors import Invalid, NotFound, Stale


class DeploymentNotFound(NotFound):
    """There is no deployment with this name."""

    code = "deployment_not_found"


class InvalidSettings(Invalid):
    """These settings cannot be taken; nothing was changed."""

    code = "invalid_settings"


class DeploymentStale(Stale):
    """The deployment was changed since you looked at it: read it again, then repeat the change."""
