"""The models behind TorchServe's door: it calls `handle` with a batch."""

import json
from functools import cache
from typing import Any

import numpy as np
from served import ROWS, classified, forest, network, prepared

_load = cache(forest if ROWS else network)


def handle(data: list[dict[str, Any]] | None, context: object) -> list[dict[str, Any]] | None:
    """Run one batch; TorchServe calls once without one, to load."""
    del context
    model = _load()
    if not data:
        return None
    bodies = [one.get("body", one.get("data")) for one in data]
    if ROWS:
        rows = [json.loads(body) if isinstance(body, bytes | bytearray) else body for body in bodies]
        return [{"probabilities": [row]} for row in model(np.array(rows)).tolist()]
    return [{"top5": best} for best in classified(model, [prepared(bytes(body)) for body in bodies])]
