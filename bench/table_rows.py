"""How long one row of a table takes in a scikit-learn pipeline and in its compiled form, each run as its runner runs it.

    python bench/table_rows.py

The pipeline fills gaps, scales numbers and encodes texts by a ColumnTransformer, before histogram boosting or a forest. What is
printed are medians in milliseconds of processor time, which is what passes on an idle machine, from arrays to arrays, in one
thread, the two in turns.
"""

import io
import statistics
import time
import warnings
from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from modelkeep.contracts.runner import Artifact, Column, LoadOptions, Model
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.plugins.runners.sklearn import SklearnRunner

_TRAINED_ON = 5000
_TURNS, _RUNS = 10, 10
_COUNTS = (1, 64)
_NUMBERS = ("age", "income", "balance", "visits", "distance", "hours")
_TEXTS = ("city", "plan", "channel", "device")


def trained(last: Any) -> tuple[Any, pd.DataFrame]:  # noqa: ANN401 - any estimator
    """Return a pipeline with this last step, fitted on a table of six numbers with gaps and four texts, and the table."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(50, 20, _TRAINED_ON) for name in _NUMBERS})
    frame = frame.mask(random.random(frame.shape) < 0.05)  # noqa: PLR2004 - one value in twenty is missing
    for at, name in enumerate(_TEXTS):
        frame[name] = [f"{name} {number}" for number in random.integers(0, 4 + 6 * at, _TRAINED_ON)]
    side = frame["age"].fillna(50) + frame["visits"].fillna(50) > random.normal(100, 10, _TRAINED_ON)
    encode = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(_NUMBERS)),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(_TEXTS[:2])),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), list(_TEXTS[2:])),
    )
    return make_pipeline(encode, last).fit(frame, np.where(side, "stays", "leaves")), frame


def both(model: Any, frame: pd.DataFrame) -> tuple[Model, Model]:  # noqa: ANN401 - any estimator
    """Return the pipeline as its runner loads it, and its compiled form as the runner of that does."""
    file = io.BytesIO()
    joblib.dump(model, file)
    sample = tuple(Column(name, Dtype.BYTES if name in _TEXTS else Dtype.FP64, name in _NUMBERS) for name in frame)
    original = SklearnRunner().load(Artifact(file.getvalue(), "joblib"), LoadOptions(sample=sample))
    found = original.compiled()
    options = LoadOptions(signature=original.facts.signature)
    return original, OnnxRunner().load(Artifact(found.data, found.format), options)


def medians(models: tuple[Model, Model], rows: Mapping[str, np.ndarray]) -> list[float]:
    """Return the median milliseconds of a run of each, in turns."""
    taken: list[list[float]] = [[], []]
    for _turn in range(_TURNS):
        for model, times in zip(models, taken, strict=True):
            for _run in range(_RUNS):
                began = time.thread_time()
                model.run(rows)
                times.append((time.thread_time() - began) * 1000)
    return [statistics.median(times) for times in taken]


def main() -> None:
    """Print one line a pipeline and number of rows."""
    warnings.simplefilter("ignore")
    threadpool_limits(1)  # as a runner's threads are, unless more were granted
    lasts = {"histogram boosting": HistGradientBoostingClassifier(random_state=0), "forest": RandomForestClassifier(100)}
    for name, last in lasts.items():
        model, frame = trained(last)
        models = both(model, frame)
        for count in _COUNTS:
            rows = {column: frame[column].to_numpy(dtype=object if column in _TEXTS else float)[:count] for column in frame}
            before, after = medians(models, rows)
            print(f"{name}, {count} rows: {before:.2f} ms, compiled {after:.3f} ms: {before / after:.0f} times as fast")


if __name__ == "__main__":
    main()
