"""What schedules refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound


class ScheduledChangeNotFound(NotFound):
    """This deployment has no scheduled change with this id."""

    code = "scheduled_change_not_found"


class ScheduledChangeOver(Conflict):
    """This change was made, failed, or was cancelled already: schedule another one."""

    code = "scheduled_change_over"


class InvalidMoment(Invalid):
    """A change is scheduled for a moment to come, within a year."""

    code = "invalid_moment"


class TooManyScheduledChanges(Conflict):
    """As many changes wait for this deployment as may (100): cancel one first."""

    code = "too_many_scheduled_changes"
