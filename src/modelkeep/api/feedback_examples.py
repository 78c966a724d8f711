"""Examples of what goes over the wire about feedback."""

from typing import Any, Final

_AT: Final = "2026-03-14T09:26:53.589793Z"
_PREDICTION_ID: Final = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4"
_OTHER_ID: Final = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C5"
_SAID: Final[dict[str, Any]] = {"verdict": "wrong", "truth": {"label": "leaves"}, "note": "Cancelled in March.", "at": _AT}
_TOLD: Final[dict[str, Any]] = {**_SAID, "told_at": _AT, "by": "web shop"}
_FEEDBACK: Final[dict[str, Any]] = {
    **_TOLD,
    "prediction": _PREDICTION_ID,
    "deployment": "churn",
    "version": 3,
    "version_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "predicted_at": _AT,
}
_TAKEN: Final = [
    {"prediction": _PREDICTION_ID, "status": "accepted", "reason": ""},
    {"prediction": _OTHER_ID, "status": "refused", "reason": "verdict: right or wrong."},
]

FEEDBACK: Final[dict[str, list[dict[str, Any]]]] = {
    "FeedbackPage": [{"items": [_FEEDBACK], "next_cursor": None}],
    "FeedbackTaken": [{"accepted": 1, "unchanged": 0, "parked": 0, "refused": 1, "items": _TAKEN}],
    "NewFeedback": [{"items": [{"prediction": _PREDICTION_ID, **_SAID}, {"prediction": _OTHER_ID, "verdict": "right"}]}],
    "PredictionFeedback": [{"prediction": _PREDICTION_ID, "items": [_TOLD]}],
}
"""Whole bodies of requests and answers."""
