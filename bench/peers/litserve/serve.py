"""LitServe: FastAPI in front, model processes behind queues, batches by size and time."""

from typing import Any

import litserve
import numpy as np
from served import BATCH, PORT, ROWS, WAIT_MS, WORKERS, forest, network, prepared, top5


class Forest(litserve.LitAPI):
    """Answers rows."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device
        self._model = forest()

    def decode_request(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - an array
        """Read one request."""
        return np.asarray(request["rows"][0])

    def predict(self, x: Any) -> Any:  # noqa: ANN401 - arrays
        """Run one batch."""
        return self._model(x)

    def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: ANN401 - an array
        """Write one answer."""
        return {"probabilities": [output.tolist()]}


class Network(litserve.LitAPI):
    """Answers pictures."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device
        self._run = network()

    def decode_request(self, request: Any) -> Any:  # noqa: ANN401 - a form, an array
        """Read and prepare one picture."""
        return prepared(request["file"].file.read())

    def predict(self, x: Any) -> Any:  # noqa: ANN401 - arrays
        """Run one batch, or one picture where there is no batching."""
        return top5(self._run(x if x.ndim > 3 else x[None]))  # noqa: PLR2004 - a batch has one axis more

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Take a batch's answers apart."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: ANN401 - a list
        """Write one answer."""
        return {"top5": output if isinstance(output[0], dict) else output[0]}


if __name__ == "__main__":
    api = (Forest if ROWS else Network)(max_batch_size=BATCH, batch_timeout=WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(
        host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="warning", access_log=False
    )
