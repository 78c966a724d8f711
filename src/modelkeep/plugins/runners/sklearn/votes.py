"""Trees in ONNX that count and compare as scikit-learn does.

skl2onnx writes thresholds and leaves as FP32. Two things are lost by that, and are put back here: the votes of a forest, which
must be summed exactly for a tie to be a tie; and the thresholds of histogram trees, which scikit-learn compares in FP64. So is
the way that missing values take through trees, which it leaves out.
"""

import math
from typing import Any

from modelkeep.contracts.runner import CannotCompile
from modelkeep.plugins.runners.sklearn import graph

_BINARY = 2


def count_exactly(model: Any, estimator: Any) -> None:  # noqa: ANN401 - an ONNX model; any object
    """Have a forest's trees add up their leaves' own shares, whole numbers where they are pure, and divide once at the end.

    Of two classes ONNX Runtime takes the second where its score is above one half: so the sum is scaled by a power of two,
    which is exact, and moved so that one half is the tie.
    """
    import numpy as np
    from onnx import TensorProto, helper
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    if type(estimator) not in {RandomForestClassifier, ExtraTreesClassifier} or isinstance(estimator.classes_, list):
        return
    (node,) = [one for one in model.graph.node if one.op_type == "TreeEnsembleClassifier"]
    attributes = {one.name: one for one in node.attribute}
    places = (attributes[f"class_{name}"].ints for name in ("treeids", "nodeids", "ids"))
    of_two = len(estimator.classes_) == _BINARY
    leaves = [tree.tree_.value[:, 0, :] for tree in estimator.estimators_]
    values = [counts / counts.sum(axis=1, keepdims=True) for counts in leaves]
    shares = np.array([values[tree][leaf, 1 if of_two else label] for tree, leaf, label in zip(*places, strict=True)])
    votes = len(estimator.estimators_)
    scale = 2.0 ** math.ceil(math.log2(votes)) if of_two else 1.0
    attributes["class_weights"].floats[:] = (shares / scale).astype(np.float32).tolist()
    answer = node.output[1]
    whole = np.array(votes / scale)
    if of_two:
        node.attribute.append(helper.make_attribute("base_values", [0.5 - votes / 2 / scale]))
        half = np.array(0.5)
        steps = [("Sub", half), ("Div", whole), ("Add", half)]
    else:
        steps = [("Div", whole)]
    graph.after(model.graph, answer, ("Cast", TensorProto.DOUBLE), *steps)
    for value in model.graph.output:
        if value.name == answer:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE


def lead_missing(model: Any, estimator: Any) -> None:  # noqa: ANN401 - as above
    """Have missing values take the branch that each node of a tree or forest sends them to."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

    alone = {DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor}
    forests = {ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor}
    if type(estimator) not in alone | forests:
        return
    trees = [estimator] if type(estimator) in alone else estimator.estimators_
    left = [tree.tree_.missing_go_to_left for tree in trees]
    for node in model.graph.node:
        attributes = {one.name: one for one in node.attribute}
        if "nodes_missing_value_tracks_true" in attributes:
            places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True)
            attributes["nodes_missing_value_tracks_true"].ints[:] = [int(left[tree][place]) for tree, place in places]


def in_double(model: Any, estimator: Any) -> None:  # noqa: ANN401 - as above
    """Have histogram trees compare in FP64; raises `CannotCompile` where they do not only compare numbers."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    trees = [tree.nodes for group in estimator._predictors for tree in group]  # noqa: SLF001 - the only place that has them
    if any(nodes["is_categorical"].any() for nodes in trees):
        raise CannotCompile("It has categorical features, which the converter would compare as numbers.")
    for node in list(model.graph.node):
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        attributes = {one.name: one for one in node.attribute}
        places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True)
        rows = [trees[tree][place] for tree, place in places]
        exact = np.array([0.0 if row["is_leaf"] else row["num_threshold"] for row in rows])
        if not np.array_equal(exact.astype(np.float32), np.array(attributes["nodes_values"].floats, dtype=np.float32)):
            raise CannotCompile("The converter's trees are in another order than the model's.")
        node.attribute.remove(attributes["nodes_values"])
        node.attribute.append(helper.make_attribute("nodes_values_as_tensor", numpy_helper.from_array(exact)))
        graph.after(model.graph, node.output[-1], ("Cast", TensorProto.DOUBLE))
    for opset in model.opset_import:
        if opset.domain == "ai.onnx.ml":
            opset.version = 3
