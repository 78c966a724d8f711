"""Samples of every form are run, and those that do not fit are refused by name. In real runners."""

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fixtures import artifacts
from fixtures.inspection import accepted, refused
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, Layout

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_ONNX = artifacts.onnx_scores()
GOOD_JOBLIB = artifacts.as_joblib(artifacts.classifier())
FRAME = artifacts.numbers(6)
CSV = FRAME.to_csv(index=False).encode()
UNREADABLE = [b"", b"a,b\n", b"1,2\n3,4\n", b"a,b\n1\n", b"a,a\n1,2\n", b",a\n0,1\n", b"\xff\xfe\x00a", b"{oops"]


async def test_a_sample_with_other_columns_is_refused_and_both_lists_are_named(inspect):
    sample = FRAME.rename(columns={"f1": "wrong"}).to_csv(index=False).encode()
    found = await refused(inspect, GOOD_JOBLIB, "joblib", sample)
    assert found.code is Reason.SAMPLE_MISMATCH
    assert "missing: f1" in found.detail
    assert "not the model's: wrong" in found.detail


@pytest.mark.parametrize("columns", [["f0", "f1"], ["f0", "f1", "f2", "f3", "extra"]])
@pytest.mark.parametrize(
    ("data", "name"),
    [(GOOD_JOBLIB, "joblib"), (artifacts.as_joblib(artifacts.classifier(named=False)), "joblib"), (GOOD_ONNX, "onnx")],
    ids=["named", "unnamed", "onnx"],
)
async def test_a_sample_of_another_width_is_refused(inspect, data, name, columns):
    sample = FRAME.assign(extra=1.0)[columns].to_csv(index=False).encode()
    found = await refused(inspect, data, name, sample)
    assert found.code is Reason.SAMPLE_MISMATCH
    assert "extra" in found.detail or "f2" in found.detail or str(len(columns)) in found.detail


@pytest.mark.parametrize(
    ("sample", "filename"),
    [
        (CSV, "rows.csv"),
        (FRAME.to_csv(index=False, sep=";").encode(), "rows.csv"),
        (b"\xef\xbb\xbf" + CSV, "rows.csv"),
        (FRAME[["f3", "f2", "f1", "f0"]].to_csv(index=False).encode(), "rows.csv"),
        (FRAME.to_json(orient="records").encode(), "rows.json"),
        (FRAME.to_json(orient="columns").encode(), "rows.json"),
        (FRAME.to_json(orient="values").encode(), "rows.json"),
        (b'{"inputs": ' + FRAME.to_json(orient="values").encode() + b"}", "rows.json"),
    ],
    ids=["csv", "semicolons", "byte order mark", "other order", "records", "columns", "rows", "inputs"],
)
async def test_samples_of_every_form_are_run(inspect, sample, filename):
    found = await accepted(inspect, GOOD_JOBLIB, "joblib", sample, filename)
    assert found.report.sample == "given"
    assert found.report.rows_tested == 6
    assert found.signature.inputs[0].columns == ("f0", "f1", "f2", "f3")


async def test_a_table_of_different_types_is_run_with_its_missing_values(inspect):
    sample = artifacts.PEOPLE.to_csv(index=False).encode()
    found = await accepted(inspect, artifacts.as_joblib(artifacts.people_classifier()), "joblib", sample)
    assert found.signature.layout is Layout.TABLE
    kinds = {one.name: (one.dtype, one.nullable) for one in found.signature.inputs}
    assert kinds == {
        "age": (Dtype.FP64, True),
        "city": (Dtype.BYTES, True),
        "zip": (Dtype.BYTES, True),  # digits, which the encoder was fitted on as texts; a missing one is just unknown
        "member": (Dtype.BOOL, False),
    }
    assert found.signature.outputs[0].dtype is Dtype.BYTES
    assert found.signature.outputs[1].classes == ("no", "yes")


async def test_a_text_model_takes_texts(inspect):
    texts = ["good day", "bad day", "good night", "bad luck"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    for sample in (None, b"review\ngood day\nbad luck\n"):
        found = await accepted(inspect, artifacts.as_joblib(model), "joblib", sample)
        assert [(one.dtype, one.shape) for one in found.signature.inputs] == [(Dtype.BYTES, (-1,))]
        assert not found.signature.inputs[0].nullable


async def test_column_names_of_the_sample_name_the_columns_of_a_matrix(inspect):
    found = await accepted(inspect, GOOD_ONNX, "onnx", CSV)
    assert found.signature.inputs[0].columns == ("f0", "f1", "f2", "f3")


async def test_tensors_come_as_json(inspect):
    sample = b'{"ids": [[1, 2, 3], [4, 5, 6]], "bias": [0.5, 1]}'
    found = await accepted(inspect, artifacts.onnx_two_inputs(), "onnx", sample, "s.json")
    assert found.report.rows_tested == 2
    assert (await refused(inspect, artifacts.onnx_two_inputs(), "onnx", CSV)).code is Reason.SAMPLE_MISMATCH


@pytest.mark.parametrize("sample", UNREADABLE)
async def test_an_unreadable_sample_is_refused(inspect, sample):
    assert (await refused(inspect, GOOD_ONNX, "onnx", sample)).code is Reason.SAMPLE_UNREADABLE
