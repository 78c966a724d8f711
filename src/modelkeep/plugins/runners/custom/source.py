"""Finds and imports the class in an artifact's folder, and says in the author's terms what is wrong where there is none."""

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

from modelkeep.contracts.columns import listed
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

SETTINGS = "modelkeep.toml"
MODULE = "model"

_USUAL_NAME = "Model"
_NAMED = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")
_METHODS = ("load", "predict", "preprocess", "postprocess")
_NEEDED = {"load": "load(path)", "predict": "predict(inputs)"}


def find(folder: str) -> type:
    """Import what the artifact says is its model, and return the class; raises `CannotLoad`."""
    module, name = _declared(Path(folder, SETTINGS))
    imported = _imported(module, folder)
    chosen = _called(imported, name) if name else _only(imported)
    _check(chosen)
    return chosen


def failed(error: Exception, folder: str) -> CannotLoad:
    """Return the refusal of an artifact whose own code raised this: what, and in which of its files and lines."""
    if isinstance(error, CannotLoad):
        return error
    if isinstance(error, SyntaxError):
        where = _inside(error.filename or "", folder)
        return CannotLoad(Reason.LOAD_FAILED, f"{where or 'A file'}, line {error.lineno}: {error.msg} (a syntax error).")
    if isinstance(error, ModuleNotFoundError) and error.name and not _has(folder, error.name):
        package = error.name.partition(".")[0]
        detail = f"{package} is not installed here and not among the artifact's wheels{_at(error, folder)}."
        return CannotLoad(Reason.MISSING_DEPENDENCY, detail)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return CannotLoad(Reason.LOAD_FAILED, f"{said}{_at(error, folder)}")


def _declared(file: Path) -> tuple[str, str]:
    """The module, and the class's name in it ("" where that is left to be found)."""
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
    given = model.get("class", f"{MODULE}:{_USUAL_NAME}")
    named = _NAMED.fullmatch(given) if isinstance(given, str) else None
    if named is None:
        raise CannotLoad(
            Reason.LOAD_FAILED, f'In {SETTINGS}, class is {given!r}: write "module:Class" or "package.module:Class".'
        )
    return named["module"], named["name"]


def _imported(module: str, folder: str) -> ModuleType:
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


def _called(module: ModuleType, name: str) -> type:
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        have = listed([one.__name__ for one in _own(module)])
        there = f"; its classes are {have}" if have else ""
        raise CannotLoad(Reason.NOT_A_MODEL, f"The module {module.__name__} has no class {name}{there}.")
    return found


def _only(module: ModuleType) -> type:
    """The class `Model`, or the only one that predicts, or the only one."""
    usual = getattr(module, _USUAL_NAME, None)
    if inspect.isclass(usual):
        return usual
    own = list(_own(module))
    if not own:
        raise CannotLoad(Reason.NOT_A_MODEL, f"{module.__name__}.py holds no class. It needs one with load and predict.")
    predicting = [one for one in own if hasattr(one, "predict")] or own
    if len(predicting) > 1:
        names = listed([one.__name__ for one in predicting])
        raise CannotLoad(
            Reason.NOT_A_MODEL,
            f"{module.__name__}.py holds {names}. Call one of them {_USUAL_NAME}, or name it in {SETTINGS}.",
        )
    return predicting[0]


def _own(module: ModuleType) -> Iterator[type]:
    return (one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__)


def _check(chosen: type) -> None:
    for method, shown in _NEEDED.items():
        if not callable(getattr(chosen, method, None)):
            raise CannotLoad(Reason.NOT_A_MODEL, f"The class {chosen.__name__} has no method {shown}.")
    for method in _METHODS:
        function = getattr(chosen, method, None)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise CannotLoad(Reason.NOT_A_MODEL, f"{chosen.__name__}.{method} is async: it must be a plain method.")
        if inspect.isgeneratorfunction(function):
            raise CannotLoad(Reason.NOT_A_MODEL, f"{chosen.__name__}.{method} is a generator: it must return its answer.")


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
