"""Says what to push instead of a folder that only MLflow itself could run: a Python model of its own kind."""

from collections.abc import Mapping
from typing import Any

from modelkeep.contracts.columns import listed
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

_OWN = ("python_model", "model_code_path")
_WHEELS = "wheels/"
_MOST_SHOWN = 3


def refuse(flavours: Mapping[str, Mapping[str, Any]], files: "Mapping[str, memoryview | bytes]") -> None:
    """Raise `CannotLoad` where the folder is one of MLflow's Python models, with what its author already has for another."""
    told = flavours.get("python_function", {})
    named = next((told[key] for key in _OWN if isinstance(told.get(key), str)), "")
    if not named or flavours.keys() - {"python_function"}:
        return
    wheels = sorted(name for name in files if name.startswith(_WHEELS) and name.endswith(".whl"))
    parts = ["model.py: a class with load(path) and predict(inputs), which does what your PythonModel does"]
    parts += ["the files of artifacts/"] * any(name.startswith("artifacts/") for name in files)
    parts += [f"the packages of {told['code']}/"] * isinstance(told.get("code"), str)
    if wheels:
        shown = listed([one.removeprefix(_WHEELS) for one in wheels[:_MOST_SHOWN]])
        parts.append(f"wheels/ as it is here ({shown}), without requirements.txt")
    else:
        parts.append("a locked requirements.txt, and wheels/ with what it names")
    raise CannotLoad(
        Reason.LOAD_FAILED,
        f"{named[:100]} is a Python model that MLflow itself would have to run. Push a folder of the format python instead: "
        f"{'; '.join(parts)}.",
    )
