"""Runs PyTorch models: TorchScript, programs of `torch.export`, and weights in a folder with their class.

Weights alone are refused in words that help.

`archive` tells what a file is from its table of contents; `script` and `program` load it; `trials` finds out what a network
takes where the file does not say; `answers` turns what it returns into named arrays; `model` runs it.

`states` reads weights, and `module` makes their network.
"""

from modelkeep.plugins.runners.torch.runner import TorchRunner

__all__ = ["TorchRunner"]
