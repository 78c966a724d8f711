"""What replays refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, Limited, NotFound


class ReplayNotFound(NotFound):
    """There is no such replay: it never was, or it has gone with the history that it was about."""

    code = "replay_not_found"


class InvalidReplay(Invalid):
    """Say what to answer again: ids in `predictions`, a number in `last` or of `days`, or inputs in `rows`; one of them."""

    code = "invalid_replay"


class RowsNotKept(Conflict):
    """This deployment's policy keeps no inputs, and rows wait in the database until they are answered: replay predictions."""

    code = "rows_not_kept"


class TooManyReplays(Limited):
    """As many replays wait already as may, of yours or in all: try again when one has ended."""

    code = "too_many_replays"
