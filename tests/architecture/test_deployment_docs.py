"""The page on deployments' settings says the defaults' and ranges' truth."""

from pathlib import Path

from modelkeep.app.cli.deployments import OUT_OF_RANGE
from modelkeep.control.deployments.configuration import RANGES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "deployments.md"


def test_every_number_is_on_the_page_with_its_range():
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    said = {cells[1].strip().strip("`"): cells[3].strip() for cells in rows}
    assert {name: said.get(name) for name in RANGES} == {name: f"{low:g} to {high:.0f}" for name, (low, high) in RANGES.items()}


def test_the_command_says_what_the_page_says_of_defaults_outside_the_range():
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    said = {cells[1].strip().strip("`"): cells[2].strip() for cells in rows}
    beyond = {name for name, default in said.items() if ":" in default and name in RANGES}
    assert beyond == OUT_OF_RANGE.keys()
    for name, (value, meaning) in OUT_OF_RANGE.items():
        assert said[name].startswith(f"{value}: {meaning}"), name
