"""Runs models that MLflow saved, with the runners of the files that are in them. See `runner.py` for how."""

from modelkeep.plugins.runners.mlflow.runner import MlflowRunner

__all__ = ["MlflowRunner"]
