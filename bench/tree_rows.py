"""How long a row takes in boosted trees of XGBoost, LightGBM and CatBoost, and in their compiled forms, as its runner runs it.

    python bench/tree_rows.py

What is printed are medians in microseconds of processor time, which is what passes on an idle machine, from arrays to arrays,
in one thread, the two in turns.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import xgboost

from modelkeep.contracts.runner import Artifact, LoadOptions, Model
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.plugins.runners.trees.catboost import CatboostRunner
from modelkeep.plugins.runners.trees.lightgbm import LightgbmRunner
from modelkeep.plugins.runners.trees.xgboost import XgboostRunner
from table_rows import medians

_TRAINED_ON, _WIDTH = 5000, 30
_COUNTS = (1, 64)


def models() -> "Iterator[tuple[str, Model]]":
    """Yield classifiers of two classes as their runners load them, trained on a matrix of numbers."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(_TRAINED_ON, _WIDTH))
    side = (rows[:, 0] * rows[:, 1] + rows[:, 2] > random.normal(size=_TRAINED_ON)).astype(int)
    options = LoadOptions()
    booster = xgboost.XGBClassifier(n_estimators=100, n_jobs=1).fit(rows, side).get_booster()
    yield "XGBoost, 100 rounds", XgboostRunner().load(Artifact(bytes(booster.save_raw("ubj")), "xgboost-ubj"), options)
    text = lightgbm.LGBMClassifier(n_estimators=100, n_jobs=1, verbosity=-1).fit(rows, side).booster_.model_to_string()
    yield "LightGBM, 100 rounds", LightgbmRunner().load(Artifact(text.encode(), "lightgbm"), options)
    for count in (100, 1000):
        model = catboost.CatBoostClassifier(iterations=count, verbose=0, allow_writing_files=False, thread_count=1)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.cbm")
            model.fit(rows, side).save_model(str(file))
            yield f"CatBoost, {count} rounds", CatboostRunner().load(Artifact(file.read_bytes(), "catboost"), options)


def main() -> None:
    """Print one line a model and number of rows."""
    random = np.random.default_rng(1)
    for name, original in models():
        found = original.compiled()
        signature = original.facts.signature
        compiled = OnnxRunner().load(Artifact(found.data, found.format), LoadOptions(signature=signature))
        for count in _COUNTS:
            rows = {"input": random.normal(size=(count, _WIDTH)).astype(signature.inputs[0].dtype.numpy)}
            before, after = (1000 * one for one in medians((original, compiled), rows))
            print(f"{name}, {count} rows: {before:.0f} us, compiled {after:.0f} us: {before / after:.1f} times as fast")


if __name__ == "__main__":
    main()
