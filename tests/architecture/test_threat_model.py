"""The threat model names every listener, dialect, parser and format that the code has, and tests that there are."""

import ast
import re
from pathlib import Path

import pytest

from modelkeep.app import bootstrap
from modelkeep.contracts import discovery

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/modelkeep"
PAGE = (ROOT / "docs/explanation/threat-model.md").read_text()
NAMED = set(re.findall(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.py)?)`", PAGE))
CLIENTS = ("client/", "app/cli/")
"""They read what their own user gives them, or what a server of theirs answers."""

LISTENS = re.compile(r"\.(?:bind|add_(?:in)?secure_port)$")
CONNECTS = re.compile(r"\.(?:connect|create_connection|open_connection|sock_connect)$")
PARSES = re.compile(
    r"(?:^|\.)(?:json|msgpack|tomllib)\.(?:decode|Decoder|loads)$|\.(?:unpack|unpack_from|iter_unpack|frombuffer)$"
    r"|\.load_(?:pem|der|ssh)_\w+$|\.load_(?:cert_chain|verify_locations)$"
)
PARSERS = {
    *(
        "bz2",
        "csv",
        "dotenv",
        "grpc",
        "gzip",
        "h11",
        "httptools",
        "isal",
        "joblib",
        "lzma",
        "onnx",
        "pickle",
        "pickletools",
        "PIL",
    ),
    *("picklescan", "pyarrow", "python_multipart", "skops", "tarfile", "tomllib", "yaml", "zipfile", "zlib", "zstandard"),
}


def _modules(wanted: re.Pattern[str], libraries: frozenset[str] = frozenset()) -> set[str]:
    """Return the modules that call something of this name, or import one of these libraries."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            calls = isinstance(node, ast.Call) and wanted.search(ast.unparse(node.func))
            imports = isinstance(node, ast.Import) and {name.name.partition(".")[0] for name in node.names} & libraries
            imports = imports or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in libraries)
            if calls or imports:
                found.add(str(path.relative_to(SOURCE)))
    return found


def _missing(modules: set[str]) -> set[str]:
    return {one for one in modules if one not in NAMED and not any(one.startswith(name) for name in NAMED if name[-1] == "/")}


def test_every_listener_is_in_the_page() -> None:
    listening = {one for one in _modules(LISTENS) if not one.startswith("plugins/")}
    assert {"app/listening.py", "serving/grpc/server.py", "app/estate.py", "infra/bell.py"} <= listening
    assert _missing(listening) == set()


def test_every_place_that_connects_to_somewhere_else_is_in_the_page() -> None:
    connecting = {one for one in _modules(CONNECTS) if not one.startswith(("plugins/", *CLIENTS))}
    assert "infra/audit_sinks.py" in connecting
    assert _missing(connecting) == set()


def test_every_dialect_is_in_the_page() -> None:
    dialects = set()
    for path in (SOURCE / "serving/dialects").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and path.name != "dialect.py":
                methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
                if {"needs", "answer"} <= methods:
                    dialects.add(str(path.relative_to(SOURCE)))
    assert len(dialects) >= 6
    assert _missing(dialects) == set()


def test_every_parser_is_in_the_page() -> None:
    parsing = {one for one in _modules(PARSES, frozenset(PARSERS)) if not one.startswith(CLIENTS)}
    assert len(parsing) > 50
    assert _missing(parsing) == set()


def test_every_format_and_every_store_is_in_the_page() -> None:
    formats = {one.name for manifest in bootstrap.manifests() for one in manifest.formats}
    assert len(formats) > 15
    told = set(re.findall(r"`([a-z0-9-]+)`", PAGE))
    assert formats | {*discovery.names(discovery.STORAGE)} <= told


def test_every_module_in_the_page_is_there() -> None:
    named = {one for one in NAMED if not one.startswith("tests/")}
    assert {one for one in named if not (SOURCE / one).exists()} == {"src/modelkeep"} & named


def _tests(page: Path) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", page.read_text())


@pytest.mark.parametrize("page", ["docs/explanation/threat-model.md", "docs/reference/asvs.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = _tests(ROOT / page)
    assert len(named) > 40
    missing = []
    for one in named:
        file, _colons, name = one.partition("::")
        path = ROOT / file
        if not path.exists() or (name and not re.search(rf"^(?:async )?def {name}\(", path.read_text(), re.MULTILINE)):
            missing.append(one)
    assert missing == []


def test_every_row_of_the_page_says_whether_it_is_robust_and_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and "`tests/" in line]
    assert len(rows) > 35
    for row in rows:
        assert re.search(r"\| (?:yes|no|in a runner)\b", row), row


def test_every_requirement_that_is_met_names_its_test_and_what_is_not_says_why() -> None:
    rows = re.findall(
        r"^\| (V[\d.]+) \| ([12]) \| ([^|]+) \| (met|partly|open) \| ([^|]*) \| ([^|]*) \|$",
        (ROOT / "docs/reference/asvs.md").read_text(),
        re.MULTILINE,
    )
    lines = [line for line in (ROOT / "docs/reference/asvs.md").read_text().splitlines() if line.startswith("| V")]
    assert len(rows) == len(lines) > 100
    assert len({row[0] for row in rows}) == len(rows)
    assert [row[0] for row in rows if row[3] == "met" and not row[5]] == []
    assert [row[0] for row in rows if row[3] != "met" and not row[4]] == []
