"""The page on deployments' settings says the defaults' and ranges' truth."""

from pathlib import Path

from modelkeep.control.deployments.configuration import RANGES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "deployments.md"


def test_every_number_is_on_the_page_with_its_range():
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    said = {cells[1].strip().strip("`"): cells[3].strip() for cells in rows}
    assert {name: said.get(name) for name in RANGES} == {name: f"{low:g} to {high:.0f}" for name, (low, high) in RANGES.items()}
