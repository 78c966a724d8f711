"""Imports the Python that came in an artifact's folder, and says in its author's terms what is wrong with it.

For runners that take code of the uploader's own. The folder must be on `sys.path`, and closed to writing.
"""

import importlib
import inspect
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

SETTINGS = "modelkeep.toml"
MODULE = "model"
USUAL_NAME = "Model"

_NAMED = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def declared(file: Path) -> tuple[str, str]:
    """Return the module, and the class's name in it ("" where that is left to be found); raises `CannotLoad`."""
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return MODULE, ""
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CannotLoad(Reason.LOAD_FAILED, f"{SETTINGS} is no TOML: {error}") from error
    model = settings.get("model", {})
    known = isinstance(model, dict) and settings.keys() <= {"model"} and model.keys() <= {"class"}
    if not known:
        raise CannotLoad(Reason.LOAD_FAILED, f'{SETTINGS} may hold one thing: [model] with class = "module:Class".')
    given = model.get("class", f"{MODULE}:{USUAL_NAME}")
    named = _NAMED.fullmatch(given) if isinstance(given, str) else None
    if named is None:
        raise CannotLoad(
            Reason.LOAD_FAILED, f'In {SETTINGS}, class is {given!r}: write "module:Class" or "package.module:Class".'
        )
    return named["module"], named["name"]


def imported(module: str, folder: str) -> ModuleType:
    """Import a module of the artifact's; raises `CannotLoad`."""
    path = Path(folder, *module.split("."))
    if not path.is_dir() and not path.with_suffix(".py").is_file():
        raise CannotLoad(Reason.NOT_A_MODEL, f"The artifact has no {module.replace('.', '/')}.py, which its class is to be in.")
    if module in sys.modules:
        raise CannotLoad(Reason.LOAD_FAILED, f"{module} is the name of a module of Python or of Modelkeep: call it otherwise.")
    try:
        return importlib.import_module(module)
    except MemoryError:
        raise
    except Exception as error:
        raise failed(error, folder) from error


def own_classes(module: ModuleType) -> Iterator[type]:
    """Yield the classes that were written in this module."""
    return (one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__)


def failed(error: Exception, folder: str, *, wheels: bool = True) -> CannotLoad:
    """Return the refusal of an artifact whose own code raised this: what, and in which of its files and lines.

    `wheels`: it might have brought packages.
    """
    if isinstance(error, CannotLoad):
        return error
    if isinstance(error, SyntaxError):
        where = _inside(error.filename or "", folder)
        return CannotLoad(Reason.LOAD_FAILED, f"{where or 'A file'}, line {error.lineno}: {error.msg} (a syntax error).")
    if isinstance(error, ModuleNotFoundError) and error.name and not _has(folder, error.name):
        package = error.name.partition(".")[0]
        elsewhere = " and not among the artifact's wheels" if wheels else ""
        detail = f"{package} is not installed here{elsewhere}{_at(error, folder)}."
        return CannotLoad(Reason.MISSING_DEPENDENCY, detail)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return CannotLoad(Reason.LOAD_FAILED, f"{said}{_at(error, folder)}")


def _has(folder: str, module: str) -> bool:
    """Whether the artifact itself has this module's package, so that a part of it is missing, not all."""
    top = Path(folder, module.partition(".")[0])
    return top.is_dir() or top.with_suffix(".py").is_file()


def _at(error: Exception, folder: str) -> str:
    """The innermost of the artifact's own lines that the error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        where = _inside(frame.filename, folder)
        if where:
            return f" ({where}, line {frame.lineno})"
    return ""


def _inside(file: str, folder: str) -> str:
    """A file's name within the artifact; "" for one from elsewhere. Its packages are not the author's."""
    name = os.path.relpath(file, folder) if file.startswith(f"{folder}/") else ""
    return "" if name.startswith(".") else name
