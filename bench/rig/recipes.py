"""The two ways a picture is prepared: as the peers' servers do it, and by the code of Modelkeep's own runners.

They differ in the resampling only; a network with random weights may still see another best class, so each has its own
right answers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from rig import resnet

IMAGE = {"interpolation": "bilinear", "activation": "softmax"}
"""How Modelkeep is told to prepare pictures: the geometry of the peers' recipe."""


def preparing(name: str, served: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - a module
    """Return what makes a picture the network's input, of shape [1, 3, 224, 224]."""
    if name == "pillow":
        return lambda picture: served.prepared(picture)[None]
    from modelkeep.contracts.signature import Dtype, ImageSpec, Signature, TensorSpec
    from modelkeep.sandbox.imaging import INPUT, Pictures

    tensor = TensorSpec(resnet.INPUT, Dtype.FP32, (-1, 3, resnet.SIZE, resnet.SIZE))
    scores = TensorSpec(resnet.OUTPUT, Dtype.FP32, (-1, resnet.CLASSES))
    pictures = Pictures(ImageSpec(**IMAGE), Signature((tensor,), (scores,)))
    return lambda picture: pictures.tensors({INPUT: np.array([picture], object)})[resnet.INPUT]
