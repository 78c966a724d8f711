"""BentoML: its own HTTP door, adaptive batching in it. With a latency bound of 100 ms it cancels requests under load."""

from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from served import BATCH, ROWS, WORKERS, classified, forest, network, prepared

_OPTIONS = {"workers": WORKERS, "traffic": {"timeout": 30}, "logging": {"access": {"enabled": False}}}

if ROWS:

    @bentoml.service(name="bench", **_OPTIONS)
    class Service:
        """Answers rows."""

        def __init__(self) -> None:
            self._model = forest()

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=1000, route="/predict")
        def predict(self, rows: np.ndarray) -> np.ndarray:
            """Run one batch."""
            return self._model(rows)

else:

    @bentoml.service(name="bench", **_OPTIONS)
    class Service:  # type: ignore[no-redef]
        """Answers pictures."""

        def __init__(self) -> None:
            self._run = network()

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10000, route="/predict")
        def predict(self, file: list[Path]) -> list[dict[str, Any]]:
            """Run one batch."""
            return [{"top5": best} for best in classified(self._run, [prepared(one.read_bytes()) for one in file])]
