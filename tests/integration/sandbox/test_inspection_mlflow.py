"""MLflow's folders, in real runners: each answers as its own file does alone, or is refused with what to do."""

import importlib
import json
import operator
import sys

import numpy as np
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from fixtures import archives, artifacts, mlflow_folders, networks, trees
from fixtures.inspection import accepted, refused
from fixtures.mlflow_folders import COLUMNS, MATRIX, folder, mlmodel, network, with_example
from fixtures.tables import TABLE
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype
from modelkeep.contracts.snapshot import Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS = artifacts.numbers(6)
SAMPLE = ROWS.to_csv(index=False).encode()
ALONE = {
    "sklearn": ("mlflow-code", "pickle", "model.pkl", SAMPLE),
    "skops": ("mlflow", "skops", "model.skops", SAMPLE),
    "xgboost": ("mlflow", "xgboost-ubj", "model.ubj", None),
    "lightgbm": ("mlflow", "lightgbm", "model.lgb", None),
    "catboost": ("mlflow", "catboost", "model.cb", None),
    "onnx": ("mlflow", "onnx", "model.onnx", None),
}


def random_inputs(signature):
    chance = np.random.default_rng(3)
    return {one.name: (chance.random((6, *one.shape[1:])) * 4).astype(one.dtype.numpy) for one in signature.inputs}


@pytest.mark.parametrize("flavour", ALONE)
async def test_a_folder_answers_as_its_file_alone(inspect, warm_bench, flavour):
    name, inner, file, sample = ALONE[flavour]
    files = folder(flavour, top="model/")
    found = await accepted(inspect, archives.as_zip(files), name, sample)
    alone = await accepted(inspect, files[f"model/{file}"], inner, sample)
    assert found.signature == alone.signature
    assert found.report.details["flavour"] == ("sklearn" if flavour == "skops" else flavour)
    answers = []
    for data, declared in ((archives.as_zip(files), name), (files[f"model/{file}"], inner)):
        async with warm_bench.start(warm_bench.spec(data, declared, signature=found.signature)) as runner:
            await runner.load()
            answers.append((await runner.run(**random_inputs(found.signature)))[1])
    assert answers[0].keys() == answers[1].keys()
    for output in answers[0]:
        np.testing.assert_array_equal(answers[0][output], answers[1][output])


async def test_onnx_with_data_beside_it_is_served(inspect):
    await accepted(inspect, archives.as_tar(mlflow_folders.onnx_with_data(), "w:gz"), "mlflow")


async def test_the_columns_in_mlmodel_stand_in_for_a_sample(inspect):
    found = await accepted(inspect, archives.as_zip(folder("sklearn", COLUMNS)), "mlflow-code")
    assert found.signature.inputs[0].columns == tuple(one["name"] for one in COLUMNS)


async def test_a_matrix_in_mlmodel_stands_in_for_a_sample(inspect):
    found = await accepted(inspect, archives.as_zip(folder("skops", MATRIX)), "mlflow")
    assert (found.signature.inputs[0].shape, found.signature.inputs[0].dtype) == ((-1, 4), Dtype.FP64)


async def test_columns_that_are_not_the_model_s_are_refused(inspect):
    found = await refused(inspect, archives.as_zip(folder("sklearn", COLUMNS[:3])), "mlflow-code")
    assert found.code is Reason.LOAD_FAILED
    assert "not the model's own" in found.detail


async def test_columns_that_cannot_be_served_are_left_and_said(inspect):
    columns = [*COLUMNS[:3], {"type": "binary", "name": "mark", "required": True}]
    found = await accepted(inspect, archives.as_zip(folder("xgboost", columns)), "mlflow")
    assert any("'mark'" in warning and "binary" in warning for warning in found.report.warnings)


TABLE_TYPES = {"age": "double", "city": "string", "since": "datetime"}


def dated():
    """A pipeline over a number, a text and a date."""
    columns = make_column_transformer(
        (StandardScaler(), ["age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city"]),
        (FunctionTransformer(operator.methodcaller("astype", "int64")), ["since"]),
    )
    return make_pipeline(columns, LinearRegression()).fit(
        TABLE[[*TABLE_TYPES]].dropna(), TABLE.dropna(subset=[*TABLE_TYPES]).age
    )


def rows_of_a_table():
    """As MLflow writes `input_example.json` of a data frame."""
    rows = TABLE[[*TABLE_TYPES]].dropna().head(3)
    return json.loads(rows.to_json(orient="split", index=False, date_format="iso"))


