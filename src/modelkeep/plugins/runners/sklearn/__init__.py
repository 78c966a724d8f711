"""Runs scikit-learn estimators. Importing it imports no framework: that happens in `load`, inside a runner."""

from modelkeep.plugins.runners.sklearn.runner import SklearnRunner

__all__ = ["SklearnRunner"]
