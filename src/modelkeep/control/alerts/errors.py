"""What alerts refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound


class AlertNotFound(NotFound):
    """There is no alert with this id."""

    code = "alert_not_found"


class AlertOver(Conflict):
    """This alert is resolved already: where the same happens again, there is a new one."""

    code = "alert_over"


class InvalidAcknowledgement(Invalid):
    """An alert is acknowledged for a minute to a week, and resolved with a note."""

    code = "invalid_acknowledgement"
