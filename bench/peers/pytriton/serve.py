"""PyTriton: NVIDIA's Triton server with Python callables as models, batched by Triton."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from served import BATCH, PORT, ROWS, WAIT_MS, WORKERS, classified, forest, network, prepared


def answers_rows() -> Callable[..., Any]:
    """Return one instance of the forest."""
    model = forest()

    @batch
    def run(rows: Any) -> dict[str, Any]:  # noqa: ANN401 - an array
        return {"probabilities": model(rows)}

    return run


def answers_pictures() -> Callable[..., Any]:
    """Return one instance of the network."""
    model = network()

    @batch
    def run(picture: Any) -> dict[str, Any]:  # noqa: ANN401 - an array
        best = classified(model, [prepared(one) for one in picture[:, 0]])
        return {
            "class": np.array([[one["class"] for one in row] for row in best], np.int64),
            "score": np.array([[one["score"] for one in row] for row in best], np.float32),
        }

    return run


ROW_TENSORS = {
    "inputs": [Tensor(name="rows", dtype=np.float64, shape=(30,))],
    "outputs": [Tensor(name="probabilities", dtype=np.float64, shape=(2,))],
}
PICTURE_TENSORS = {
    "inputs": [Tensor(name="picture", dtype=np.bytes_, shape=(1,))],
    "outputs": [Tensor(name="class", dtype=np.int64, shape=(5,)), Tensor(name="score", dtype=np.float32, shape=(5,))],
}

if __name__ == "__main__":
    addresses = TritonConfig(
        http_address="127.0.0.1",
        http_port=PORT,
        grpc_address="127.0.0.1",
        grpc_port=int(os.environ["BENCH_PORT_2"]),
        metrics_port=int(os.environ["BENCH_PORT_3"]),
        log_verbose=0,
    )
    batching = {"batcher": DynamicBatcher(max_queue_delay_microseconds=WAIT_MS * 1000)} if BATCH > 1 else {}
    instance = answers_rows if ROWS else answers_pictures
    with Triton(config=addresses) as triton:
        triton.bind(
            "m",
            [instance() for _ in range(WORKERS)],
            config=ModelConfig(max_batch_size=BATCH, **batching),
            **(ROW_TENSORS if ROWS else PICTURE_TENSORS),
        )
        triton.serve()