async def test_columns_of_dates_in_mlmodel_are_dates(inspect):
    columns = [{"type": kind, "name": name, "required": True} for name, kind in TABLE_TYPES.items()]
    found = await accepted(inspect, archives.as_zip(mlflow_folders.pipeline(dated(), columns)), "mlflow-code")
    assert [(one.name, one.dtype, one.kind) for one in found.signature.inputs] == [
        ("age", Dtype.FP64, ""),
        ("city", Dtype.BYTES, ""),
        ("since", Dtype.BYTES, "datetime"),
    ]
    assert not any("MLmodel" in one for one in found.report.warnings)


@pytest.mark.parametrize("content", ["pickle", "joblib"])
async def test_a_pickle_in_a_folder_of_data_is_refused_before_it_is_opened(inspect, content):
    make = artifacts.as_pickle if content == "pickle" else artifacts.as_joblib
    files = folder("skops") | {"model.skops": make(artifacts.classifier())}
    found = await refused(inspect, archives.as_zip(files), "mlflow")
    assert found.code is Reason.MISMATCH
    assert "mlflow-code" in found.detail


async def test_a_flavour_with_another_s_content_is_refused(inspect):
    files = folder("xgboost") | {"model.ubj": trees.lightgbm_file()}
    assert (await refused(inspect, archives.as_zip(files), "mlflow")).code is Reason.MISMATCH


async def test_flavours_that_are_not_served_are_named(inspect):
    files = {"MLmodel": mlmodel({"spark": {"model_data": "sparkml"}}), "sparkml/part": b""}
    found = await refused(inspect, archives.as_zip(files), "mlflow")
    assert "python_function, spark" in found.detail
    assert "sklearn" in found.detail


LAUGHS = b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nflavors: {}\n"


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS, b"flavors: !!python/object/apply:os.system ['true']\n", b"flavors: [", b"\xff\xfe", b"- a\n", b"flavors: 3\n",
        b"flavors: {onnx: 3}\n", b"flavors: " + b"[" * 5000 + b"]" * 5000, b"flavors: {}\n#" + b"x" * (2 << 20), b"",
        b"flavors: {}\nsignature: {inputs: '[{]'}\n", b"flavors: {}\nsignature: {inputs: '[3]'}\n",
        b"flavors: {}\nsignature: {inputs: '" + b"[" * 100_000 + b"'}\n",
    ],
)  # fmt: skip
async def test_a_description_that_is_no_plain_one_is_refused(inspect, text):
    found = await refused(inspect, archives.as_zip(folder("onnx") | {"MLmodel": text}), "mlflow")
    assert found.code is Reason.LOAD_FAILED
    assert "MLmodel" in found.detail


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "missing.onnx"])
async def test_a_file_is_looked_for_in_the_folder_alone(inspect, path):
    files = folder("onnx") | {"MLmodel": mlmodel({"onnx": {"data": path}})}
    assert "not in the folder" in (await refused(inspect, archives.as_zip(files), "mlflow")).detail


# ---- examples

NAMES = [one["name"] for one in COLUMNS]
ROWS_OF_EXAMPLE = [[1.5, 2.0, 0.5, 1.0], [0.5, 1.0, 2.5, 3.0], [9.5, 1.0, 2.5, 3.0]]
SPLIT = {"columns": NAMES, "data": ROWS_OF_EXAMPLE}
EXAMPLES = {
    "a table": (COLUMNS, SPLIT, None),
    "a table with an index": (COLUMNS, {**SPLIT, "index": [0, 1, 2]}, None),
    "columns in another order": (
        COLUMNS,
        {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS_OF_EXAMPLE]},
        None,
    ),
    "an array": (MATRIX, ROWS_OF_EXAMPLE, None),
    "a table for serving": (COLUMNS, None, {"dataframe_split": SPLIT}),
    "an array for serving": (MATRIX, None, {"inputs": ROWS_OF_EXAMPLE}),
    "only the second can be read": (MATRIX, b"{", {"inputs": ROWS_OF_EXAMPLE}),
}


@pytest.mark.parametrize("what", EXAMPLES)
async def test_the_example_of_the_folder_is_the_sample_where_none_was_given(inspect, what):
    inputs, example, serving = EXAMPLES[what]
    files = with_example(folder("skops"), inputs, example, serving)
    found = await accepted(inspect, archives.as_zip(files), "mlflow")
    assert (found.report.sample, found.report.rows_tested, found.report.warnings) == ("brought", 3, ())
    (matrix,) = found.signature.inputs
    assert matrix.columns == (() if inputs is MATRIX else tuple(NAMES))


