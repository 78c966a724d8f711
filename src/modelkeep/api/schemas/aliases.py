"""Wire shapes of aliases."""

from datetime import datetime

from modelkeep.api.schemas.wire import Answer, Ask, Number


class PointTo(Ask):
    """Have an alias point to a version."""

    version: Number


class AliasAnswer(Answer):
    """A name that points to a version. Its revision counts its moves, and is what `If-Match` takes."""

    name: str
    version: int
    version_id: str
    revision: int
    changed_at: datetime
    changed_by: str


class MoveAnswer(Answer):
    """One move of an alias; `from_version` is null where it was new, `to_version` where it was deleted."""

    revision: int
    from_version: int | None
    from_version_id: str | None
    to_version: int | None
    to_version_id: str | None
    at: datetime
    by: str
