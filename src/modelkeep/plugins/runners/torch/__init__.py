"""Runs PyTorch models: TorchScript, and programs of `torch.export`. Weights without a model are refused in words that help.

`archive` tells what a file is from its table of contents; `script` and `program` load it; `trials` finds out what a network
takes where the file does not say; `answers` turns what it returns into named arrays; `model` runs it.
"""

from modelkeep.plugins.runners.torch.runner import TorchRunner

__all__ = ["TorchRunner"]
