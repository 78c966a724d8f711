"""What the how-to about the Open Inference Protocol shows works as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.foreign import foreign
from fixtures.installation import Installation
from fixtures.pages import programs

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "open-inference.md"
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "ignore", "-c"]}
EXAMPLES = re.findall(r"```(bash|python)\n(?!# \w+\.py)(.*?)```", HOW_TO.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def scores(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The model that the how-to asks."""
    file = tmp_path_factory.mktemp("scores") / "scores.onnx"
    file.write_bytes(onnx_identity(onnx.TensorProto.FLOAT))
    with house.client() as client:
        client.push(file, "scores")


@pytest.mark.parametrize(("language", "example"), EXAMPLES, ids=[language for language, _example in EXAMPLES])
@pytest.mark.usefixtures("scores")
def test_the_examples_do_what_they_say(house: Installation, language: str, example: str) -> None:
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
    done = subprocess.run([*COMMANDS[language], example], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("project", ["kserve", "mlserver"])
@pytest.mark.usefixtures("scores")
def test_the_programs_for_other_projects_are_answered(house: Installation, project: str, tmp_path: Path) -> None:
    (program,) = (file for file in programs(HOW_TO, tmp_path) if file.stem == f"{project}_rows")
    answer = foreign(project).run(str(program), MODELKEEP_URL=house.url, MODELKEEP_API_KEY=house.key)
    assert answer == [[0.25, 0.75]]


def test_there_are_examples_of_both_kinds() -> None:
    assert {language for language, _example in EXAMPLES} == {*COMMANDS}
