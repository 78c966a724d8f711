"""ResNet-50 (v1.5: the stride sits on the 3x3) as an ONNX graph with random weights; no torch.

Random weights cost what trained ones cost, as long as the numbers stay in an ordinary range. So the batch normalisations get
statistics: the same network is built once with normalisation by the statistics of its own batch, run on photographs, and
what it saw is written into the graph that is served. The last layer is centred on the photographs' features, so that
different pictures have different best classes, by a clear margin.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "input", "logits"
SIZE, CLASSES = 224, 1000
_OPSET, _IR_VERSION = 17, 9  # old enough for every ONNX Runtime of the last years
_EPSILON = 1e-5
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # channels, blocks, stride of the first
_EXPANSION = 4

_FEATURES = "flat"
_SPREAD = 3.0  # standard deviation of the logits: a best class stands out, and no score is 0 or 1


@dataclass(frozen=True)
class Statistics:
    """What a run on photographs saw: mean and variance a channel after each convolution, and the last layer's input."""

    channels: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    features: NDArray[np.float32]


def write(path: Path, pictures: NDArray[np.float32]) -> None:
    """Write the network to `path`. `pictures`: a few prepared photographs, float32 of shape [n, 3, 224, 224]."""
    path.write_bytes(_Network(_seen(pictures)).model().SerializeToString())


def _seen(pictures: NDArray[np.float32]) -> Statistics:
    """Run the network that normalises by its own batch, and return what each normalisation saw."""
    network = _Network(None)
    session = onnxruntime.InferenceSession(network.model().SerializeToString(), providers=["CPUExecutionProvider"])
    names = [name for conv in network.convolutions for name in (f"{conv}.mean", f"{conv}.variance")]
    features, *seen = session.run([_FEATURES, *names], {INPUT: pictures})
    values = (value.reshape(-1) for value in seen)
    return Statistics({conv: (next(values), next(values)) for conv in network.convolutions}, features)


class _Network:
    """Builds the graph; without statistics one that normalises by its own batch and puts out what it saw."""

    def __init__(self, statistics: Statistics | None) -> None:
        self.convolutions: list[str] = []
        self._statistics = statistics
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._build()

    def model(self) -> onnx.ModelProto:
        """Return the whole as a checked model."""
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", CLASSES])]
        if self._statistics is None:
            outputs.append(helper.make_tensor_value_info(_FEATURES, TensorProto.FLOAT, ["n", None]))
            outputs += [
                helper.make_tensor_value_info(f"{conv}.{what}", TensorProto.FLOAT, [1, None, 1, 1])
                for conv in self.convolutions
                for what in ("mean", "variance")
            ]
        given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
        graph = helper.make_graph(self._nodes, "resnet50", [given], outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _build(self) -> None:
        value = self._relu(self._normal(self._conv(INPUT, "stem", 3, 64, kernel=7, stride=2)))
        value = self._node("MaxPool", [value], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = 64
        for number, (width, blocks, stride) in enumerate(_STAGES):
            for block in range(blocks):
                value = self._block(value, f"stage{number}.{block}", channels, width, stride if block == 0 else 1)
                channels = width * _EXPANSION
        value = self._node("GlobalAveragePool", [value], "pool")
        value = self._node("Flatten", [value], _FEATURES)
        weight, bias = self._head(channels)
        given = [value, self._constant("head.weight", weight), self._constant("head.bias", bias)]
        self._node("Gemm", given, OUTPUT, transB=1)

    def _head(self, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = self._random.standard_normal((CLASSES, channels)).astype(np.float32)
        if self._statistics is None:
            return weight, np.zeros(CLASSES, np.float32)
        centre = self._statistics.features.mean(0)
        weight *= _SPREAD / np.std((self._statistics.features - centre) @ weight.T)
        return weight, -weight @ centre

    def _block(self, value: str, name: str, channels: int, width: int, stride: int) -> str:
        inner = self._relu(self._normal(self._conv(value, f"{name}.reduce", channels, width, kernel=1, stride=1)))
        inner = self._relu(self._normal(self._conv(inner, f"{name}.spatial", width, width, kernel=3, stride=stride)))
        inner = self._normal(self._conv(inner, f"{name}.expand", width, width * _EXPANSION, kernel=1, stride=1))
        if stride != 1 or channels != width * _EXPANSION:
            value = self._normal(self._conv(value, f"{name}.skip", channels, width * _EXPANSION, kernel=1, stride=stride))
        return self._relu(self._node("Add", [inner, value], f"{name}.sum"))

    def _conv(self, value: str, name: str, channels: int, width: int, *, kernel: int, stride: int) -> str:
        weight = self._weight(f"{name}.weight", (width, channels, kernel, kernel), np.sqrt(2 / (channels * kernel * kernel)))
        self.convolutions.append(name)
        pads = [kernel // 2] * 4
        return self._node("Conv", [value, weight], name, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads)

    def _normal(self, conv: str) -> str:
        """Normalise what the convolution `conv` puts out."""
        if self._statistics is None:
            return self._own_normal(conv)
        mean, variance = self._statistics.channels[conv]
        terms = {"scale": np.ones_like(mean), "shift": np.zeros_like(mean), "seen_mean": mean, "seen_variance": variance}
        given = [self._constant(f"{conv}.{name}", array) for name, array in terms.items()]
        return self._node("BatchNormalization", [conv, *given], f"{conv}.normal", epsilon=_EPSILON)

    def _own_normal(self, conv: str) -> str:
        mean = self._node("ReduceMean", [conv], f"{conv}.mean", axes=[0, 2, 3], keepdims=1)
        centred = self._node("Sub", [conv, mean], f"{conv}.centred")
        square = self._node("Mul", [centred, centred], f"{conv}.square")
        variance = self._node("ReduceMean", [square], f"{conv}.variance", axes=[0, 2, 3], keepdims=1)
        epsilon = self._constant(f"{conv}.epsilon", np.array(_EPSILON, np.float32))
        root = self._node("Sqrt", [self._node("Add", [variance, epsilon], f"{conv}.safe")], f"{conv}.deviation")
        return self._node("Div", [centred, root], f"{conv}.normal")

    def _relu(self, value: str) -> str:
        return self._node("Relu", [value], f"{value}.relu")

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _weight(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        return self._constant(name, (self._random.standard_normal(shape) * deviation).astype(np.float32))

    def _constant(self, name: str, array: NDArray[np.float32]) -> str:
        self._weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name
