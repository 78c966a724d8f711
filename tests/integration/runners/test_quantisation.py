"""Graphs are rewritten in integers in memory alone, and normalisations are folded into the convolutions before them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fixtures.onnx_networks import convolutional, pictures
from modelkeep.contracts.runner import CannotCompile, CannotLoad
from modelkeep.plugins.runners.onnx.folding import fold_normalisations
from modelkeep.plugins.runners.onnx.quantisation import quantised
from modelkeep.plugins.runners.onnx.runner import proof


def answers(data, rows):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})[0]


def chunks(rows):
    return ({"x": rows[at : at + 4]} for at in range(0, len(rows), 4))


def whole(data, rows, **options):
    return quantised(data, chunks(rows), **{"narrow": True, "spare_ends": False, "threads": 1, **options})


def test_a_folded_normalisation_changes_no_answer():
    model = onnx.load_from_string(convolutional())
    assert fold_normalisations(model.graph) == 1
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    onnx.checker.check_model(model)
    rows = pictures(8)
    np.testing.assert_allclose(answers(model.SerializeToString(), rows), answers(convolutional(), rows), rtol=1e-4, atol=1e-5)


def test_a_convolution_that_something_else_uses_is_left_alone():
    model = onnx.load_from_string(convolutional())
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    assert fold_normalisations(model.graph) == 0


@pytest.mark.parametrize("spare_ends", [False, True])
def test_integers_answer_much_as_floats_and_take_less_room(spare_ends):
    rows = pictures(64)
    data = whole(convolutional(), rows, spare_ends=spare_ends)
    kinds = [node.op_type for node in onnx.load_from_string(data).graph.node]
    assert "DequantizeLinear" in kinds
    weights = {one.name: one.data_type for one in onnx.load_from_string(data).graph.initializer}
    assert (weights.get("w1") == TensorProto.FLOAT) is spare_ends
    wanted, given = answers(convolutional(), rows), answers(data, rows)
    assert 0 < np.abs(given - wanted).mean() / wanted.std() < 0.1


def test_narrow_weights_take_seven_bits():
    for narrow, most in ((True, 64), (False, 127)):
        graph = onnx.load_from_string(whole(convolutional(), pictures(8), narrow=narrow)).graph
        stored = [numpy_helper.to_array(one) for one in graph.initializer if one.data_type == TensorProto.INT8]
        assert 60 <= max(int(np.abs(array.astype(np.int32)).max()) for array in stored) <= most


def test_what_is_in_integers_already_is_not_quantised_again():
    with pytest.raises(CannotCompile, match="as it is"):
        whole(whole(convolutional(), pictures(8)), pictures(8))


def test_numbers_without_an_end_are_refused():
    rows = pictures(8)
    rows[3, 0, 0, 0] = np.inf
    with pytest.raises(CannotCompile, match="not finite"):
        whole(convolutional(), rows)


def test_a_graph_without_weights_has_no_such_form():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(CannotCompile, match="no convolution"):
        whole(model.SerializeToString(), np.zeros((4, 2), np.float32))


class OtherSession:
    """A session that ran away to another provider."""

    def get_providers(self):
        return ["DnnlExecutionProvider", "CPUExecutionProvider"]


def test_another_provider_than_the_one_asked_for_is_no_proof():
    with pytest.raises(CannotLoad, match="runs on DnnlExecutionProvider"):
        proof(OtherSession(), "f32", integers=False)
