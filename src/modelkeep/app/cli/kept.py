"""Where logins are kept: in a folder of the user's own, a file for each server."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from modelkeep.client import SessionFile


def session_of(url: str) -> "SessionFile":
    """Return the file that keeps the login at this address."""
    from modelkeep.client import SessionFile

    return SessionFile.of(Path(typer.get_app_dir("modelkeep")) / "logins", url)
