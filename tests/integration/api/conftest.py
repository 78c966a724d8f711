"""The API is tested over SQLite; what differs between databases is tested below it."""

import pytest

from modelkeep.infra import telemetry
from modelkeep.infra.db import Database
from modelkeep.infra.settings import LogSettings


@pytest.fixture
def db(sqlite_db: Database) -> Database:
    return sqlite_db


@pytest.fixture(autouse=True)
def _logs() -> None:
    telemetry.configure(LogSettings(level="warning"), role="api")
