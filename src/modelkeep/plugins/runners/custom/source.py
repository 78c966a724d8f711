"""Finds the class in an artifact's folder, and says in the author's terms what is wrong where there is none."""

import inspect
from pathlib import Path
from types import ModuleType

from modelkeep.contracts import calls, imports
from modelkeep.contracts.columns import listed
from modelkeep.contracts.imports import SETTINGS, USUAL_NAME
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

_METHODS = ("load", "predict", "preprocess", "postprocess")
_NEEDED = {"load": "load(path)", "predict": "predict(inputs)"}


def find(folder: str) -> type:
    """Import what the artifact says is its model, and return the class; raises `CannotLoad`."""
    module, name = imports.declared(Path(folder, SETTINGS))
    imported = imports.imported(module, folder)
    chosen = _called(imported, name) if name else _only(imported)
    _check(chosen)
    return chosen


def _called(module: ModuleType, name: str) -> type:
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        have = listed([one.__name__ for one in imports.own_classes(module)])
        there = f"; its classes are {have}" if have else ""
        raise CannotLoad(Reason.NOT_A_MODEL, f"The module {module.__name__} has no class {name}{there}.")
    return found


def _only(module: ModuleType) -> type:
    """The class `Model`, or the only one that predicts, or the only one."""
    usual = getattr(module, USUAL_NAME, None)
    if inspect.isclass(usual):
        return usual
    own = list(imports.own_classes(module))
    if not own:
        raise CannotLoad(Reason.NOT_A_MODEL, f"{module.__name__}.py holds no class. It needs one with load and predict.")
    predicting = [one for one in own if hasattr(one, "predict")] or own
    if len(predicting) > 1:
        names = listed([one.__name__ for one in predicting])
        raise CannotLoad(
            Reason.NOT_A_MODEL,
            f"{module.__name__}.py holds {names}. Call one of them {USUAL_NAME}, or name it in {SETTINGS}.",
        )
    return predicting[0]


def _check(chosen: type) -> None:
    for method, shown in _NEEDED.items():
        if not callable(getattr(chosen, method, None)):
            raise CannotLoad(Reason.NOT_A_MODEL, f"The class {chosen.__name__} has no method {shown}.")
    for method in _METHODS:
        function = getattr(chosen, method, None)
        why = calls.objection(function)
        if why:
            raise CannotLoad(Reason.NOT_A_MODEL, f"{chosen.__name__}.{method} {why}.")
