"""Where the prediction history lives: an SQLite file of its own in the data directory, or the control plane's PostgreSQL."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelkeep.contracts.secret import Secret
from modelkeep.infra.db import Database
from modelkeep.infra.settings import DatabaseSettings, sqlite_file

_FILE: Final = "predictions.db"
_PAGE_BYTES: Final = 32768  # blocks are some 200 kB: pages of 4 kB cost twice the processor time


def history_settings(control: DatabaseSettings, data: Path) -> DatabaseSettings:
    """Return where the history is, given where the control plane's database is."""
    if sqlite_file(control.url) is None:
        return control
    return replace(control, url=Secret(f"sqlite:///{data / _FILE}"))


def history_database(control: DatabaseSettings, data: Path) -> Database:
    """Return the history's database; makes the SQLite file where it is missing, for its page size can be set only then.

    Space that is freed is used again, and the file never grows beyond what the history once took.
    """
    settings = history_settings(control, data)
    if settings is not control and not (data / _FILE).exists():
        connection = sqlite3.connect(data / _FILE, timeout=control.busy_timeout_s)
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    return Database(settings)
