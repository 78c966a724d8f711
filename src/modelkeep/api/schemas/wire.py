"""What all wire shapes share."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from modelkeep.api.paging import LARGEST_NUMBER

T = TypeVar("T")
Number = Annotated[int, Field(ge=1, le=LARGEST_NUMBER)]


class Ask(BaseModel):
    """A request body: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """A response body, read from a value's attributes."""

    model_config = ConfigDict(from_attributes=True)


class Page(Answer, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None
