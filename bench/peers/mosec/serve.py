"""mosec: a Rust front door, Python processes behind Unix sockets, batches by size and time."""

from typing import Any

import msgspec
import numpy as np
from mosec import Server, Worker
from served import BATCH, ROWS, WAIT_MS, WORKERS, classified, forest, network, prepared, top5


class Forest(Worker):
    """Answers rows."""

    def __init__(self) -> None:
        self._model = forest()

    def deserialize(self, data: bytes) -> list[float]:
        """Read one request."""
        row: list[float] = msgspec.json.decode(data)["rows"][0]
        return row

    def serialize(self, data: object) -> bytes:
        """Write one answer."""
        return msgspec.json.encode(data)

    def forward(self, data: list[list[float]]) -> list[dict[str, Any]]:
        """Run one batch."""
        return [{"probabilities": [row]} for row in self._model(np.array(data)).tolist()]


class Network(Worker):
    """Answers pictures."""

    def __init__(self) -> None:
        self._run = network()

    def deserialize(self, data: bytes) -> Any:  # noqa: ANN401 - an array
        """Read and prepare one picture."""
        return prepared(data)

    def serialize(self, data: object) -> bytes:
        """Write one answer."""
        return msgspec.json.encode(data)

    def forward(self, data: Any) -> Any:  # noqa: ANN401 - a batch, or one item where the batch size is 1
        """Run one batch."""
        if not isinstance(data, list):
            return {"top5": top5(self._run(data[None]))[0]}
        return [{"top5": best} for best in classified(self._run, data)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Forest if ROWS else Network, num=WORKERS, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()
