"""Runs ONNX models, and makes them smaller. Importing it imports no framework: that happens in `load`, inside a runner."""

from modelkeep.plugins.runners.onnx.runner import OnnxRunner

__all__ = ["OnnxRunner"]
