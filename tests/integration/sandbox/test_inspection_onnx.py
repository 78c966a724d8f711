"""ONNX graphs of every kind end as what they are: fit to serve, or refused. In real runners."""

import asyncio
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from fixtures import artifacts
from fixtures.inspection import accepted, refused
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, Layout
from modelkeep.sandbox.lockdown import ENVIRONMENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAME = artifacts.numbers(6)
CSV = FRAME.to_csv(index=False).encode()


@pytest.mark.parametrize(
    "kind",
    [
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING,
    ],
)  # fmt: skip
async def test_onnx_tensors_of_every_datatype_come_back(inspect, kind):
    found = await accepted(inspect, artifacts.onnx_identity(kind), "onnx")
    assert found.signature.inputs[0].dtype is found.signature.outputs[0].dtype


@pytest.mark.parametrize("batch", [1, 4])
async def test_a_graph_of_a_fixed_batch_is_served_in_pieces(inspect, warm_bench, batch):
    data = artifacts.onnx_scores(batch=batch)
    found = await accepted(inspect, data, "onnx", CSV)
    assert found.signature.inputs[0].shape == (-1, 4)
    assert found.report.rows_tested == 6
    rows = FRAME.to_numpy(dtype=np.float32)
    answers = []
    for one in (data, artifacts.onnx_scores()):
        async with warm_bench.start(warm_bench.spec(one, "onnx")) as runner:
            await runner.load()
            answers.append((await runner.run(x=rows))[1]["logits"])
    assert np.allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("sample", [None, CSV, b"f0,f1,f2,f3\n1,2,3,4\n", b"a,b,c,d\n" + b"1,2,3,4\n" * 4])
@pytest.mark.parametrize("operator", ["Softmax", "CumSum", "TopK"])
async def test_a_graph_whose_first_axis_is_no_batch_is_refused(inspect, operator, sample):
    found = await refused(inspect, artifacts.onnx_across_rows(operator, 4), "onnx", sample)
    assert found.code is Reason.SIGNATURE_UNSUPPORTED
    assert "its first axis is no batch" in found.detail


async def test_a_graph_whose_rows_depend_on_each_other_never_shares_a_run(inspect):
    found = await accepted(inspect, artifacts.onnx_across_rows("Softmax", "n"), "onnx", CSV)
    assert not found.report.independent
    assert (await accepted(inspect, artifacts.onnx_scores(), "onnx", CSV)).report.independent


async def test_a_graph_of_a_fixed_batch_with_another_number_of_answers_is_refused(inspect):
    found = await refused(inspect, artifacts.onnx_one_answer_for_all(batch=3), "onnx", b"a,b\n1,2\n")
    assert found.code is Reason.SIGNATURE_UNSUPPORTED
    assert "[1, 1]" in found.detail


@pytest.mark.parametrize("labels", [("ham", "spam"), (-3, 7)])
async def test_a_zipmap_becomes_a_matrix_with_its_classes(inspect, labels):
    found = await accepted(inspect, artifacts.onnx_zipmap(labels), "onnx")
    output = found.signature.outputs[0]
    assert (output.shape, output.classes) == ((-1, 2), tuple(str(one) for one in labels))
    assert found.scores == "output_probability"


async def test_texts_go_through_an_onnx_graph(inspect):
    found = await accepted(inspect, artifacts.onnx_texts(), "onnx", b"text\nyes\nno\n")
    assert found.signature.layout is Layout.TABLE
    assert [one.dtype for one in found.signature.outputs] == [Dtype.BYTES, Dtype.INT64]
    assert not found.signature.inputs[0].nullable


async def test_open_axes_are_tried_until_rows_run(inspect):
    weights = artifacts.constant("w", np.ones((1, 3, 20, 20), dtype=np.float32))
    data = artifacts.onnx_file(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])],
        [artifacts.value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [artifacts.value("y", TensorProto.FLOAT, ["n", 1, 1, 1])],
        [weights],
    )
    found = await accepted(inspect, data, "onnx")
    assert found.signature.inputs[0].shape == (-1, 3, -1, -1)


async def test_a_graph_without_a_batch_axis_is_refused(inspect):
    found = await refused(inspect, artifacts.onnx_identity(TensorProto.FLOAT, []), "onnx")
    assert found.code is Reason.SIGNATURE_UNSUPPORTED
    assert "'x'" in found.detail


async def test_a_graph_of_sequences_is_refused(inspect):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    data = artifacts.onnx_file(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [artifacts.value("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_value_info("y", kind)],
    )
    found = await refused(inspect, data, "onnx")
    assert found.code is Reason.SIGNATURE_UNSUPPORTED
    assert "seq" in found.detail


async def test_an_unknown_operator_is_a_missing_dependency(inspect):
    node = helper.make_node("Fancy", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph(
        [node], "g", [artifacts.value("x", TensorProto.FLOAT, ["n", 2])], [artifacts.value("y", TensorProto.FLOAT, ["n", 2])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    found = await refused(inspect, model.SerializeToString(), "onnx")
    assert found.code is Reason.MISSING_DEPENDENCY
    assert "Fancy" in found.detail


@pytest.mark.parametrize("in_node", [False, True])
async def test_weights_outside_the_file_are_not_read_from_the_machine(inspect, in_node):
    found = await refused(inspect, artifacts.onnx_weights_elsewhere("etc/passwd", in_node=in_node), "onnx")
    assert found.code is Reason.LOAD_FAILED
    assert "another file" in found.detail


async def test_the_framework_alone_would_read_them():
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.stdin.buffer.read()); print('loaded')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT, cwd="/"
    )
    said, _ = await process.communicate(artifacts.onnx_weights_elsewhere("etc/passwd"))
    assert said == b"loaded\n"


@pytest.mark.parametrize("batch", ["n", 1, 3])
async def test_one_number_for_all_rows_is_left_out_of_the_answers_and_said(inspect, warm_bench, batch):
    data = artifacts.onnx_with_a_loss(batch)
    found = await accepted(inspect, data, "onnx", b"a,b\n1,2\n3,4\n")
    assert [one.name for one in found.signature.outputs] == ["y"]
    assert any(warning.startswith("loss: ") and "left out" in warning for warning in found.report.warnings)
    async with warm_bench.start(warm_bench.spec(data, "onnx", signature=found.signature)) as runner:
        await runner.load()
        _result, outputs = await runner.run(x=np.ones((4, 2), np.float32))
    assert {name: array.tolist() for name, array in outputs.items()} == {"y": [[2.0, 2.0]] * 4}


async def test_one_number_that_a_graph_has_a_default_for_is_no_input(inspect, warm_bench):
    data = artifacts.onnx_scaled(default=True)
    found = await accepted(inspect, data, "onnx", b"a,b\n1,2\n")
    assert [one.name for one in found.signature.inputs] == ["x"]
    async with warm_bench.start(warm_bench.spec(data, "onnx", signature=found.signature)) as runner:
        await runner.load()
        assert (await runner.run(x=np.ones((1, 2), np.float32)))[1]["y"].tolist() == [[3.0, 3.0]]
    without = await refused(inspect, artifacts.onnx_scaled(default=False), "onnx", b"a,b\n1,2\n")
    assert (without.code, "'scale' has no batch axis" in without.detail) == (Reason.SIGNATURE_UNSUPPORTED, True)
