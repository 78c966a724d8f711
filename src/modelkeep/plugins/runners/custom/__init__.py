"""Runs a Python class of the uploader's own, with the packages that it brings. Importing this imports none of either."""

from modelkeep.plugins.runners.custom.runner import PythonRunner

__all__ = ["PythonRunner"]
