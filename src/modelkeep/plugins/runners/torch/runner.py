"""The runner of PyTorch's formats: what it serves, and which way a file goes."""

from typing import ClassVar

from modelkeep.contracts.runner import Artifact, Format, LoadOptions, Manifest
from modelkeep.plugins.runners.torch import archive as files
from modelkeep.plugins.runners.torch import program, script, weights
from modelkeep.plugins.runners.torch.archive import Kind
from modelkeep.plugins.runners.torch.model import TorchModel, settle


class TorchRunner:
    """Loads `.pt` and `.pt2` files.

    Both may run code. TorchScript calls what it likes of torch, files included. A program of `torch.export` names functions
    by paths that start at torch and lead anywhere, its sizes are texts that sympy evaluates, and parts of it are pickles.
    """

    manifest: ClassVar[Manifest] = Manifest(
        name="torch",
        formats=(
            Format("torchscript", (".pt", ".pth", ".torchscript", ".ptl"), "code", also=("torch-export",)),
            Format("torch-export", (".pt2",), "code", also=("torchscript",)),
        ),
        preload_when_asked=("numpy", "torch", "torch.export._trace", "torch.export.pt2_archive._package"),
        extra="torch",
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "torch-export", or "torchscript" for all else that PyTorch writes; `load` refuses what is no model."""
        return files.recognise(head, tail)

    def load(self, artifact: Artifact, options: LoadOptions) -> TorchModel:
        """Load what the archive shows itself to be, under either name."""
        archive = files.look_at(artifact.data)
        if archive.kind not in {Kind.SCRIPT, Kind.PROGRAM}:
            weights.refuse(archive, artifact.data)
        settle(options.threads)
        load = script.load if archive.kind is Kind.SCRIPT else program.load
        return TorchModel(load(artifact.data, archive.names), options)
