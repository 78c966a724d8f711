"""The runner of Python classes: an archive with a class, its files, and the packages that it needs.

model.py            class Model: load(path), predict(inputs); preprocess(inputs) and postprocess(outputs) where there are
requirements.txt    name==version lines
wheels/*.whl        what they name, for this Python and machine
modelkeep.toml      [model] class = "package.module:Class", where it is not in model.py
"""

import importlib
import io
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from modelkeep.contracts import calls, imports
from modelkeep.contracts.declared import declared
from modelkeep.contracts.runner import Artifact, CannotLoad, Format, LoadOptions, Manifest, ModelFacts, Unpack
from modelkeep.contracts.signature import Signature
from modelkeep.plugins.runners.custom import arrays, source, wheels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

_OUTPUT = "output"


class PythonRunner:
    """Loads archives with a Python class. Its runners start as new processes, since they bring packages of their own."""

    manifest: ClassVar[Manifest] = Manifest(
        name="python",
        formats=(Format("python", (), "code", archive="folder"),),
        cold=True,
    )

    def __init__(self) -> None:
        self._packages: list[str] = []

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return None: it is by the names in it that the archive is known."""
        del head, tail
        return None

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return "python" for an archive with `model.py` or `modelkeep.toml`."""
        return "python" if {f"{imports.MODULE}.py", imports.SETTINGS} & set(names) else None

    def prepare(self, artifact: Artifact, unpack: Unpack) -> None:
        """Install the wheels, while the folder can still be written."""
        self._packages = wheels.install(artifact.folder, unpack)

    def load(self, artifact: Artifact, options: LoadOptions) -> "PythonModel":
        """Import the class, make one, and have it load its files."""
        folder = artifact.folder
        sys.dont_write_bytecode = True  # there is nowhere to write it
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # what it prints shows before it may crash
        packages = f"{folder}/{wheels.PACKAGES}"
        sys.path.insert(0, packages)
        importlib.invalidate_caches()
        try:
            arrays.check(packages)  # before the author's own files, whose names may be those of modules that numpy imports
            sys.path.insert(1, folder)
            return PythonModel(source.find(folder), folder, options, self._packages)
        except (CannotLoad, MemoryError):
            raise
        except Exception as error:
            raise imports.failed(error, folder) from error


class PythonModel:
    """One object of the uploader's class, loaded."""

    def __init__(self, chosen: type, folder: str, options: LoadOptions, packages: list[str]) -> None:
        self._model: Any = chosen()
        self._model.load(folder)
        said = getattr(self._model, "signature", None)
        signature = options.signature or declared(said, options.sample)
        self._steps = [step for step in (self._step("preprocess"), self._step("predict"), self._step("postprocess")) if step]
        self._texts = frozenset(one.name for one in signature.inputs if one.dtype.numpy == "object")
        self._output = signature.outputs[0].name if len(signature.outputs) == 1 else _OUTPUT
        self.facts = ModelFacts(
            signature=Signature(signature.inputs, signature.outputs),
            framework="python",
            framework_version=platform.python_version(),
            details={"class": f"{chosen.__module__}:{chosen.__qualname__}"}
            | ({"packages": ", ".join(packages)} if packages else {}),
        )

    def run(self, inputs: "Mapping[str, NDArray[np.generic]]") -> "Arrays":
        """Answer one micro-batch."""
        value: Any = {name: calls.texts(array) if name in self._texts else array for name, array in inputs.items()}
        for step in self._steps:
            value = step(value)
        return calls.arrays("predict", value, self._output)

    def _step(self, name: str) -> Any:  # noqa: ANN401 - a method of the uploader's, or None
        return getattr(self._model, name, None)