async def test_one_row_in_an_object_is_one_row(inspect):
    files = with_example(folder("sklearn"), COLUMNS, dict(zip(NAMES, ROWS_OF_EXAMPLE[0], strict=True)))
    found = await accepted(inspect, archives.as_zip(files), "mlflow-code")
    assert (found.report.sample, found.report.rows_tested) == ("brought", 1)


async def test_a_sample_of_the_uploader_s_wins(inspect):
    files = with_example(folder("skops"), COLUMNS, SPLIT)
    found = await accepted(inspect, archives.as_zip(files), "mlflow", SAMPLE)
    assert (found.report.sample, found.report.rows_tested) == ("given", len(ROWS))


async def test_without_an_example_rows_are_made_up(inspect):
    found = await accepted(inspect, archives.as_zip(folder("skops", MATRIX)), "mlflow")
    assert (found.report.sample, found.report.warnings) == ("made up", ())


@pytest.mark.parametrize(
    "example",
    [
        b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"3", b"[]", b"{}", b"[[1, 2], [3]]", b'[["a", "b", "c", "d"]]',
        b'{"columns": ["a"], "data": [[1, 2]]}', b'{"columns": ["f0", "f0"], "data": [[1, 2]]}',
        b'{"columns": 3, "data": [[1]]}',
        b'{"data": {}}', b'{"columns": ["f0", "f1"], "data": [[1.0, 2.0]]}', b'{"inputs": {"inputs": {"inputs": 3}}}',
        b"[[1, 2, 3, 1e999]]", b" " * (2 << 20) + b"[[1, 2, 3, 4]]",
    ],
)  # fmt: skip
async def test_a_damaged_example_is_left_out_and_said(inspect, example):
    files = with_example(folder("skops"), COLUMNS, example)
    found = await accepted(inspect, archives.as_zip(files), "mlflow")
    assert found.report.sample == "made up"
    (warning,) = found.report.warnings
    assert "example" in warning
    assert "not used" in warning


async def test_where_mlmodel_has_no_columns_those_of_the_example_are_taken(inspect):
    files = with_example(mlflow_folders.pipeline(dated()), None, rows_of_a_table())
    found = await accepted(inspect, archives.as_zip(files), "mlflow-code")
    assert (found.report.sample, found.report.rows_tested) == ("brought", 3)
    assert [(one.name, one.kind) for one in found.signature.inputs] == [("age", ""), ("city", ""), ("since", "datetime")]


async def test_without_columns_and_a_usable_example_a_sample_is_asked_for(inspect):
    plain = mlflow_folders.pipeline(dated())
    found = await refused(inspect, archives.as_zip(plain), "mlflow-code")
    assert found.code is Reason.SAMPLE_NEEDED
    found = await refused(inspect, archives.as_zip(with_example(plain, None, b"{")), "mlflow-code")
    assert found.code is Reason.SAMPLE_NEEDED
    assert "example in input_example.json is not used" in found.detail
    found = await refused(
        inspect, archives.as_zip(with_example(plain, None, {"columns": ["age"], "data": [[1.5]]})), "mlflow-code"
    )
    assert found.code is Reason.SAMPLE_MISMATCH


async def test_parameters_beside_an_example_for_serving_are_no_part_of_the_rows(inspect):
    files = with_example(folder("skops"), COLUMNS, None, {"dataframe_split": SPLIT, "params": {"temperature": 0.5}})
    found = await accepted(inspect, archives.as_zip(files), "mlflow")
    assert (found.report.sample, found.report.rows_tested, found.report.warnings) == ("brought", 3, ())


async def test_a_scripted_network_takes_the_shape_of_the_example(inspect):
    files = with_example(network("model.pth", networks.scripted(DENSE)), None, [[0.5, 1.5, 2.5, 3.5]])
    found = await accepted(inspect, archives.as_zip(files), "mlflow-code", limits=NETWORK)
    assert found.report.sample == "brought"
    assert found.signature.inputs[0].shape == (-1, 4)


# ---- Python


CODE = {
    "shop/__init__.py": "from shop.scaling import doubled\n",
    "shop/scaling.py": "from rules.factors import FACTOR\n\n\ndef doubled(rows):\n    return rows * FACTOR\n",
    "rules/factors.py": "FACTOR = 2.0\n",
}


