"""What all wire shapes share."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from modelkeep.api.paging import LARGEST_NUMBER
from modelkeep.contracts.names import NAME_PATTERN

T = TypeVar("T")
Number = Annotated[int, Field(strict=True, ge=1, le=LARGEST_NUMBER)]
Name = Annotated[str, Field(max_length=200, json_schema_extra={"pattern": NAME_PATTERN})]


class Ask(BaseModel):
    """A request body: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """A response body, read from a value's attributes."""

    model_config = ConfigDict(from_attributes=True)


class HealthAnswer(Answer):
    """That the control plane and its database answer."""

    status: Literal["ok"] = "ok"


class Page(Answer, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None


def located(status: int, example: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route documents of an answer that says where the thing is which it made."""
    header = {"description": "Where it is.", "required": True, "schema": {"type": "string"}, "example": example}
    return {status: {"headers": {"Location": header}}}
