"""predict(): the whole story of one prediction on one screen. Dialects decode before it and encode after it."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput, Kind, ModelkeepError, Timeout
from modelkeep.contracts.ids import new_id
from modelkeep.serving.codec import Array, Tensors, check_rows
from modelkeep.serving.messages import Request
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.pool import Served
from modelkeep.serving.settings import ServingSettings

_ROWS_AXES = 2


class InvalidTimeout(Invalid):
    """`X-Request-Timeout` is a number of seconds above 0."""

    code = "invalid_timeout"


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer: its id, the version that gave it, and the outputs by name."""

    id: str
    served: Served
    outputs: Tensors

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What every dialect says beside its body."""
        return ((b"x-prediction-id", self.id.encode()), (b"x-model-version", str(self.served.version.number).encode()))


class Engine:
    """Runs predictions within their deadlines, and counts them."""

    def __init__(self, settings: ServingSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics

    async def predict(self, deployment: str, served: Served, tensors: Tensors, request: Request) -> Prediction:
        """Answer one request's rows; raises `Timeout` at its deadline."""
        started = time.perf_counter()
        meter = self._metrics.meter(deployment, served.version.number)
        try:
            rows = check_rows(tensors)
            limit = self._deadline(request)
            try:
                async with asyncio.timeout(limit):
                    answer = await served.batcher.submit(tensors, rows)
            except TimeoutError as error:
                raise Timeout(f"The prediction took longer than its deadline of {limit:g} s.") from error
        except ModelkeepError as error:
            self.refused(deployment, served.version.number, error)
            raise
        total_s = time.perf_counter() - started
        meter.answered(rows, total_s, max(0.0, total_s - answer.run_s), answer.run_s)
        return Prediction(new_id("prd"), served, answer.outputs)

    def refused(self, deployment: str, version: int, error: ModelkeepError) -> None:
        """Count a prediction that was not answered."""
        at_fault = error.kind in {Kind.INVALID, Kind.TOO_LARGE, Kind.LIMITED}
        self._metrics.meter(deployment, version).refused("rejected" if at_fault else "error")

    def _deadline(self, request: Request) -> float:
        """Seconds this request may take: the caller's wish, never more than the installation's limit."""
        wish = request.header(b"x-request-timeout")
        if wish is None:
            return self._settings.deadline_s
        try:
            seconds = float(wish)
        except ValueError as error:
            raise InvalidTimeout from error
        if not 0 < seconds < float("inf"):
            raise InvalidTimeout
        return min(seconds, self._settings.deadline_s)


def scores_of(prediction: Prediction) -> Array | None:
    """Return the output that holds one score a class, if the version has one."""
    scores = prediction.outputs.get(prediction.served.version.scores)
    return scores if scores is not None and scores.ndim == _ROWS_AXES else None


def top_classes(prediction: Prediction, top_k: int) -> list[list[dict[str, object]]]:
    """Return, for each row, its `top_k` best classes, best first; raises `InvalidInput` where the model has no scores."""
    scores = scores_of(prediction)
    if scores is None:
        text = "This model has no class scores, so there is no top_k."
        raise InvalidInput(text, fields=(FieldError("top_k", "no_scores", text),))
    names = class_names(prediction.served)
    best = np.argsort(np.negative(scores), axis=1, kind="stable")[:, :top_k]
    values = np.take_along_axis(scores, best, axis=1)
    return [
        [
            {"label": names[index] if index < len(names) else str(index), "index": index, "score": score}
            for index, score in zip(indexes, row, strict=True)
        ]
        for indexes, row in zip(best.tolist(), values.tolist(), strict=True)
    ]


def class_names(served: Served) -> tuple[str, ...]:
    """Return the names of the classes: the uploader's labels, else the model's own, else none."""
    if served.version.labels:
        return served.version.labels
    return next((spec.classes for spec in served.version.signature.outputs if spec.name == served.version.scores), ())
