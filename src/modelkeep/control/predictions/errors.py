"""What can be wrong about asking for predictions."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound


class PredictionNotFound(NotFound):
    """There is no such prediction in the history: it is not kept, or no longer."""

    code = "prediction_not_found"


class PositionMoved(Conflict):
    """Another courier has loaded from this spool: look again where it stands."""

    code = "position_moved"


class ParquetNotInstalled(Invalid):
    """This installation cannot write Parquet: install modelkeep[parquet], or ask for jsonl."""

    code = "parquet_not_installed"
