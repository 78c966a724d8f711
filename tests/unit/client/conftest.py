"""A client that talks to the stand-in server."""

import pytest

from fixtures.standin import KEY, no_server, other_program, running_standin, standin
from modelkeep.client import Client

__all__ = ["client", "no_server", "other_program", "running_standin", "standin"]


@pytest.fixture
def client(standin):
    with Client(standin.url, KEY, timeout=5) as client:
        yield client
