"""The two models that every server answers with, what they are asked, and the answers that are right.

Rows: a scikit-learn forest of 100 trees on the breast-cancer data, one row of 30 numbers a request, probabilities out.
Pictures: ResNet-50 in float32 with random weights, a photograph of 640x427 as JPEG a request, the five best classes out.
"""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rig.paths import ARTIFACTS, PEERS

ROWS, PICTURES = "rows", "pictures"
COUNT = {ROWS: 64, PICTURES: 4}
"""How many different requests go round."""


@dataclass(frozen=True)
class Question:
    """One thing to ask: a row of numbers or an encoded picture; and what is right: probabilities, or the best class."""

    row: tuple[float, ...] = ()
    picture: bytes = b""
    right: tuple[float, ...] = ()


def questions(work: str, recipe: str = "pillow") -> list[Question]:
    """Return what is asked, building models and answers where they are missing. `recipe`: how pictures are prepared."""
    build()
    if work == ROWS:
        rows = json.loads((ARTIFACTS / "rows.json").read_text())
        return [Question(row=tuple(one["row"]), right=tuple(one["right"])) for one in rows]
    right = json.loads((ARTIFACTS / "pictures.json").read_text())[recipe]
    return [Question(picture=(ARTIFACTS / f"{number}.jpg").read_bytes(), right=(best,)) for number, best in enumerate(right)]


def model(work: str) -> Path:
    """Return the file of the model."""
    return ARTIFACTS / ("forest.joblib" if work == ROWS else "resnet50.onnx")


def build() -> None:
    """Write what is missing of both models."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    if not (ARTIFACTS / "rows.json").exists():
        _forest()
    if not (ARTIFACTS / "pictures.json").exists():
        _pictures()


def _forest() -> None:
    import joblib
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    data = load_breast_cancer()
    known, asked = data.data[:400].astype(np.float64), data.data[400 : 400 + COUNT[ROWS]].astype(np.float64)
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(known, data.target[:400])
    joblib.dump(forest, ARTIFACTS / "forest.joblib")
    right = forest.predict_proba(asked).tolist()
    _write("rows.json", [{"row": row, "right": one} for row, one in zip(asked.tolist(), right, strict=True)])


def _pictures() -> None:
    from PIL import Image, ImageOps
    from sklearn.datasets import load_sample_images

    from rig import recipes, resnet

    images = [Image.fromarray(array) for array in load_sample_images().images]
    images += [ImageOps.mirror(image) for image in images]
    encoded = []
    for number, image in enumerate(images):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
        (ARTIFACTS / f"{number}.jpg").write_bytes(file.getvalue())
    served = as_peers_run_it(PICTURES)
    tensors = np.stack([served.prepared(picture) for picture in encoded])
    resnet.write(ARTIFACTS / "resnet50.onnx", tensors)
    network = served.network()
    right = {}
    for recipe in ("pillow", "modelkeep"):
        prepare = recipes.preparing(recipe, served)
        right[recipe] = [served.top5(network(prepare(picture)))[0][0]["class"] for picture in encoded]
    _write("pictures.json", right)


def as_peers_run_it(work: str) -> Any:  # noqa: ANN401 - a module
    """Return the module that the peers' servers run the models with, set up for this process."""
    import importlib
    import sys

    os.environ |= {"BENCH_WORK": work, "BENCH_ARTIFACTS": str(ARTIFACTS), "BENCH_PORT": "0", "BENCH_WORKERS": "1"}
    if (folder := str(PEERS / "model")) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("served")


def _write(name: str, value: object) -> None:
    """Write at once and whole: the file says that what belongs to it is there."""
    draft = ARTIFACTS / f".{name}"
    draft.write_text(json.dumps(value))
    draft.rename(ARTIFACTS / name)
