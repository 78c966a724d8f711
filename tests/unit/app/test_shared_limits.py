"""What a server process keeps its limits in: a file where there are several servers, its own memory where it is alone."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from modelkeep.app.places import Places
from modelkeep.app.roles import ServerRole
from modelkeep.app.server import _limits
from modelkeep.infra.settings import HistorySettings, LogSettings
from modelkeep.serving.settings import ServingSettings


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "data")
    places.make()
    return places


def role(places: Places, slot: int, slots: int) -> ServerRole:
    return ServerRole(
        str(places.data), "here", "1", ServingSettings(), HistorySettings(), LogSettings(), 0.0, 0.0, slot=slot, slots=slots
    )


def test_a_server_that_is_alone_makes_no_file(places: Places) -> None:
    limits = _limits(role(places, 0, 1), places)
    assert not places.quotas.exists()
    assert all(limits.enter("m", 1) for _ in range(3)), "it counts deployments by itself"


def test_of_several_servers_each_counts_with_the_others(places: Places) -> None:
    both = [_limits(role(places, slot, 2), places) for slot in (0, 1)]
    assert both[0].enter("m", 1)
    assert not both[1].enter("m", 1)


def test_where_the_file_cannot_be_made_a_server_says_so_and_goes_on_by_itself(places: Places) -> None:
    places.quotas.mkdir()
    with capture_logs() as said:
        limits = _limits(role(places, 0, 2), places)
    assert limits.enter("m", 1)
    assert [line["event"] for line in said] == ["limits hold for each server by itself"]
