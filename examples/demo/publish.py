"""Brings the demo models to a server, and sees that both answer."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from models import DemoModel

from modelkeep.client import Client, NotAuthenticated, NotFound, Prediction, Unavailable

PATIENCE_S = 60.0


class WrongAnswer(RuntimeError):
    """A demo model answers, but not what it should."""


def publish(client: Client, models: list[DemoModel], say: Callable[[str], None]) -> None:
    """Push the models that do not answer yet, and check one prediction of each."""
    present = {model.name: model for model in client.models()}
    for model in models:
        found = present.get(model.name)
        if found is None or found.serving_version is None:
            say(f"Pushing {model.name} ...")
            client.push(
                model.artifact,
                model.name,
                sample=model.sample,
                labels=model.labels,
                preprocess=model.preprocess,
                description=model.description,
            )
    for model in models:
        check(model, answer(client, model))


def answer(client: Client, model: DemoModel) -> Prediction:
    """Predict on the model's sample. A server that has just started may not know model or key yet: ask until it does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.predict(model.name, question(model))
        except (Unavailable, NotFound, NotAuthenticated):
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def question(model: DemoModel) -> object:
    """Return what the sample asks: a picture, or the first row."""
    if model.sample.suffix == ".jpg":
        return model.sample
    return [first_row(model.sample)]


def first_row(sample: Path) -> dict[str, float]:
    """Return the first row of a CSV file of numbers, by the names of its columns."""
    names, values = (line.split(",") for line in sample.read_text(encoding="utf-8").splitlines()[:2])
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def check(model: DemoModel, prediction: Prediction) -> None:
    """Raise `WrongAnswer` unless the model says one of its labels, and of the photograph the right one."""
    if prediction.predictions:
        said = prediction.predictions[0][0].label
        expected = {"daisy"}
    else:
        said = str(prediction.raw["outputs"]["label"][0])
        expected = set(model.labels.read_text(encoding="utf-8").splitlines())
    if said not in expected:
        raise WrongAnswer(f"{model.name} answers {said!r}; it should be one of {', '.join(sorted(expected))}.")


def curl_lines(url: str, models: list[DemoModel]) -> str:
    """Return commands to paste that ask both models."""
    table, pictures = models
    row = json.dumps([list(first_row(table.sample).values())])
    return "\n".join(
        (
            f'curl -s {url}/api/v1/predict/{table.name} -H "X-API-Key: $MODELKEEP_API_KEY" \\',
            f"  -H 'Content-Type: application/json' -d '{{\"inputs\": {row}}}'",
            "",
            f"curl -s '{url}/api/v1/predict/{pictures.name}?top_k=3' -H \"X-API-Key: $MODELKEEP_API_KEY\" \\",
            f"  -F file=@{pictures.sample}",
        )
    )
