"""Says in words which values a setting may have, from its annotation: type, range, choices."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Interval, MinLen, Predicate

from modelkeep.contracts.secret import Secret

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Secret: "text", Path: "a path"}


def in_words(annotation: Any) -> str:  # noqa: ANN401 - any `Annotated[...]`
    """Return for example `a whole number from 1 to 256`, or `text or json` for a choice."""
    kind, *marks = get_args(annotation)
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"{', '.join(others)} or {last}" if others else last
    words = _KINDS.get(kind) or _of_many(kind)
    for mark in marks:
        if isinstance(mark, Interval):
            words += f" from {mark.ge} to {mark.le}"
        elif isinstance(mark, Predicate):
            words = str(mark.func.__doc__)
        elif isinstance(mark, MinLen):
            words += ", not empty"
    return words


def _of_many(kind: Any) -> str:  # noqa: ANN401 - as above
    """Return what a list or a table is in words."""
    if get_origin(kind) is dict:
        return "a table of texts"
    (one, *_more) = get_args(kind)
    if is_dataclass(one):
        return "a list of tables"
    return f"a list of {in_words(Annotated[one, None])}" if get_origin(one) is Literal else "a list of texts"
