"""A Python class from a folder to its answers, as the how-to says; and what is left of it when everything is killed."""

import re
import shutil
from pathlib import Path

import pytest

from fixtures import python_models
from fixtures.installation import Installation, eventually

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "custom-python.md"
ROWS = {"distance": [100.0, 25.0], "line": ["S1", "U6"]}
MINUTES = [4.0, 1.0]


pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The files of the how-to, where it says that they are."""
    found = re.findall(r"`([\w/]+\.\w+)`[^\n]*\n(?:[^\n]+\n)?\n```\w+\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    assert {name for name, _content in found} == {"delays/model.py", "delays/usual.json", "rows.csv"}
    for name, content in found:
        file = tmp_path / "person" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path / "person"


@pytest.fixture
def house(house_of_folders: Installation) -> Installation:
    return house_of_folders


def minutes(house: Installation) -> object:
    with house.client() as client:
        return list(client.predict("delays", ROWS).outputs["minutes"])


def test_the_how_tos_class_answers_and_does_so_again_after_a_restart(house: Installation, example: Path) -> None:
    shutil.make_archive(str(example / "delays"), "zip", example / "delays")
    house.command("push", "delays.zip", "--format", "python", "--name", "delays", "--sample", "rows.csv", cwd=example)
    said = house.command("predict", "delays", "--file", "rows.csv", cwd=example)
    assert [line.split() for line in said.splitlines()] == [["row", "minutes"], ["0", "4"], ["1", "1"]]
    assert minutes(house) == MINUTES
    house.stop()
    house.start().wait(90)
    assert minutes(house) == MINUTES


def test_folders_that_were_lent_are_gone_with_their_runners_and_after_a_kill(house: Installation, tmp_path: Path) -> None:
    folders = house.data / "run" / "folders"
    lent = 1 if house.without_calls else 0
    archive = tmp_path / "doubles.zip"
    archive.write_bytes(python_models.doubles())
    with house.client() as client:
        client.push(archive, "doubles", format="python")
        eventually(lambda: _count(folders) == lent, "no folder but that of the runner that serves")
        house.kill()
        assert _count(folders) == lent, "the control: nobody was left to remove it"
        left = set(folders.iterdir()) if lent else set()
        house.start().wait(90)
        assert list(client.predict("doubles", [[2.0]]).outputs["y"]) == [4.0]
        eventually(lambda: _count(folders) == lent, "as many folders as before")
        assert not left & set(folders.iterdir() if lent else ())
    house.stop()
    assert _count(folders) == 0
    house.start().wait(90)


def _count(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.exists() else 0
