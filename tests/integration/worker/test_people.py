"""What the worker builds of people: what it follows them with, and nothing that also hears of them."""

from pathlib import Path

from modelkeep.api.settings import AuthSettings
from modelkeep.app import people
from modelkeep.app.control_plane import ControlPlane
from modelkeep.app.places import Places
from modelkeep.control.users.events import SetUpDone
from modelkeep.infra.db import Database


async def test_what_follows_people_leaves_the_setup_token_to_the_api(control: ControlPlane, db: Database, tmp_path: Path):
    places, hearing = Places(tmp_path), control.events._handlers[SetUpDone]
    before = len(hearing)
    people.follower(control, db, places, AuthSettings())
    assert len(hearing) == before
    people.services(control, db, places, AuthSettings())
    assert len(hearing) == before + 1
