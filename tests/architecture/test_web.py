"""What holds of the console's sources: which way its imports point, what its files are called, and where packages come from."""

import json
import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
SOURCES = sorted(path for path in (WEB / "src").rglob("*.ts*") if ".gen." not in path.name)
ROOMS = ("lib", "api", "ui", "features", "routes", "app")
"""Lowest first; `ui` shows what `api` says went wrong, and so stands above it."""


def _imports(text: str) -> list[str]:
    return re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""", text)


def _wrong(path: Path, text: str) -> list[str]:
    """The imports of a file that point up, or to another noun, or are written so that this cannot be seen."""
    room, *rest = path.parts
    found = []
    for name in _imports(text):
        target = name.removeprefix("@/").split("/")
        if name.startswith("."):
            found.append(name)
        elif name.startswith("@/") and not target[-1].endswith(".gen"):
            up = ROOMS.index(target[0]) > ROOMS.index(room)
            other_noun = room == target[0] == "features" and target[1] != rest[0]
            found += [name] * (up or other_noun)
    return found


def test_imports_of_the_console_point_down() -> None:
    relative = {path.relative_to(WEB / "src"): path.read_text() for path in SOURCES}
    assert len(relative) > 8
    assert {str(path): wrong for path, text in relative.items() if (wrong := _wrong(path, text))} == {}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("ui/table.tsx", 'import { me } from "@/features/users/queries";'),
        ("features/models/list.tsx", 'import { me } from "@/features/users/queries";'),
        ("routes/index.tsx", 'const shell = await import("@/app/shell");'),
        ("lib/time.ts", 'import { now } from "./now";'),
    ],
)
def test_an_import_that_points_elsewhere_is_found(path: str, line: str) -> None:
    assert _wrong(Path(path), line)


def test_files_of_the_console_have_names_in_kebab_case_and_none_hands_on_what_others_say() -> None:
    names = [path.name for path in SOURCES if "routes" not in path.parts]
    assert [name for name in names if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*(\.test)?\.tsx?", name)] == []
    assert [path for path in SOURCES if re.search(r"^export (\*|\{[^}]*\}) from", path.read_text(), re.MULTILINE)] == []


def test_packages_are_named_exactly_and_without_an_address() -> None:
    package, lock = (json.loads((WEB / name).read_text()) for name in ("package.json", "package-lock.json"))
    asked = package["dependencies"] | package["devDependencies"]
    assert [name for name, version in asked.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    assert len({version for name, version in asked.items() if name.startswith("@mantine/")}) == 1
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    others = {name: one for name, one in lock["packages"].items() if name}
    assert [name for name, one in others.items() if "resolved" in one or not one["integrity"].startswith("sha512-")] == []
