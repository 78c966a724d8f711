"""How a missing text is written where a format knows none: by a mark that no other text can be taken for.

A file that reads its texts so says it with the property `PROPERTY`, whose value is the mark.
"""

MARK = "\uffff"
"""A code point that stands for no character, in any language."""

PROPERTY = "modelkeep.missing_text"


def marked(text: str | None) -> str:
    """Return the mark for a missing text; any other text as it is, after one more mark if it begins with one."""
    if text is None:
        return MARK
    return MARK + text if text.startswith(MARK) else text
