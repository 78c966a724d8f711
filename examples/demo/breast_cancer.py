"""Fits the tabular demo model: is a tumour malignant or benign, from thirty measurements of cell nuclei?

The data comes with scikit-learn (Wisconsin Diagnostic Breast Cancer, 569 patients). The pipeline is fitted on a DataFrame, so
the columns keep their names, and fills gaps with the column's median, so a missing measurement is no error.
"""

from typing import Any

TREES = 100
SAMPLE_ROWS = 20
SEED = 0


def load() -> Any:  # noqa: ANN401 - a pandas DataFrame, and pandas has no types here
    """Return the data as a DataFrame: thirty columns of numbers and `diagnosis`, the answer in words."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    return data.data.assign(diagnosis=data.target_names[data.target])


def fit() -> tuple[Any, Any]:
    """Return the fitted pipeline and sample rows, taken from the patients that it was not fitted on."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline

    table = load()
    train, test = train_test_split(table, test_size=0.25, random_state=SEED, stratify=table["diagnosis"])
    forest = RandomForestClassifier(n_estimators=TREES, random_state=SEED, n_jobs=1)
    pipeline = make_pipeline(SimpleImputer(strategy="median"), forest)
    pipeline.fit(train.drop(columns="diagnosis"), train["diagnosis"])
    return pipeline, test.drop(columns="diagnosis").head(SAMPLE_ROWS)
