"""Writes that come again are tested over each kind of database, for it is the database that knows them."""

import pytest

from modelkeep.infra import telemetry
from modelkeep.infra.settings import LogSettings


@pytest.fixture(autouse=True)
def _logs() -> None:
    telemetry.configure(LogSettings(level="error"), role="api")
