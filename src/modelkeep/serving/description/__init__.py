"""What the predict door says of itself in OpenAPI: one module for each dialect, and one for health and metrics.

A dialect that is added to the door adds its module here: a `describe()` that returns a `Description`. Servers never import
this; the control plane's process, which serves the document, asks for it once.
"""

from collections.abc import Callable
from typing import Final

from modelkeep.infra.description import Description
from modelkeep.serving.description import mlflow, native, open_inference, own, sagemaker, tf_serving, vertex

_PARTS: Final[tuple[Callable[[], Description], ...]] = (
    native.describe,
    open_inference.describe,
    tf_serving.describe,
    mlflow.describe,
    sagemaker.describe,
    own.describe,
)


def door() -> tuple[Description, ...]:
    """Return what the door answers by itself, dialect by dialect; Vertex AI's paths are those of others."""
    return tuple(vertex.beside(describe()) for describe in _PARTS)
