"""What a caller reaches, as SQL."""

from typing import Any

import sqlalchemy as sa

from modelkeep.contracts.access import Reach


def within(
    reached: Reach, workspace: sa.ColumnElement[Any], model: sa.ColumnElement[Any], owner: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """Return `Reach.holds` of the place that these columns have."""
    either = [
        sa.literal(reached.everything),
        workspace.in_(sorted(reached.workspaces)),
        model.in_(sorted(reached.models)),
        sa.and_(sa.literal(bool(reached.owner)), owner == reached.owner),
    ]
    bound = sa.true() if reached.only is None else model.in_(sorted(reached.only))
    return sa.and_(sa.or_(*either), bound)
