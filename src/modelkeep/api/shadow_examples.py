"""Examples of what goes over the wire about shadows."""

from typing import Any, Final

_AT: Final = "2026-03-14T09:26:53.589793Z"
_VERSION_ID: Final = "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"
_PREDICTION_ID: Final = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4"
SHADOW_FACTS: Final[dict[str, Any]] = {
    "version": 4,
    "version_id": _VERSION_ID,
    "primary": 3,
    "primary_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C2",
    "active": True,
    "since": _AT,
    "at": _AT,
    "asked": 1000,
    "requests": 996,
    "requests_differ": 12,
    "rows": 996,
    "differ": 12,
    "agreement": 0.98795,
}
_PARTS: Final = {"p50": 0.001, "p90": 0.01, "p99": 0.0464}
_COMPARED: Final[dict[str, Any]] = {
    "name": "probabilities",
    "kind": "classes",
    "rows": 996,
    "differ": 12,
    "absolute": _PARTS,
    "relative": _PARTS,
    "largest": 0.21,
    "histogram": [[0.0, 400], [0.01, 584], [1.0, 12]],
    "confused": [{"primary": "stays", "shadow": "leaves", "rows": 12}],
}
_APART: Final[dict[str, Any]] = {
    "prediction": _PREDICTION_ID,
    "row": 0,
    "at": _AT,
    "differs": True,
    "distance": 0.8,
    "primary": {"label": "stays"},
    "shadow": {"label": "leaves"},
    "inputs": {"tenure": 1.0},
}
SHADOW: Final[dict[str, Any]] = {
    **SHADOW_FACTS,
    "share": 10.0,
    "servers": 2,
    "dropped": {"busy": 3},
    "failed": {"timeout": 1},
    "disagreement": [0.0056, 0.0257],
    "primary_ms": {"p50": 1.0, "p90": 1.78, "p99": 3.16},
    "shadow_ms": {"p50": 1.0, "p90": 1.78, "p99": None},
    "outputs": [_COMPARED],
    "slices": [{"column": "tenure", "says": "< 3", "rows": 120, "differ": 12, "least": 0.0447}],
    "worst": [_APART],
}
