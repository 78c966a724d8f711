"""Examples of what goes over the wire about rollouts, by schema."""

from typing import Any, Final

_AT: Final = "2026-03-14T09:26:53.589793Z"
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
    "worse": True,
    "good": False,
    "halted": "",
}
_WORSE: Final = "errors: 9 of 254 requests were bad, and 21 of 2286 of the promoted version's: evidence e^6.1."
_ROLLOUT_ID: Final = "rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"
_ROLLOUT_FACTS: Final[dict[str, Any]] = {
    "id": _ROLLOUT_ID,
    "deployment": "churn",
    "model": "churn",
    "from_version": 2,
    "from_version_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C2",
    "version": 3,
    "version_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "mode": "canary",
    "steps": [{"percent": 10.0, "minutes": 30.0, "shadow": False}],
    "gate": {"signals": ["errors"], "alpha": 0.01, "beta": 0.05, "margin": 2.0, "bounds": {}, "slow_ms": 0.0},
    "least": 100,
    "patience_minutes": 1440.0,
    "sticky": "",
    "state": "rolled_back",
    "reason": _WORSE,
    "step": 1,
    "percent": 10.0,
    "shadow": False,
    "servers": 1,
    "revision": 2,
    "created_at": _AT,
    "created_by": "ada",
    "changed_at": _AT,
    "ended_at": _AT,
}
_STEP: Final[dict[str, Any]] = {
    "step": 1,
    "percent": 10.0,
    "shadow": False,
    "started_at": _AT,
    "ended_at": _AT,
    "decision": "rolled_back",
}
_HAPPENED: Final[dict[str, Any]] = {"at": _AT, "what": "rolled_back", "by": "modelkeep", "step": 1, "reason": _WORSE}
_KNOWN: Final[dict[str, Any]] = {"errors": _NUMBERS}
_ROLLOUT: Final[dict[str, Any]] = {
    **_ROLLOUT_FACTS,
    "numbers": _KNOWN,
    "begun": [{**_STEP, "numbers": _KNOWN}],
    "events": [{**_HAPPENED, "numbers": _KNOWN}],
}
_SHOWN: Final = ("log_e", "log_not_worse", "upper", "requests", "bad", "others", "others_bad")
_POINT: Final[dict[str, Any]] = {"at": _AT, "step": 1, "signals": {"errors": {name: _NUMBERS[name] for name in _SHOWN}}}

ROLLOUTS: Final[dict[str, list[dict[str, Any]]]] = {
    "Evidence": [{"rollout": _ROLLOUT_ID, "state": "rolled_back", "needs": 5.7, "needs_not_worse": 3.0, "points": [_POINT]}],
    "NewRollout": [
        {"deployment": "churn", "version": 3, "steps": ["5:10m", "25:30m", "50:1h"]},
        {"deployment": "churn", "version": 3, "shadow": "20:10m", "bounds": {"disagreement": 0.05}},
    ],
    "Rollout": [_ROLLOUT],
    "RolloutFactsPage": [{"items": [_ROLLOUT_FACTS], "next_cursor": None}],
    "TakeBack": [{"reason": "Customers complain."}],
}
"""Whole bodies of requests and answers."""
