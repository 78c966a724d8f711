"""Models and their versions: looking, describing, putting away, downloading."""

import hashlib
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from modelkeep.client.errors import Invalid, ServerUnreachable
from modelkeep.client.progress import Progress, shown
from modelkeep.client.results import Listing, Model, Version
from modelkeep.client.server import Server, model_path, version_path
from modelkeep.client.steps import Ask, Save, Steps, Work


def models(server: Server, *, archived: bool = False, trashed: bool = False, search: str = "") -> Steps[list[Model]]:
    """Return the models, by name; with `archived`, those put away, too; with `trashed`, those in the trash instead.

    `search`: those alone whose names have it in them; upper and lower case are alike.
    """
    query: dict[str, Any] = {"archived": str(archived).lower()} | ({"trashed": "true"} if trashed else {})
    query |= {"search": search} if search else {}
    return Listing((yield from server.items("/models", Model.read, **query)))


def model(server: Server, name: str) -> Steps[Model]:
    """Return one model."""
    return Model.read((yield from server.get(model_path(name))))


def versions(server: Server, name: str, *, trashed: bool = False) -> Steps[list[Version]]:
    """Return the versions of a model, newest first; with `trashed`, those in the trash instead."""
    query: dict[str, Any] = {"trashed": "true"} if trashed else {}
    return Listing((yield from server.items(f"{model_path(name)}/versions", Version.read, **query)))


def version(server: Server, name: str, number: int) -> Steps[Version]:
    """Return one version."""
    return Version.read((yield from server.get(version_path(name, number))))


def describe(server: Server, name: str, description: str, *, version: int | None = None) -> Steps[Model | Version]:
    """Change what is said about a model, or about one of its versions."""
    path = model_path(name) if version is None else version_path(name, version)
    document = yield from server.document("PATCH", path, {"description": description})
    return Model.read(document) if version is None else Version.read(document)


def archive(server: Server, name: str, *, version: int | None = None, reason: str = "") -> Steps[Model | Version]:
    """Put a model away, or one of its versions: it answers no longer, and nothing of it is lost."""
    said = {"reason": reason} if reason else None
    if version is None:
        return Model.read((yield from server.document("POST", f"{model_path(name)}/archive", said)))
    return Version.read((yield from server.document("POST", f"{version_path(name, version)}/archive", said)))


def restore(server: Server, name: str, *, version: int | None = None, reason: str = "") -> Steps[Model | Version]:
    """Take a model, or a version, back from the archive or the trash."""
    said = {"reason": reason} if reason else None
    if version is None:
        return Model.read((yield from server.document("POST", f"{model_path(name)}/restore", said)))
    return Version.read((yield from server.document("POST", f"{version_path(name, version)}/restore", said)))


def download(
    server: Server,
    name: str,
    number: int,
    to: str | PathLike[str] = ".",
    *,
    progress: bool = False,
    on_progress: Progress | None = None,
) -> Steps[Path]:
    """Write the file of a version to the path `to`, or into that directory, and return its path.

    The content is compared with the digest that the server holds; a broken download leaves nothing behind. `progress` shows a
    bar; `on_progress(done, total)` hears of bytes.
    """
    found = yield from version(server, name, number)
    target = Path(to)
    if target.is_dir():
        target /= Path(found.filename).name or f"{name}-{number}"
    with shown(f"Downloading {target.name}", on_progress, bar=progress) as tell:
        yield from written(target, partial(_fetched, server, found, tell))
    return target


def written(target: Path, fetch: Callable[[BinaryIO], Steps[None]]) -> Steps[None]:
    """Have a file written by `fetch` and put at `target` when it is whole; where it fails, nothing is left."""
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    try:
        file = yield Work(partial(unfinished.open, "wb"))
        with file:
            yield from fetch(file)
        yield Work(partial(unfinished.replace, target))
    except OSError as error:
        raise Invalid(f"{target} cannot be written: {error.strerror}.", code="file_unwritable") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _fetched(server: Server, version: Version, tell: Progress | None, file: BinaryIO) -> Steps[None]:
    digest, done = hashlib.sha256(), 0

    def write(piece: bytes) -> None:
        file.write(piece)
        digest.update(piece)

    def told(piece: bytes) -> None:
        nonlocal done
        done += len(piece)
        if tell is not None:
            tell(done, version.size)

    def step(ask: Ask) -> Save:
        return Save(ask, write, told)

    yield from server.saved(f"{version_path(version.model, version.number)}/artifact", step, headers={"accept": "*/*"})
    if digest.hexdigest() != version.digest.removeprefix("sha256:"):
        message = "The download broke: what came is not what the server holds. Try again."
        raise ServerUnreachable(message, code="download_broken")
