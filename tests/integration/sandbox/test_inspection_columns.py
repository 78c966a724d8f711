"""Columns of every kind in real runners: what the signature says of them, and what is refused in words."""

from functools import partial

import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fixtures import artifacts, tables
from fixtures.inspection import accepted, refused
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype

pytestmark = pytest.mark.asyncio(loop_scope="module")


def sample(frame):
    return frame.to_csv(index=False).encode()


async def test_dates_categories_and_wide_integers_are_in_the_signature(inspect):
    frame = tables.TABLE[["since", "city", "account", "member", "age"]]
    columns = make_column_transformer(
        (tables.part("hour"), ["since"]), (tables.ONE_HOT, ["city", "account"]), ("passthrough", ["member", "age"])
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=200)).fit(frame, tables.LABEL)
    found = await accepted(inspect, artifacts.as_joblib(model), "joblib", sample(frame))
    seen = {one.name: one for one in found.signature.inputs}
    assert (seen["since"].dtype, seen["since"].kind, seen["since"].nullable) == (Dtype.BYTES, "datetime", False)
    assert seen["city"].categories == ("Bern", "Lima", "Oslo", "żółw")
    assert (seen["account"].dtype, seen["account"].categories) == (Dtype.INT64, tuple(sorted(tables.WIDE.tolist())))
    assert seen["member"].dtype is Dtype.BOOL
    assert seen["age"].dtype is Dtype.FP64


async def test_dates_that_a_model_was_fitted_on_as_texts_are_texts(inspect):
    frame = tables.TABLE[["since", "age"]].astype({"since": str})
    lengths = FunctionTransformer(partial(pd.DataFrame.map, func=len))  # a date has none
    columns = make_column_transformer((lengths, ["since"]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame, tables.LABEL)
    found = await accepted(inspect, artifacts.as_joblib(model), "joblib", sample(frame))
    assert (found.signature.inputs[0].dtype, found.signature.inputs[0].kind) == (Dtype.BYTES, "")


async def test_wide_integers_with_gaps_are_refused_in_words(inspect):
    model = tables.PIPELINES["wide integers"]()
    frame = tables.TABLE.astype({"account": "Int64"})
    frame.loc[3, "account"] = pd.NA
    found = await refused(inspect, artifacts.as_joblib(model), "joblib", sample(frame))
    assert found.code is Reason.SAMPLE_MISMATCH
    assert "'account' has whole numbers beyond 2^53, and gaps" in found.detail
