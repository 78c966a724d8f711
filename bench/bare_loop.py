"""Decodes, prepares and runs pictures in this one process, for so many seconds whenever a line with a number comes in.

`--recipe pillow` prepares as the peers' servers do, `--recipe modelkeep` with the code of Modelkeep's own runners. Each line
of output is JSON. Used by the bench as the limit of what a server of pictures can reach.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rig import artifacts, resnet


def recipe(name: str, served: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - a module
    """Return what makes a picture the network's input, of shape [1, 3, 224, 224]."""
    if name == "pillow":
        return lambda picture: served.prepared(picture)[None]
    from modelkeep.contracts.signature import Dtype, ImageSpec, Signature, TensorSpec
    from modelkeep.sandbox.imaging import INPUT, Pictures
    from rig.modelkeep import IMAGE

    tensor = TensorSpec(resnet.INPUT, Dtype.FP32, (-1, 3, resnet.SIZE, resnet.SIZE))
    scores = TensorSpec(resnet.OUTPUT, Dtype.FP32, (-1, resnet.CLASSES))
    pictures = Pictures(ImageSpec(**IMAGE), Signature((tensor,), (scores,)))
    return lambda picture: pictures.tensors({INPUT: np.array([picture], object)})[resnet.INPUT]


def main() -> None:
    """Load, say so, and measure as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=("pillow", "modelkeep"), default="pillow")
    asked = parser.parse_args()
    served = artifacts.as_peers_run_it(artifacts.PICTURES)
    prepare, network = recipe(asked.recipe, served), served.network()
    pictures = [question.picture for question in artifacts.questions(artifacts.PICTURES)]
    for picture in pictures:
        served.top5(network(prepare(picture)))
    print(json.dumps({"loaded": True}), flush=True)
    for line in sys.stdin:
        took: list[float] = []
        started = last = time.perf_counter()
        while last - started < float(line):
            served.top5(network(prepare(pictures[len(took) % len(pictures)])))
            now = time.perf_counter()
            took.append(now - last)
            last = now
        p50, p99 = np.quantile(took, [0.5, 0.99]) * 1000
        print(json.dumps({"per_second": len(took) / (last - started), "p50_ms": p50, "p99_ms": p99}), flush=True)


if __name__ == "__main__":
    main()
