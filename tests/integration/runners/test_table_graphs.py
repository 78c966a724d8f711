"""What is written node by node for tables computes what scikit-learn does, for any text and any number."""

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler, TargetEncoder

from modelkeep.contracts.missing import MARK, PROPERTY
from modelkeep.contracts.runner import Artifact, CannotCompile, LoadOptions
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.plugins.runners.sklearn.conversion import compiled
from modelkeep.plugins.runners.sklearn.rows import feeder

pytestmark = pytest.mark.filterwarnings("ignore")

KNOWN = ["a", "żółw", "", MARK, "NA", "x\0y"]
TRAINED = pd.DataFrame(
    {
        "text": [*KNOWN, "a", np.nan],
        "other": pd.Series(["p", "q", None, "p", "q", "p", "q", "p"], dtype=object),
        "number": [1.5, -2.0, np.nan, 0.0, 1e9, 3.0, 4.0, 5.0],
        "code": [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0],
        "flag": [True, False, True, False, True, False, True, False],
        "account": [2**53 + 1, 2**53 + 3, 5, 6, 7, 8, 9, 10],
    }
)
INPUTS = (
    TensorSpec("text", Dtype.BYTES, (-1,), nullable=True),
    TensorSpec("other", Dtype.BYTES, (-1,), nullable=True),
    TensorSpec("number", Dtype.FP64, (-1,), nullable=True),
    TensorSpec("code", Dtype.FP64, (-1,), nullable=True),
    TensorSpec("flag", Dtype.BOOL, (-1,)),
    TensorSpec("account", Dtype.INT64, (-1,)),
)
SIGNATURE = Signature(INPUTS, (TensorSpec("values", Dtype.FP64, (-1, -1)),))
IGNORING = OneHotEncoder(handle_unknown="ignore")
CODES = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
MODEL = make_column_transformer(
    (IGNORING, ["text", "other", "code"]),
    (CODES, ["text", "account", "flag"]),
    (TargetEncoder(), ["other"]),
    (make_pipeline(SimpleImputer(strategy="most_frequent"), CODES), ["text"]),
    (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["number", "code"]),
    (RobustScaler(), ["number"]),
    (MinMaxScaler(clip=True), ["code"]),
    ("passthrough", ["flag"]),
).fit(pd.concat([TRAINED, TRAINED]), [1, 0, 1, 0, 1, 1, 0, 0] * 2)
TEXTS = st.sampled_from(KNOWN) | st.text(st.characters(exclude_categories=["Cs"])) | st.none()
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, 2.0, 3.0, float("nan")])
ROWS = st.tuples(TEXTS, TEXTS | st.sampled_from("pq"), NUMBERS, NUMBERS, st.booleans(), st.integers(-(2**63), 2**63 - 1))


def in_onnx(model, signature=SIGNATURE):
    found = compiled(model, signature)
    return OnnxRunner().load(Artifact(found.data, found.format), LoadOptions(signature=signature))


@pytest.fixture(scope="module")
def graph():
    return in_onnx(MODEL)


def columns(rows):
    found = {}
    for spec, cells in zip(INPUTS, zip(*rows, strict=True), strict=True):
        found[spec.name] = np.empty(len(rows), dtype=spec.dtype.numpy)
        found[spec.name][:] = cells
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_any_rows_are_transformed_to_the_last_bit_as_scikit_learn_does(graph, rows):
    inputs = columns(rows)
    wanted = MODEL.transform(feeder(MODEL, SIGNATURE)(inputs))
    wanted = np.asarray(wanted.toarray() if hasattr(wanted, "toarray") else wanted, dtype=float)
    given_ = graph.run(inputs)["values"]
    assert np.array_equal(wanted, given_, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_an_encoder_that_refuses_a_text_is_a_graph_that_refuses_it(text):
    assert refused_alike(text)


STRICT = make_column_transformer((OneHotEncoder(), ["text"]), remainder="drop").fit(TRAINED[["text"]])
STRICT_SIGNATURE = Signature(INPUTS[:1], SIGNATURE.outputs)
STRICT_GRAPH = []


def refused_alike(text):
    """Ask both about one text; whether both refuse it, or answer the same."""
    STRICT_GRAPH[:] = STRICT_GRAPH or [in_onnx(STRICT, STRICT_SIGNATURE)]
    inputs = {"text": np.array([text], dtype=object)}
    try:
        wanted = np.asarray(STRICT.transform(feeder(STRICT, STRICT_SIGNATURE)(inputs)).toarray())
    except ValueError:
        with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*'text' that is not known"):
            STRICT_GRAPH[0].run(inputs)
        return True
    return np.array_equal(STRICT_GRAPH[0].run(inputs)["values"], wanted)


def test_too_many_categories_are_not_looked_up():
    frame = pd.DataFrame({"text": [f"t{at}" for at in range(1200)]})
    model = make_column_transformer((OneHotEncoder(), ["text"])).fit(frame)
    with pytest.raises(CannotCompile, match="The column 'text' has 1200 categories"):
        compiled(model, STRICT_SIGNATURE)


def test_nothing_but_the_agreed_mark_makes_a_graph_take_missing_texts():
    inputs = {"text": np.array([None], dtype=object)}
    for value, taken in ((MARK, True), ("", False), ("?", False)):
        text = helper.make_tensor_value_info("text", TensorProto.STRING, [None])
        out = helper.make_tensor_value_info("out", TensorProto.STRING, [None])
        body = helper.make_graph([helper.make_node("Identity", ["text"], ["out"])], "g", [text], [out])
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.helper.set_model_props(model, {PROPERTY: value})
        runner = OnnxRunner().load(Artifact(model.SerializeToString(), "onnx"), LoadOptions())
        if taken:
            assert runner.run(inputs)["out"].tolist() == [MARK]
        else:
            with pytest.raises(ValueError, match="no missing texts"):
                runner.run(inputs)
