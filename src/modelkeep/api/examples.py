"""Examples of what goes over the wire, by schema: the document shows them. A test holds each to its schema."""

from typing import Any, Final

from modelkeep.api.alert_examples import ALERTS
from modelkeep.api.feedback_examples import FEEDBACK
from modelkeep.api.life_examples import BODIES, LIFE, TRAINING
from modelkeep.api.released import AT, RELEASES, VERSION_ID, page
from modelkeep.api.rollout_examples import ROLLOUTS
from modelkeep.api.shadow_examples import SHADOW, SHADOW_FACTS

_PREDICTION_ID: Final = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4"
_DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

_USER: Final[dict[str, Any]] = {
    "id": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "name": "ada",
    "email": "ada@example.org",
    "display_name": "Ada Lovelace",
    "kind": "person",
    "status": "active",
    "created_at": AT,
}
_SESSION_ID: Final = "ses_01J9Z3K6T2Q8W4V5R7X0Y1B2C5"
_REFRESH: Final = "mkr_good_for_one_use_and_seven_days"
_JWT: Final = "eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9.claims.signature"
_SESSION: Final[dict[str, Any]] = {
    "id": _SESSION_ID,
    "created_at": AT,
    "used_at": AT,
    "expires_at": "2026-04-13T09:26:53.589793Z",
    "address": "192.0.2.7",
    "program": "Mozilla/5.0",
    "this": True,
}
_INVITATION: Final[dict[str, Any]] = {
    "id": "lnk_01J9Z3K6T2Q8W4V5R7X0Y1B2C6",
    "email": "bob@example.org",
    "role": "developer",
    "created_at": AT,
    "created_by": "ada",
    "expires_at": "2026-03-21T09:26:53.589793Z",
}
_PUBLIC_KEY: Final[dict[str, Any]] = {
    "kty": "OKP",
    "crv": "Ed25519",
    "use": "sig",
    "alg": "EdDSA",
    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
_APPROVAL: Final[dict[str, Any]] = {
    "id": "apr_01J9Z3K6T2Q8W4V5R7X0Y1B2C7",
    "state": "approved",
    "kind": "promotion",
    "action": "deployment.promote",
    "subject": "dep_01J9Z3K6T2Q8W4V5R7X0Y1B2C8",
    "summary": "Promote churn to version 3; version 2 answers now.",
    "asked_by": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "asked_by_name": "ada",
    "asked_at": AT,
    "until": "2026-03-15T09:26:53.589793Z",
    "approved_by": [{"user": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C9", "name": "bob", "at": AT}],
    "refused_by": None,
    "reason": "",
    "used_at": None,
}
_OWN_KEY: Final[dict[str, Any]] = {
    "id": "key_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "name": "first key",
    "scopes": ["admin"],
    "expires_at": None,
}
_KEY: Final[dict[str, Any]] = {
    "id": "key_01J9Z3K6T2Q8W4V5R7X0Y1B2C4",
    "name": "web shop",
    "scopes": ["predict"],
    "created_at": AT,
    "expires_at": None,
    "last_used_at": AT,
    "rate": "600/min",
    "burst": 100,
    "concurrency": 8,
    "user_id": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "models": None,
    "rotated_at": None,
    "previous_until": None,
    "previous_used_at": None,
    "networks": ["10.1.0.0/16"],
    "certificate": {"names": ["uri:spiffe://example.org/shop"], "stands_for": False},
}
_ISSUED: Final[dict[str, Any]] = {**_KEY, "last_used_at": None, "secret": "mk_shown_once_and_never_again"}
_MODEL: Final[dict[str, Any]] = {
    "id": "mdl_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "name": "churn",
    "description": "Who will leave next month?",
    "created_at": AT,
    "created_by": "ada",
    **LIFE,
    "latest_version": 3,
    "serving_version": 3,
    "aliases": {"champion": 3},
    "workspace_id": "wsp_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "owner_id": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
}


def _tensor(name: str, dtype: str, shape: list[int], columns: list[str]) -> dict[str, Any]:
    empty: dict[str, Any] = {"nullable": False, "classes": [], "kind": "", "categories": []}
    return {"name": name, "dtype": dtype, "shape": shape, "columns": columns, **empty}


_SIGNATURE: Final[dict[str, Any]] = {
    "inputs": [_tensor("X", "FP32", [-1, 2], ["age", "visits"])],
    "outputs": [_tensor("label", "INT64", [-1], []), _tensor("probabilities", "FP32", [-1, 2], [])],
    "image": False,
}
_REPORT: Final[dict[str, Any]] = {
    "framework": "scikit-learn",
    "framework_version": "1.9.1",
    "kind": "RandomForestClassifier",
    "details": {"trees": "100"},
    "warnings": [],
    "load_s": 0.4,
    "memory_bytes": 41_943_040,
    "peak_bytes": 62_914_560,
    "deterministic": True,
    "sample": "given",
    "rows_tested": 100,
    "latency_ms": {"1": 3.6, "64": 7.9},
    "checks": [{"name": "loads", "ok": True, "detail": ""}],
    "compiled": {
        "used": True,
        "reason": "",
        "rows_compared": 400,
        "largest_difference": 2.4e-7,
        "relative_tolerance": 1e-5,
        "absolute_tolerance": 1e-6,
        "latency_ms": {"1": 0.02, "64": 0.4},
        "speed": 141.845,
    },
    "independent": True,
    "optimised": None,
    "hooked": False,
}
_VERSION: Final[dict[str, Any]] = {
    "id": VERSION_ID,
    "model": "churn",
    "number": 3,
    "state": "ready",
    "format": "joblib",
    "filename": "churn.joblib",
    "size": 184_320,
    "digest": _DIGEST,
    "description": "With last month's data.",
    "labels": None,
    "image": None,
    "hooks": None,
    "signature": _SIGNATURE,
    "report": _REPORT,
    "rejection": None,
    "created_at": AT,
    "created_by": "ada",
    "validated_at": AT,
    **LIFE,
    "parent_id": "ver_01J9Z3K6T2Q8W4V5R7X0Y1B2C2",
    "training": TRAINING,
}
_REJECTED: Final[dict[str, Any]] = {
    **_VERSION,
    "number": 4,
    "state": "rejected",
    "signature": None,
    "report": None,
    "rejection": {
        "code": "load_failed",
        "advice": "Save the model again with a version of its framework that is installed here.",
        "detail": "The file ends in the middle of an array.",
    },
}
_FACTS: Final[dict[str, Any]] = {
    "id": _PREDICTION_ID,
    "at": AT,
    "request_id": "order-4711",
    "deployment": "churn",
    "version_id": VERSION_ID,
    "version": 3,
    "key_id": _KEY["id"],
    "user": _KEY["user_id"],
    "dialect": "native",
    "outcome": "ok",
    "code": "",
    "status": 200,
    "rows": 1,
    "total_ms": 0.9,
    "queue_ms": 0.1,
    "run_ms": 0.3,
    "content_type": "application/json",
}
_ASKED: Final[dict[str, Any]] = {"inputs": [[41, 3]]}
_TOLD: Final[dict[str, Any]] = {"id": _PREDICTION_ID, "version": 3, "outputs": {"label": [1]}}
_SIDE: Final[dict[str, Any]] = {"content_type": "application/json", "base64": None, "note": ""}
_RECORDED: Final[dict[str, Any]] = {**_FACTS, "inputs": {**_SIDE, "value": _ASKED}, "outputs": {**_SIDE, "value": _TOLD}}
_SAME: Final[dict[str, Any]] = {"rows": 200, "differ": 0, "largest_difference": 0}
_SUMMARY: Final[dict[str, Any]] = {
    "original": {"digest": _DIGEST, "format": "joblib", "runner": "sklearn", "precision": "f32"},
    "serving": {"digest": _DIGEST[::-1], "format": "onnx", "runner": "onnx", "precision": "f32"},
    "predictions": 200,
    "replayed": 200,
    "skipped": {},
    "rows": 200,
    "rows_equal": 199,
    "rows_refused": 0,
    "recorded_serving": _SAME,
    "serving_original": {"rows": 200, "differ": 1, "largest_difference": 0.25},
    "recorded_original": {"rows": 200, "differ": 1, "largest_difference": 0.25},
    "largest_difference": 0.25,
    "relative_tolerance": 1e-5,
    "absolute_tolerance": 1e-6,
    "compared": "numbers",
}
_REPLAY_FACTS: Final[dict[str, Any]] = {
    "id": "rpl_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "model": "churn",
    "version": 3,
    "version_id": VERSION_ID,
    "state": "done",
    "asked": {"predictions": [], "last": 200, "rows": False},
    "created_at": AT,
    "created_by": "ada",
    "expires_at": AT,
    "started_at": AT,
    "finished_at": AT,
    "progress": 200,
    "summary": _SUMMARY,
    "failure": None,
}


def _said(probability: float) -> dict[str, Any]:
    return {"outputs": {"probability": probability}, "error": "", "note": ""}


_DIFFERING: Final[dict[str, Any]] = {
    "prediction": _PREDICTION_ID,
    "row": 0,
    "differs": ["serving_original", "recorded_original"],
    "recorded": _said(0.75),
    "serving": _said(0.75),
    "original": _said(0.5),
    "hidden": [],
}
_SAFETY: Final[dict[str, Any]] = {
    "code_formats": {"allowed": True, "reason": "Our own people alone push models.", "set_by": "ada", "set_at": AT},
    "sandbox": {"accepted": None, "reason": "", "set_by": "", "set_at": None},
}
_ENTRY: Final[dict[str, Any]] = {
    "id": "aud_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "at": AT,
    "actor": _KEY["id"],
    "actor_name": "ada",
    "user": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "address": "192.0.2.17",
    "action": "deployment.promote",
    "target": "dep_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "target_kind": "deployment",
    "outcome": "done",
    "request_id": "req_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "details": {"version": "3", "revision": "5"},
    "before": "2",
    "after": "3",
    "seq": 42,
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "erased": False,
}


_ALIAS: Final[dict[str, Any]] = {
    "name": "champion",
    "version": 3,
    "version_id": VERSION_ID,
    "revision": 2,
    "changed_at": AT,
    "changed_by": "ada",
}
_MOVE: Final[dict[str, Any]] = {
    "revision": 1,
    "from_version": None,
    "from_version_id": None,
    "to_version": 3,
    "to_version_id": VERSION_ID,
    "at": AT,
    "by": "ada",
}
_WORKSPACE: Final[dict[str, Any]] = {"id": _MODEL["workspace_id"], "name": "fraud", "created_at": AT}
_GROUP: Final[dict[str, Any]] = {"id": "grp_01J9Z3K6T2Q8W4V5R7X0Y1B2C3", "name": "analysts", "created_at": AT}
_GRANT: Final[dict[str, Any]] = {
    "id": "grt_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    "subject_kind": "group",
    "subject": _GROUP["id"],
    "role": "predictor",
    "kind": "workspace",
    "on": _WORKSPACE["id"],
    "created_at": AT,
    "created_by": "ada",
}
_DECIDING: Final[dict[str, Any]] = {
    "role": "predictor",
    "kind": "workspace",
    "on": _WORKSPACE["id"],
    "through": "analysts",
}

EXAMPLES: Final[dict[str, list[dict[str, Any]]]] = {
    **FEEDBACK,
    **RELEASES,
    **ALERTS,
    **ROLLOUTS,
    "AcceptSandbox": [{"accepted": "L1", "reason": "This kernel has no Landlock yet."}],
    "AllowCode": [{"allowed": True, "reason": "Our own people alone push models."}],
    "Alias": [_ALIAS],
    "AliasMovePage": [page(_MOVE)],
    "AliasPage": [page(_ALIAS)],
    "Approval": [_APPROVAL],
    "ApprovalPage": [page(_APPROVAL)],
    "AuditEntryPage": [page(_ENTRY)],
    "AuditErased": [{"entries": 12}],
    "AuditErasure": [{"subject": _USER["id"], "reason": "request 2026-114 of 14 March"}],
    "Caller": [
        {
            "key": _OWN_KEY,
            "session": None,
            "user": _USER,
            "scopes": ["admin"],
            "roles": [{"role": "admin", "kind": "installation", "on": "", "through": ""}],
        }
    ],
    "ChangeSettings": [{"settings": {"deadline_s": 0.5, "recording": {"fields": {"age": "hash"}}, "replicas": None}}],
    "ControlPlaneHealth": [{"status": "ok"}],
    "Credentials": [{"email": "ada@example.org", "password": "correct horse battery"}],
    "Browser": [
        {
            "csrf_token": "gkXvMvyXkdBjxQB0dQHNLEV5bMfr3yPTB5Kxe3IQvLU",
            "session": _SESSION_ID,
            "expires_at": AT,
            "idle_until": "2026-03-14T10:26:53.589793Z",
        }
    ],
    "SignOnCode": [{"code": "mkl_shown_in_the_browser", "verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}],
    "DirectoryLogin": [{"login": "ada", "password": "correct horse battery"}],
    "Explanation": [
        {"allowed": True, "reason": "granted", "scope": "predict", "grant": _DECIDING},
        {"allowed": False, "reason": "no_grant", "scope": "models:write", "grant": None},
    ],
    "Grant": [_GRANT],
    "GrantPage": [page(_GRANT)],
    "Group": [_GROUP],
    "GroupPage": [page(_GROUP)],
    "IssuedKey": [_ISSUED],
    "Key": [_KEY],
    "KeyPage": [page(_KEY)],
    "Members": [{"items": [_USER["id"]]}],
    "Model": [_MODEL],
    "ModelPage": [{"items": [_MODEL], "next_cursor": "Y2h1cm4"}],
    "MoveModel": [{"workspace": "fraud"}, {"owner": _USER["id"]}],
    "NewDescription": [{"description": "Who will leave next month?"}],
    "NewGrant": [
        {"subject_kind": "group", "subject": "analysts", "role": "predictor", "kind": "workspace", "on": "fraud"},
        {"subject_kind": "user", "subject": _USER["id"], "role": "auditor", "kind": "installation"},
    ],
    **BODIES,
    "NewGroup": [{"name": "analysts"}],
    "NewKey": [
        {
            "name": "web shop",
            "scopes": ["predict"],
            "rate": "600/min",
            "burst": 100,
            "concurrency": 8,
            "expires_in_days": 365,
        }
    ],
    "RotateKey": [{"keep_days": 14}],
    "BindKey": [{"names": ["uri:spiffe://example.org/shop"]}],
    "NewModel": [{"name": "churn", "description": "Who will leave next month?"}],
    "NewReplay": [{"last": 200}, {"predictions": [_PREDICTION_ID]}, {"rows": [[41, 3]]}],
    "NewWorkspace": [{"name": "fraud"}],
    "ChangePassword": [{"old": "correct horse battery", "new": "staple of another kind"}],
    "ChangeUser": [{"name": "ada", "display_name": "Ada Lovelace"}],
    "Invitation": [_INVITATION],
    "InvitationList": [{"items": [_INVITATION]}],
    "IssuedInvitation": [{**_INVITATION, "token": "mkl_shown_once_and_never_again"}],
    "NewInvitation": [{"email": "bob@example.org", "role": "developer"}, {}],
    "NewUser": [{"name": "bob", "email": "bob@example.org", "role": "developer"}, {"name": "nightly", "kind": "service"}],
    "PasswordLink": [{"token": "mkl_shown_once_and_never_again", "expires_at": AT}],
    "Registration": [
        {
            "token": "mkl_from_an_administrator",
            "name": "bob",
            "email": "bob@example.org",
            "password": "correct horse battery",
        }
    ],
    "Rename": [{"display_name": "Ada Lovelace"}],
    "Providers": [{"items": [{"name": "corp", "title": "Corporate", "kind": "oidc", "login": "/api/v1/auth/oidc/corp/login"}]}],
    "SetPassword": [{"token": "mkl_from_an_administrator", "password": "correct horse battery"}],
    "User": [_USER],
    "UserPage": [page(_USER)],
    "NewSigningKey": [{"signs_from": AT}],
    "PlannedUpload": [{"filename": "churn.joblib", "size": 184_320}],
    "PointTo": [{"version": 3}],
    "PredictionFactsPage": [page(_FACTS)],
    "PredictionRecord": [_RECORDED],
    "PublicKeys": [{"keys": [_PUBLIC_KEY]}],
    "Refuse": [{"reason": "Not before the audit."}],
    "Refresh": [{"refresh_token": _REFRESH}],
    "Replay": [{**_REPLAY_FACTS, "details": {"differing": [_DIFFERING], "skipped": [], "forgotten": 0, "worst": []}}],
    "Shadow": [SHADOW],
    "ShadowFactsPage": [page(SHADOW_FACTS)],
    "ReplayFactsPage": [page(_REPLAY_FACTS)],
    "Safety": [_SAFETY],
    "SessionList": [{"items": [_SESSION]}],
    "SetUpState": [{"needed": True}],
    "SetUp": [
        {"token": "mks_printed_by_modelkeep_serve", "name": "ada"},
        {"token": "mks_printed_by_modelkeep_serve", "email": "ada@example.org", "password": "correct horse battery"},
    ],
    "SetUpDone": [{"user": _USER, "key": {**_ISSUED, "name": "first key", "scopes": ["admin"]}}],
    "Tokens": [
        {
            "token_type": "Bearer",
            "access_token": _JWT,
            "expires_at": AT,
            "refresh_token": _REFRESH,
            "refresh_expires_at": "2026-03-21T09:26:53.589793Z",
            "session": _SESSION_ID,
        }
    ],
    "Version": [_VERSION, _REJECTED],
    "VersionPage": [page(_VERSION)],
    "Workspace": [_WORKSPACE],
    "WorkspacePage": [page(_WORKSPACE)],
}
"""Whole bodies: of requests and answers. What is within them is shown by them."""
