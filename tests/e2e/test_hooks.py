"""Hooks from two files to answers, as the how-to says, and what the version tells of them."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.installation import Installation

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "hooks.md"
PART = re.compile(r"`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
ROWS = {"income": [1200.0, 5000.0, 300.0], "city": ["Graz", "Wien", "Paris"]}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the how-to, and the model that its script makes."""
    folder = tmp_path_factory.mktemp("person")
    found = PART.findall(HOW_TO.read_text())
    assert {name for name, _content in found} == {"train.py", "hooks.py", "rows.csv"}
    for name, content in found:
        (folder / name).write_text(content)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, timeout=120)
    return folder


def test_the_how_tos_version_takes_and_answers_what_its_hooks_say(house: Installation, example: Path) -> None:
    house.command("push", "credit.skops", "--name", "credit", "--hooks", "hooks.py", "--sample", "rows.csv", cwd=example)
    said = house.command("predict", "credit", "--file", "rows.csv", cwd=example)
    table = [line.split() for line in said.splitlines()]
    assert [table[0][0], *sorted(table[0][1:])] == ["row", "decision", "risk"]
    decision = table[0].index("decision")
    assert [line[decision] for line in table[1:]] == ["ask", "grant", "ask"]
    assert "preprocess, postprocess" in house.command("versions", "credit", "1", cwd=example)


def test_the_version_tells_of_its_hooks_and_one_bad_row_is_the_callers(house: Installation, example: Path) -> None:
    hooks = example / "hooks.py"
    with house.client() as client:
        version = client.push(example / "credit.skops", "credit-by-client", hooks=hooks, sample=example / "rows.csv")
        told = {
            "digest": hashlib.sha256(hooks.read_bytes()).hexdigest(),
            "size": hooks.stat().st_size,
            "functions": ["preprocess", "postprocess"],
        }
        assert version.hooks == told
        assert [one["name"] for one in version.signature["inputs"]] == ["income", "city"]
        assert {one["name"] for one in version.signature["outputs"]} == {"risk", "decision"}
        assert version.report["hooked"]
        assert version.report["framework"] == "scikit-learn"
        answer = client.predict("credit-by-client", ROWS)
        assert list(answer.outputs["decision"]) == ["ask", "grant", "ask"]
    with house.http() as http:
        described = http.get("/v2/models/credit-by-client").json()
        assert [one["name"] for one in described["inputs"]] == ["income", "city"]
        (entry,) = http.get("/api/v1/audit", params={"target": version.id}).json()["items"][-1:]
        assert entry["details"]["hooks"] == told["digest"]