@pytest.fixture
def doubling(tmp_path, monkeypatch):
    """A folder with a pipeline that calls a function of a package of its author's, which is not there any more."""
    for name, text in CODE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with monkeypatch.context() as training:
        training.syspath_prepend(tmp_path)
        doubled = importlib.import_module("shop").doubled
        rows = artifacts.numbers(20)
        model = make_pipeline(FunctionTransformer(doubled), LinearRegression()).fit(rows, rows.f0)
        files = mlflow_folders.pipeline(model, COLUMNS)
    for name in ("shop", "shop.scaling", "rules", "rules.factors"):
        del sys.modules[name]
    return files


async def test_python_that_was_logged_with_the_model_is_imported(inspect, doubling):
    found = await refused(inspect, archives.as_zip(doubling), "mlflow-code")
    assert found.code is Reason.MISSING_DEPENDENCY
    await accepted(inspect, archives.as_zip(mlflow_folders.with_code(doubling, CODE)), "mlflow-code")


async def test_python_in_a_folder_of_data_is_never_imported(inspect):
    files = mlflow_folders.with_code(folder("skops", COLUMNS), {"sklearn_extra.py": "raise SystemExit('imported')\n"})
    await accepted(inspect, archives.as_zip(files), "mlflow")


async def test_a_python_model_is_refused_with_what_to_push_instead(inspect):
    found = await refused(inspect, archives.as_zip(mlflow_folders.python_model()), "mlflow-code")
    assert "python_model.pkl" in found.detail
    assert "format python" in found.detail
    assert "locked requirements.txt" in found.detail
    wheel = "shop-1.0-py3-none-any.whl"
    found = await refused(inspect, archives.as_zip(mlflow_folders.python_model(wheel)), "mlflow-code")
    assert wheel in found.detail
    assert "artifacts/" in found.detail


async def test_an_example_that_the_model_cannot_answer_is_left_out_and_said(inspect):
    files = network("model.pth", networks.scripted(Picky()), MATRIX)
    files = with_example(files, MATRIX, [[-1.0, 1.0, 1.0, 1.0]])
    found = await accepted(inspect, archives.as_zip(files), "mlflow-code", limits=NETWORK)
    assert found.report.sample == "made up"
    assert any("not used" in one for one in found.report.warnings), found.report.warnings
    again = with_example(files, MATRIX, [[5.0, 1.0, 1.0, 1.0]])
    found = await accepted(inspect, archives.as_zip(again), "mlflow-code", limits=NETWORK)
    assert found.report.sample == "brought"


class Picky(torch.nn.Module):
    """Will not have minus one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x == -1.0).any()):
            raise ValueError("no minus one")
        return x * 2


# ---- PyTorch

NETWORK = Limits(memory_mb=2048, load_timeout_s=60, run_timeout_s=20)
DENSE = networks.dense()
NETWORKS = {
    "a program": ("model.pt2", networks.exported(DENSE, torch.ones(2, 4), shapes=({0: torch.export.Dim("batch")},))),
    "traced": ("model.pth", networks.traced(DENSE, torch.ones(2, 4))),
    "scripted": ("model.pth", networks.scripted(DENSE)),
}


@pytest.mark.parametrize("what", NETWORKS)
async def test_a_network_of_pytorch_answers_what_it_answers_here(inspect, warm_bench, what):
    files = network(*NETWORKS[what], [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}])
    data = archives.as_zip(files)
    found = await accepted(inspect, data, "mlflow-code", limits=NETWORK)
    assert found.report.details["flavour"] == "pytorch"
    rows = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    with torch.inference_mode():
        expected = DENSE(torch.from_numpy(rows)).numpy()
    async with warm_bench.start(warm_bench.spec(data, "mlflow-code", limits=NETWORK, signature=found.signature)) as runner:
        await runner.load()
        _result, outputs = await runner.run(**{found.signature.inputs[0].name: rows})
        np.testing.assert_array_equal(outputs["output"], expected)


async def test_a_pickled_network_is_refused_with_how_to_save_it(inspect):
    files = network("model.pth", networks.saved(DENSE))
    found = await refused(inspect, archives.as_zip(files), "mlflow-code", limits=NETWORK)
    assert found.code is Reason.UNRECOGNISED
    assert "pickled Sequential" in found.detail
    assert "serialization_format='pt2'" in found.detail


async def test_a_network_in_a_folder_of_data_is_refused(inspect):
    found = await refused(inspect, archives.as_zip(network(*NETWORKS["traced"])), "mlflow", limits=NETWORK)
    assert found.code is Reason.MISMATCH


async def test_a_folder_without_its_network_is_refused(inspect):
    found = await refused(inspect, archives.as_zip(network("other.pth", b"x")), "mlflow-code", limits=NETWORK)
    assert "data/model.pt2" in found.detail
