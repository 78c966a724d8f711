"""The two models as every peer's server runs them, so that only the servers differ.

What to serve and how comes in the environment: BENCH_WORK (`rows` or `pictures`), BENCH_ARTIFACTS (the folder with both
models), BENCH_PORT, BENCH_WORKERS (processes that run the model), BENCH_BATCH (`1` switches batching off).
"""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORK = os.environ["BENCH_WORK"]
ROWS = WORK == "rows"
ARTIFACTS = Path(os.environ["BENCH_ARTIFACTS"])
PORT = int(os.environ["BENCH_PORT"])
WORKERS = int(os.environ["BENCH_WORKERS"])
BATCH = int(os.environ.get("BENCH_BATCH") or (64 if ROWS else 8))
WAIT_MS = 2 if ROWS else 5
"""How long a peer's batcher waits for more, in milliseconds."""

_MEAN = np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 1, 3)
_SCALE = 1 / np.array([58.395, 57.12, 57.375], np.float32).reshape(1, 1, 3)
_SHORT_SIDE, _SIZE = 256, 224


def forest() -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the forest: rows of 30 numbers in, one probability a class out."""
    import joblib

    model = joblib.load(ARTIFACTS / "forest.joblib")
    run: Callable[[NDArray[np.float64]], NDArray[np.float64]] = model.predict_proba
    return run


def network() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return ResNet-50 on one thread: prepared pictures in, logits out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(ARTIFACTS / "resnet50.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {"input": pictures})[0]


def prepared(picture: bytes) -> NDArray[np.float32]:
    """Return an encoded picture as float32 of shape [3, 224, 224]: the usual recipe of ImageNet models."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    scale = _SHORT_SIDE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - _SIZE) // 2, (image.height - _SIZE) // 2
    pixels = np.asarray(image.crop((left, top, left + _SIZE, top + _SIZE)), np.float32)
    return np.ascontiguousarray(((pixels - _MEAN) * _SCALE).transpose(2, 0, 1))


def top5(logits: NDArray[np.float32]) -> list[list[dict[str, Any]]]:
    """Return the five best classes of each picture with their probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    scores = powers / powers.sum(1, keepdims=True)
    best = np.argsort(-scores, 1)[:, :5]
    return [
        [{"class": int(one), "score": float(row[one])} for one in indices] for row, indices in zip(scores, best, strict=True)
    ]


def classified(run: Callable[[NDArray[np.float32]], NDArray[np.float32]], pictures: Sequence[NDArray[np.float32]]) -> list[Any]:
    """Return the five best classes of each of the prepared pictures."""
    return top5(run(np.stack(pictures)))
