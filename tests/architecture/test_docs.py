"""The reference says what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return _generated()


@pytest.mark.parametrize(
    "name", ["settings.md", "commands.md", "errors.md", "metrics.md", "http.md", "values.md", "openapi.json"]
)
def test_a_reference_page_is_as_the_code_makes_it(generated: dict[str, str], name: str) -> None:
    assert (ROOT / "docs/reference" / name).read_text() == generated[name], "run `make docs`"


def test_the_pages_have_something_to_say(generated: dict[str, str]) -> None:
    assert "`server.port`" in generated["settings.md"]
    assert "## modelkeep push" in generated["commands.md"]
    assert "`version_in_use`" in generated["errors.md"]
    assert "`memory_limit`" in generated["errors.md"]
    assert "`modelkeep_predictions_total`" in generated["metrics.md"]
    assert "`POST /api/v1/models/{name}/versions`" in generated["http.md"]


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
