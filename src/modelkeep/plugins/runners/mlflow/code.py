"""Python that was logged with a model (`code_paths`), imported from the archive's files in memory.

What is installed here comes first: MLflow has it the other way round, but a runner's own modules are not to be replaced.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def importable(folder: str, files: "Mapping[str, memoryview | bytes]") -> None:
    """Let this process import the modules below `folder` from now on; "" for none."""
    if folder:
        sys.meta_path.append(_Modules(folder.strip("/"), files))


class _Modules(MetaPathFinder, InspectLoader):
    """Finds modules, packages and namespaces among the files, and loads them."""

    def __init__(self, folder: str, files: "Mapping[str, memoryview | bytes]") -> None:
        self._folder = folder
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module of the folder is loaded, None for another."""
        del path, target
        place = self._place(fullname)
        if {f"{place}.py", f"{place}/__init__.py"} & self._files.keys():
            return importlib.util.spec_from_loader(
                fullname, self, origin=self._file(fullname), is_package=self.is_package(fullname)
            )
        if any(name.startswith(f"{place}/") for name in self._files):
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def is_package(self, fullname: str) -> bool:
        """Whether the module has modules of its own."""
        return f"{self._place(fullname)}/__init__.py" in self._files

    def get_source(self, fullname: str) -> str:
        """Return a module's text."""
        return importlib.util.decode_source(bytes(self._files[self._file(fullname)]))

    def _place(self, fullname: str) -> str:
        return f"{self._folder}/{fullname.replace('.', '/')}"

    def _file(self, fullname: str) -> str:
        place = self._place(fullname)
        return f"{place}/__init__.py" if self.is_package(fullname) else f"{place}.py"
