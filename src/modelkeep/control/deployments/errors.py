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


class InvalidTraffic(Invalid):
    """Requests cannot be shared out like this; nothing was changed."""

    code = "invalid_traffic"


class InvalidReason(Invalid):
    """A reason has at most 1000 characters, and none of them is NUL."""

    code = "invalid_reason"


class DeploymentExists(Conflict):
    """There is a deployment with this name already, or there was one of another model: choose another name."""

    code = "deployment_exists"


class ModelsOwnDeployment(Conflict):
    """A model always has the deployment of its own name: archive the model, and it answers no more."""

    code = "models_own_deployment"


class RolloutRunning(Conflict):
    """A rollout decides who is answered by what here: wait for its end, end it, or roll the deployment back."""

    code = "rollout_running"


class RevisionNotFound(NotFound):
    """This deployment has no revision with this number, or it was before revisions were kept."""

    code = "revision_not_found"


class NothingToRollBack(Conflict):
    """Nothing else is known to have answered here before: promote a version, or name the revision to go back to."""

    code = "nothing_to_roll_back"
