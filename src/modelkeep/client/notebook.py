"""Small HTML tables for notebooks. Names, descriptions and answers come from strangers: every text is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

ROWS: Final = 20
"""A table shows so many rows at most."""

_LONGEST: Final = 200
_LEFT: Final = "text-align: left"


def facts(title: str, pairs: Mapping[str, object]) -> str:
    """Return names and values, one a line."""
    lines = "".join(f'<tr><th style="{_LEFT}">{text(name)}</th>{_cell(value)}</tr>' for name, value in pairs.items())
    return f"<table><caption>{text(title)}</caption><tbody>{lines}</tbody></table>"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """Return rows under the names of their columns; `note` stands below."""
    head = "".join(f'<th style="{_LEFT}">{text(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    below = f"<p>{text(note)}</p>" if note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def text(value: object) -> str:
    """Return a value as escaped text, cut where it is long."""
    shown = "" if value is None else value if isinstance(value, str) else repr(value)
    return escape(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ...")


def _cell(value: object) -> str:
    return f'<td style="{_LEFT}">{text(value)}</td>'
