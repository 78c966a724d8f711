"""What a browser shows at the end of a login that a program on somebody's machine began.

Whoever has somebody open an address can have them log in for a program that is not theirs. So the page says what it is about,
and goes on by itself nowhere: a link to that program, or the code to paste into it, is used by whoever knows that they began.
"""

from html import escape
from typing import Final

from fastapi import Response

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.identities.rules import Terminal
from modelkeep.control.users.rules import User

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Modelkeep: {title}</title>
<h1>{title}</h1>
{body}
</html>
"""
_ASKS: Final = """<p><code>modelkeep login</code> is about to act as <strong>{name}</strong> ({email}), {where}.</p>
<p>Have you not just run it yourself? Then close this page: whoever led you here would get in as you.</p>
"""
_GOES_ON: Final = '<p><a href="{address}" rel="noreferrer">Log in there</a></p>'
_PASTES: Final = """<p>Paste this code there, and show it to nobody. It is good once, for five minutes:</p>
<p><code>{code}</code></p>
"""


def handed_over(terminal: Terminal, code: str, user: User) -> Response:
    """Ask whether a program is to have a login; it gets the code by a link, or by whoever pastes it."""
    where = "in a terminal on this machine" if terminal.port else "in a terminal that asks for a code"
    body = _ASKS.format(name=escape(user.name), email=escape(user.email or ""), where=where)
    if terminal.port:
        body += _GOES_ON.format(address=escape(terminal.address(code=code)))
    else:
        body += _PASTES.format(code=escape(code))
    return _page("Log in at the terminal?", body)


def refused(error: ModelkeepError) -> Response:
    """Say why nobody was logged in."""
    body = f"<p>{escape(error.message)} (<code>{escape(error.code)}</code>)</p>"
    return _page("Nobody was logged in", body)


def _page(title: str, body: str) -> Response:
    return Response(_PAGE.format(title=title, body=body), headers={"cache-control": "no-store"}, media_type="text/html")
