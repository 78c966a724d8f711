"""What import-linter cannot say about the house."""

import ast
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

SOURCE = Path(__file__).parents[2] / "src/modelkeep"
NOUNS = sorted(folder.name for folder in (SOURCE / "control").iterdir() if (folder / "service.py").exists())
FRAMEWORKS = ("sklearn", "onnxruntime", "pandas", "skops", "joblib", "scipy")
LONGEST_MODULE = 500
EXPLAINED = {
    "0001_foundation.py:upgrade": "the first schema is one list of tables",
}
LONGEST_FUNCTION = 60


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("modelkeep")


@pytest.mark.parametrize("noun", NOUNS)
def test_the_tables_and_sql_of_a_noun_are_its_own(graph: grimp.ImportGraph, noun: str) -> None:
    own = f"modelkeep.control.{noun}"
    for private in (f"{own}.store", f"{own}.tables"):
        importers = graph.find_modules_that_directly_import(private)
        assert all(importer.startswith(f"{own}.") for importer in importers), importers


def test_there_are_nouns_to_look_at() -> None:
    assert {"audit", "deployments", "models", "users"} <= set(NOUNS)


@pytest.mark.parametrize("module", sorted(path.stem for path in (SOURCE / "plugins/runners").glob("[a-z]*")))
def test_importing_a_runner_plugin_imports_no_framework(module: str) -> None:
    code = f"import sys, modelkeep.plugins.runners.{module}; print(*(name for name in {FRAMEWORKS!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", ["modelkeep.serving.http", "modelkeep.app.supervisor", "modelkeep.client"])
def test_the_fast_and_the_small_carry_no_heavy_library(module: str) -> None:
    heavy = (*FRAMEWORKS, "sqlalchemy", "fastapi", "dbos")
    code = f"import sys, {module}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_module_and_no_function_outgrows_a_mind() -> None:
    long = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if text.count("\n") > LONGEST_MODULE:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.name}:{node.name}")
    assert set(long) == EXPLAINED.keys()


def test_no_committed_file_names_this_machine() -> None:
    root = SOURCE.parents[1]
    files = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    private = ("/wo" + "rk/", "/ro" + "ot/", "py" + "pi.org")
    named = [name for name in files if any(part in (root / name).read_text(errors="replace") for part in private)]
    assert named == []
