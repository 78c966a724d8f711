"""`If-Match` on changes: the revision that whoever asks has seen, as the ETag of an answer said it."""

import re
from typing import Annotated, Any, Final

from fastapi import Header

from modelkeep.contracts.errors import Invalid

IfMatch = Annotated[str | None, Header(description="The revision you have seen; a newer one refuses the change.")]
REVISED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"headers": {"ETag": {"description": "The revision, for `If-Match`.", "required": True, "schema": {"type": "string"}}}}
}
"""What the document says of an answer that has a revision."""

_REVISION: Final = re.compile(r'(?:W/)?"?([0-9]{1,9})"?')


def revision_of(if_match: str | None) -> int | None:
    """Return the revision that the header names, None for any; raises `Invalid` for anything else."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _REVISION.fullmatch(if_match.strip())
    if found is None:
        raise Invalid("If-Match takes the ETag of what is changed, which is its revision.")
    return int(found[1])
