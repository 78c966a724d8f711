"""MLflow's folders, in real runners: each answers as its own file does alone, or is refused with what to do."""

import numpy as np
import pytest

from fixtures import archives, artifacts, mlflow_folders, trees
from fixtures.inspection import accepted, refused
from fixtures.mlflow_folders import COLUMNS, MATRIX, folder, mlmodel
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype

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
    columns = [*COLUMNS[:3], {"type": "datetime", "name": "day", "required": True}]
    found = await accepted(inspect, archives.as_zip(folder("xgboost", columns)), "mlflow")
    assert any("'day'" in warning and "datetime" in warning for warning in found.report.warnings)


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
