"""Examples of the life of models and versions, for `examples.py`."""

from typing import Any, Final

_AT: Final = "2026-03-14T09:26:53.589793Z"
_VERSION_ID: Final = "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"
_DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
LIFE: Final[dict[str, Any]] = {
    "life": "deprecated",
    "archived_at": None,
    "trashed_at": None,
    "deprecation": {"since": _AT, "sunset": "2026-06-30T00:00:00Z", "note": "Learned before the merger.", "successor": None},
    "hold": None,
}
TRAINING: Final[dict[str, Any]] = {
    "job": "https://ci.example.org/jobs/41",
    "code": "https://git.example.org/churn",
    "revision": "4f2a91c",
    "by": "ada",
    "data": [{"name": "customers", "uri": "s3://data/customers.parquet", "digest": f"sha256:{_DIGEST}"}],
}
_ERASURE: Final[dict[str, Any]] = {
    "id": "ers_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "model": "churn",
    "version_id": _VERSION_ID,
    "version": 3,
    "digest": _DIGEST,
    "reason": "Its time in the trash was over.",
    "asked_at": _AT,
    "asked_by": "modelkeep",
    "files": [{"digest": _DIGEST, "size": 184_320}],
    "kept": [],
    "bytes_before": 184_320,
    "bytes_after": 0,
    "finished_at": _AT,
}
_LIFE_CHANGE: Final[dict[str, Any]] = {
    "id": "chg_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "version": 3,
    "change": "deprecate",
    "before": "active",
    "after": "deprecated",
    "reason": "Version 4 is better for new customers.",
    "at": _AT,
    "by": "ada",
}
_RELATED: Final[dict[str, Any]] = {
    "id": _VERSION_ID,
    "model": "churn",
    "number": 3,
    "life": "active",
    "digest": _DIGEST,
    "steps": 0,
    "parent_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C2",
    "created_at": _AT,
    "created_by": "ada",
    "training": TRAINING,
}
BODIES: Final[dict[str, list[dict[str, Any]]]] = {
    "Because": [{"reason": "Nobody asks it any more."}],
    "Deprecate": [{"reason": "Version 4 is better.", "sunset": "2026-06-30T00:00:00Z", "successor": 4}],
    "ErasureRecordPage": [{"items": [_ERASURE], "next_cursor": None}],
    "LifeChangePage": [{"items": [_LIFE_CHANGE], "next_cursor": None}],
    "Lineage": [{"version": _RELATED, "ancestors": [], "descendants": [], "complete": False}],
    "Purge": [{"reason": "The customer has left."}],
    "PutOnHold": [{"reason": "Case 7 of 2026."}],
}
