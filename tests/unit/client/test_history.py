"""What the client asks of the history."""

from datetime import UTC, datetime

import pytest

from modelkeep.client import history
from modelkeep.client.server import Server
from modelkeep.client.steps import Ask

SAID = "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize("moment", [1_700_000_000, 1_700_000_000.0, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), SAID])
@pytest.mark.parametrize("name", ["since", "until"])
def test_a_moment_goes_out_as_the_server_reads_it(name: str, moment: object):
    asked = next(history.predictions(Server("http://keep", 30.0, 0), **{name: moment}))
    assert isinstance(asked, Ask)
    assert asked.params[name] == SAID


def test_who_asked_is_asked_for_by_their_id():
    asked = next(history.predictions(Server("http://keep", 30.0, 0), user="usr_7", key="ses_1"))
    assert isinstance(asked, Ask)
    assert (asked.params["user"], asked.params["key"]) == ("usr_7", "ses_1")
