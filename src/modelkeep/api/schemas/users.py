"""Wire shapes of people and keys."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask, Name
from modelkeep.contracts.snapshot import Scope


class SetUp(Ask):
    """Make the first administrator."""

    token: Annotated[str, Field(max_length=200)]
    name: Name = "admin"


class NewKey(Ask):
    """Make a key."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=20)]
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=36500)] | None = None
    rate: Annotated[
        str,
        Field(
            max_length=63,
            description="Requests a minute, as `100/min`, a class of the settings, `user` for the rate that this user's keys "
            "share, or `unlimited`.",
        ),
    ] = "unlimited"
    burst: Annotated[
        int | None,
        Field(strict=True, ge=1, le=100_000_000, description="Most requests at once; else a sixth of a minute's."),
    ] = None
    networks: Annotated[
        tuple[Annotated[str, Field(max_length=50)], ...],
        Field(max_length=50, description="Networks (CIDRs) from which alone the key is good; none for all."),
    ] = ()


class UserAnswer(Answer):
    """A person."""

    id: str
    name: str


class KeyAnswer(Answer):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    rate: str
    burst: int | None
    networks: list[str]


class IssuedKeyAnswer(KeyAnswer):
    """A new key; its secret is shown here and never again."""

    secret: str


class SetUpAnswer(Answer):
    """The first administrator and their key."""

    user: UserAnswer
    key: IssuedKeyAnswer


class OwnKeyAnswer(Answer):
    """The key that asks."""

    id: str
    name: str
    scopes: list[Scope]


class MeAnswer(Answer):
    """Who asks."""

    key: OwnKeyAnswer
    user: UserAnswer
