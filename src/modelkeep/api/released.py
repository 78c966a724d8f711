"""Examples of what deployments are, were and will be, and of what one asks to have them changed."""

from typing import Any, Final

AT: Final = "2026-03-14T09:26:53.589793Z"
VERSION_ID: Final = "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"


def page(*items: dict[str, Any]) -> dict[str, Any]:
    """Return a list's only page."""
    return {"items": list(items), "next_cursor": None}


_SETTINGS: Final[dict[str, Any]] = {
    "deadline_s": 0.5,
    "batching": {"mode": "auto", "max_rows": 0, "max_wait_ms": -1, "latency_target_ms": 0},
    "replicas": {"min": 1, "max": 2},
    "concurrency": 0,
    "recording": {
        "enabled": True,
        "sample": 1,
        "inputs": "keep",
        "outputs": "keep",
        "fields": {"age": "hash"},
        "keep_days": 30,
    },
    "memory": {"keep": "auto", "idle_s": 300},
    "not_finite": "null",
    "golden": "enforce",
    "rate": {"per_minute": 0, "burst": 0},
    "cache": {"mode": "auto", "ttl_s": 3600, "share": "caller"},
    "bake_s": 600,
}
_TRAFFIC: Final[dict[str, Any]] = {
    "split": {"4": 5.0},
    "rules": [
        {
            "version": 4,
            "name": "beta",
            "callers": [],
            "header": "x-plan",
            "values": ["beta"],
            "percent": 100.0,
        }
    ],
    "sticky": "caller",
    "shadow": {"version": 5, "share": 20.0},
}
_REVISION: Final[dict[str, Any]] = {
    "name": "churn",
    "revision": 5,
    "at": AT,
    "by": "ada",
    "action": "route",
    "reason": "5 % for a day",
    "version": 3,
    "version_id": VERSION_ID,
    "settings": _SETTINGS,
    "traffic": _TRAFFIC,
    "trial": None,
    "restored": None,
}
_PART: Final[dict[str, Any]] = {
    "version": 4,
    "share_before": 0.0,
    "share_after": 5.0,
    "rules_before": 0,
    "rules_after": 1,
    "begins": True,
    "stops": False,
}
_DEPLOYMENT: Final[dict[str, Any]] = {
    "name": "churn",
    "model": "churn",
    "version": 3,
    "version_id": VERSION_ID,
    "previous_version": 2,
    "revision": 5,
    "updated_at": AT,
    "updated_by": "ada",
    "settings": _SETTINGS,
    "traffic": _TRAFFIC,
    "trial": None,
    "serving": [{"server": "server", "snapshot": 12, "version": 3, "at": AT, "failing": ""}],
    "cache": {
        "state": "on",
        "said": "75% of 400 requests in the last 5 minutes",
        "seconds": 300,
        "hits": 280,
        "shared": 20,
        "misses": 96,
        "bypassed": 4,
        "bytes": 1_048_576,
        "ratio": 0.75,
    },
}
_SCHEDULED: Final[dict[str, Any]] = {
    "id": "sch_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "deployment": "churn",
    "at": AT,
    "change": {"version": 4, "settings": None, "traffic": None},
    "reason": "After the night's batch.",
    "state": "waiting",
    "by": "ada",
    "asked_at": AT,
    "ended_at": None,
    "revision": None,
    "problem": "",
}

RELEASES: Final[dict[str, list[dict[str, Any]]]] = {
    "Deployment": [_DEPLOYMENT],
    "DeploymentPage": [page(_DEPLOYMENT)],
    "Promote": [{"version": 3}],
    "NewScheduledChange": [{"at": AT, "version": 4, "reason": "After the night's batch."}],
    "ScheduledChange": [_SCHEDULED],
    "ScheduledChangePage": [page(_SCHEDULED)],
    "AsOf": [{"model": "churn", "at": AT, "deployments": [{**_REVISION, "settings_revision": 2}], "aliases": {"champion": 3}}],
    "ChangeDeployment": [{"traffic": {"split": {"4": 5}, "shadow": {"version": 5, "share": 20}}, "reason": "5 % for a day"}],
    "NewDeployment": [{"name": "churn-eu", "model": "churn", "version": 3}],
    "Plan": [
        {
            "revision": 4,
            "changes": [{"path": "traffic.split.4", "before": None, "after": 5.0}],
            "answering": [_PART],
            "needs_approval": False,
        }
    ],
    "PlanChange": [{"version": 4}, {"traffic": {"split": {"4": 5}}}],
    "DeploymentRevision": [_REVISION],
    "DeploymentRevisionPage": [page(_REVISION)],
    "RollBack": [{}, {"revision": 2, "reason": "Slower than before."}],
}
