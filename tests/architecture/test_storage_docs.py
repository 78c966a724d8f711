"""The page on storage names settings, values and commands that there are."""

import re
import tomllib
from pathlib import Path

from modelkeep.app.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "storage.md"


def test_the_settings_on_the_page_are_taken_as_they_stand_there():
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        given = tomllib.loads(block)
        storage = Settings.model_validate(given).storage
        assert {name: getattr(storage, name) for name in given["storage"]} == given["storage"]


def test_every_way_to_sign_in_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f'"{way}"' in text for way in ("role", "web-identity", "instance"))
