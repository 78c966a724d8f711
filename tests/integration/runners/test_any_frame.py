"""Whatever columns a frame has, a model fitted on it is answered as in its process, by every way in, or refused in words."""

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fixtures import artifacts
from fixtures.frames import bodies, expected, same, samples
from fixtures.loading import load
from modelkeep.contracts.runner import CannotLoad
from modelkeep.worker.samples import RefusedError, fit, read_sample

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = 48
KINDS = ("number", "text", "category", "codes", "boolean", "nullable", "whole", "gappy", "date")
LABEL = np.tile([0, 1, 1, 0, 1, 0], ROWS // 6)


def column(kind: str, random: np.random.Generator, *, gaps: bool) -> pd.Series:
    lacking = (random.random(ROWS) < 0.2) & gaps
    lacking[0] = False

    def some(values: list[object]) -> pd.Series:
        return pd.Series(random.choice(np.array(values, dtype=object), ROWS), dtype=object)

    made = {
        "number": lambda: pd.Series(random.normal(size=ROWS)).mask(lacking),
        "text": lambda: some(["red", "blue", "żółw"]).mask(lacking, None).astype(object),
        "category": lambda: some(["x", "a", "007"]).mask(lacking).astype(pd.CategoricalDtype(["x", "a", "007"])),
        "codes": lambda: some([7, 3, 5]).mask(lacking).astype(pd.CategoricalDtype([7, 3, 5])),
        "boolean": lambda: some([True, False]).mask(lacking, None) if gaps else some([True, False]).astype(bool),
        "nullable": lambda: some([True, False]).astype("boolean").mask(lacking),
        "whole": lambda: pd.Series(random.integers(0, 9, ROWS)),
        "gappy": lambda: pd.Series(random.integers(0, 9, ROWS), dtype="Int64").mask(lacking),
        "date": lambda: pd.Series(pd.Timestamp("2026-05-17T08:30") + pd.to_timedelta(random.integers(0, 99, ROWS), "h")).mask(
            lacking
        ),
    }
    return made[kind]()


def encoders(frame: pd.DataFrame) -> object:
    texts = make_column_selector(dtype_include=["object", "category", "str", "bool"])
    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), texts),
            (SimpleImputer(keep_empty_features=True), make_column_selector(dtype_include="number")),
        ),
        LogisticRegression(),
    ).fit(frame, LABEL)


LIBRARIES = {
    "encoders": encoders,
    "LightGBM": lambda frame: lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=2, verbosity=-1, n_jobs=1).fit(
        frame, LABEL
    ),
    "XGBoost": lambda frame: xgboost.XGBClassifier(n_estimators=3, enable_categorical=True, n_jobs=1).fit(frame, LABEL),
    "histogram trees": lambda frame: HistGradientBoostingClassifier(
        max_iter=3, min_samples_leaf=2, categorical_features="from_dtype"
    ).fit(frame, LABEL),
    "CatBoost": lambda frame: catboost.CatBoostClassifier(
        iterations=3, verbose=0, thread_count=1, allow_writing_files=False, cat_features=named(frame)
    ).fit(frame, LABEL),
}


def named(frame: pd.DataFrame) -> list[str]:
    """The columns that CatBoost is to compare by name: those that are no numbers."""
    return [name for name in frame if str(frame[name].dtype) in {"object", "category", "str"}]


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(
    kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), min_size=1, max_size=4),
    seed=st.integers(0, 9),
    way=st.sampled_from(["CSV", "JSON"]),
)
def test_a_frame_of_any_columns_is_answered_as_in_process_or_refused_in_words(library, kinds, seed, way):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({f"{kind}_{at}": column(kind, random, gaps=gaps) for at, (kind, gaps) in enumerate(kinds)})
    frame = frame.assign(size=random.normal(size=ROWS))
    try:
        model = LIBRARIES[library](frame)
        wanted = expected(model, frame)
    except (ValueError, TypeError, catboost.CatBoostError, xgboost.core.XGBoostError):
        model = None
    assume(model is not None)  # the library itself does not take some frames
    words = ""
    try:
        sample = read_sample(samples(frame)[way], "sample", picture=False)
        served = load(artifacts.as_joblib(model), "joblib", sample.columns)
        rows = fit(sample, served.facts.signature)
    except (CannotLoad, RefusedError) as refusal:
        words = str(refusal)
    if words:
        assert "column" in words or "inputs" in words
        return
    same(wanted, served.run(rows))
    for read, body in bodies(frame):
        same(wanted, served.run(read(served.facts.signature, body)))
