"""What rollouts refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound


class RolloutNotFound(NotFound):
    """There is no rollout with this id."""

    code = "rollout_not_found"


class InvalidRollout(Invalid):
    """This rollout cannot be made; nothing was changed."""

    code = "invalid_rollout"


class RolloutUnderWay(Conflict):
    """A rollout is under way in this deployment: let it come to its end, or roll it back."""

    code = "rollout_under_way"


class RolloutOver(Conflict):
    """This rollout is over: start another one."""

    code = "rollout_over"


class TrafficTaken(Conflict):
    """This deployment shares its requests out among versions already: take the splits away first."""

    code = "traffic_taken"
