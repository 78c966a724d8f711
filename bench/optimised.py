"""ResNet-50 on one core: images a second by each way that a version may be optimised, beside ONNX Runtime in FP32.

Weights are random, so nothing is said of accuracy here. The ways take turns, so that a machine which is faster now and slower
then is so for all of them; ratios are those within a round.

    taskset -c 0 python bench/optimised.py --rounds 5 --seconds 1
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelkeep.contracts.runner import Artifact, CannotLoad, LoadOptions, Precision, Runner
from modelkeep.contracts.signature import ImageSpec
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.plugins.runners.openvino import OpenvinoRunner
from modelkeep.sandbox.imaging import decode
from modelkeep.worker.processor import Processor
from rig import artifacts

Run = Callable[[NDArray[np.float32]], object]
FIRST = "ONNX Runtime FP32"


def photographs(count: int) -> NDArray[np.float32]:
    """Prepared pictures [count, 3, 224, 224]: the rig's photographs, and mirror images of them with a little noise."""
    spec, random = ImageSpec(), np.random.default_rng(0)
    encoded = [one.picture for one in artifacts.questions(artifacts.PICTURES)]
    made = []
    for number in range(count):
        picture: Image.Image = decode(encoded[number % len(encoded)], spec)
        values = (np.asarray(picture, np.float32) - spec.mean) / spec.std
        values = values[:, ::-1] if number % 2 else values
        made.append((values + random.normal(0, 0.05, values.shape)).transpose(2, 0, 1))
    return np.stack(made).astype(np.float32)


def loaded(runner: type[Runner], data: bytes, precision: Precision) -> Run:
    """Return how to ask a graph; the runner proves what it runs on and in, or raises `CannotLoad`."""
    model = runner().load(Artifact(data, "onnx"), LoadOptions(precision=precision))
    name = model.facts.signature.inputs[0].name
    return lambda rows: model.run({name: rows})


def ways(data: bytes) -> dict[str, Run]:
    """Return every way that this host has."""
    rows = photographs(32)
    original = OnnxRunner().load(Artifact(data, "onnx"), LoadOptions(quantises=True))
    name = original.facts.signature.inputs[0].name
    chunks = ({name: rows[start : start + 4]} for start in range(0, len(rows), 4))
    integers = original.quantised(chunks, narrow=Processor.here().narrow, spare_ends=False).data
    found: dict[str, Run] = {}
    wanted: dict[str, tuple[type[Runner], bytes, Precision]] = {
        FIRST: (OnnxRunner, data, "f32"),
        "OpenVINO FP32": (OpenvinoRunner, data, "f32"),
        "OpenVINO bfloat16": (OpenvinoRunner, data, "bf16"),
        "ONNX Runtime int8": (OnnxRunner, integers, "int8"),
        "OpenVINO int8": (OpenvinoRunner, integers, "int8"),
    }
    for title, (runner, graph, precision) in wanted.items():
        try:
            found[title] = loaded(runner, graph, precision)
        except CannotLoad as error:
            print(f"{title}: {error.detail}")
    return found


def rate(run: Run, rows: NDArray[np.float32], seconds: float) -> float:
    """Images a second of runs of these rows, for so many seconds."""
    done, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds or not done:
        run(rows)
        done += len(rows)
    return done / taken if done and taken else 0.0


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    artifacts.build()
    able = ways(artifacts.model(artifacts.PICTURES).read_bytes())
    print(
        "| ResNet-50, one core | images/s, one at a time | to FP32 | images/s, 16 at a time | to FP32 |\n|---|---|---|---|---|"
    )
    figures: dict[str, list[str]] = {title: [] for title in able}
    for count in (1, 16):
        rows = photographs(count)
        for run in able.values():
            run(rows)
        rounds = [{title: rate(run, rows, given.seconds) for title, run in able.items()} for _ in range(given.rounds)]
        for title in able:
            ratio = statistics.median(one[title] / one[FIRST] for one in rounds)
            figures[title] += [f"{statistics.median(one[title] for one in rounds):.1f}", f"{ratio:.2f}"]
    for title, cells in figures.items():
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
