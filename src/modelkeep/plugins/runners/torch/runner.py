"""The runner of PyTorch's formats: what it serves, and which way a file goes."""

from pathlib import Path
from typing import ClassVar

from modelkeep.contracts import imports
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Format, LoadOptions, Manifest, Unpack
from modelkeep.plugins.runners.torch import archive as files
from modelkeep.plugins.runners.torch import module, program, script, states, weights
from modelkeep.plugins.runners.torch.archive import Kind
from modelkeep.plugins.runners.torch.model import TorchModel, settle
from modelkeep.plugins.runners.torch.states import State

_STATE = "torch-state"
_WHEELS = "wheels"


class TorchRunner:
    """Loads `.pt` and `.pt2` files, and folders with a state dict and its class.

    All may run code. TorchScript calls what it likes of torch, files included. A program of `torch.export` names functions
    by paths that start at torch and lead anywhere, its sizes are texts that sympy evaluates, and parts of it are pickles. A
    class is Python.
    """

    manifest: ClassVar[Manifest] = Manifest(
        name="torch",
        formats=(
            Format("torchscript", (".pt", ".pth", ".torchscript", ".ptl"), "code", also=("torch-export",)),
            Format("torch-export", (".pt2",), "code", also=("torchscript",)),
            Format(_STATE, (), "code", also=("python",), archive="folder"),
        ),
        preload_when_asked=("numpy", "torch", "torch.export._trace", "torch.export.pt2_archive._package"),
        extra="torch",
    )

    def __init__(self) -> None:
        self._state: State | None = None

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "torch-export", or "torchscript" for all else that PyTorch writes; `load` refuses what is no model."""
        return files.recognise(head, tail)

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return "torch-state" for an archive with weights and Python."""
        python = {f"{imports.MODULE}.py", imports.SETTINGS} & set(names)
        return _STATE if python and any(name.lower().endswith(states.SUFFIXES) for name in names) else None

    def prepare(self, artifact: Artifact, unpack: Unpack) -> None:
        """Read the weights, before anything of the uploader's Python runs, and remove their file: it has served."""
        del unpack
        folder = Path(artifact.folder)
        if (folder / _WHEELS).exists():
            detail = "Wheels are not taken beside a state dict. Write a class with load and predict, of the format python."
            raise CannotLoad(Reason.MISSING_DEPENDENCY, detail)
        path = states.find(folder)
        self._state = states.read(path, folder)
        path.unlink()

    def load(self, artifact: Artifact, options: LoadOptions) -> TorchModel:
        """Load what the archive shows itself to be, under either name; a folder's class gets the weights that were read."""
        if artifact.folder:
            settle(options.threads)
            state, self._state = self._state, None
            if state is None:
                raise CannotLoad(Reason.LOAD_FAILED, "The weights have not been read.")
            return TorchModel(module.load(artifact.folder, state), options)
        archive = files.look_at(artifact.data)
        if archive.kind not in {Kind.SCRIPT, Kind.PROGRAM}:
            weights.refuse(archive, artifact.data)
        settle(options.threads)
        if archive.kind is Kind.PROGRAM:
            return TorchModel(program.load(artifact.data, archive.names), options)
        keys = [one.name for one in (options.signature.inputs if options.signature else options.sample)]
        return TorchModel(script.load(artifact.data, archive.names, keys), options)
