"""What can be wrong with a request about shadows."""

from modelkeep.contracts.errors import NotFound


class ShadowNotSeen(NotFound):
    """No server has told anything yet of such a shadow of this deployment. It is told every five seconds, once it is asked."""

    code = "shadow_not_seen"
