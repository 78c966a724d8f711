"""Examples of what goes over the wire about alerts, by schema."""

from typing import Any, Final

_AT: Final = "2026-03-14T09:26:53.589793Z"
_ROLLOUT: Final = "rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"
_FACTS: Final[dict[str, Any]] = {
    "id": "alr_01J9Z3K6T2Q8W4V5R7X0Y1B2C9",
    "kind": "rollout.rolled_back",
    "severity": "page",
    "state": "acknowledged",
    "fingerprint": "5c4b3d2a6f1e0d9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c",
    "labels": {"kind": "rollout.rolled_back", "deployment": "churn", "model": "churn", "version": "3"},
    "title": "churn: version 3 was taken back by itself (errors).",
    "text": "It was to take over from version 2, which answers alone again. Step 1 of 1 (10 %). "
    "errors: 9 of 254 requests were bad, and 21 of 2286 of the promoted version's: evidence e^6.1.",
    "opened_at": _AT,
    "last_at": _AT,
    "count": 1,
    "acknowledged_by": "ada",
    "acknowledged_at": _AT,
    "acknowledged_until": "2026-03-14T13:26:53.589793Z",
    "acknowledged_note": "I look at the logs of version 3.",
    "resolved_by": "",
    "resolved_at": None,
    "resolved_why": "",
}
_NUMBERS: Final[dict[str, Any]] = {
    "requests": 254,
    "bad": 9,
    "others": 2286,
    "others_bad": 21,
    "log_e": 6.1,
    "needs": 5.7,
    "log_local": 6.1,
    "needs_local": 5.7,
    "log_not_worse": -4.2,
    "needs_not_worse": 3.0,
    "lower": 0.012,
    "upper": 0.073,
    "bound": None,
}
_SEEN: Final[dict[str, Any]] = {
    "at": _AT,
    "rollout": _ROLLOUT,
    "link": f"/api/v1/rollouts/{_ROLLOUT}/evidence",
    "signal": "errors",
    "numbers": {"errors": _NUMBERS},
}

ALERTS: Final[dict[str, list[dict[str, Any]]]] = {
    "Acknowledge": [{"for_minutes": 60, "note": "I look at the logs of version 3."}],
    "Alert": [{**_FACTS, "evidence": [_SEEN]}],
    "AlertFactsPage": [{"items": [_FACTS], "next_cursor": None}],
    "Resolve": [{"note": "Version 4 is trained on clean rows."}],
}
"""Whole bodies of requests and answers."""
