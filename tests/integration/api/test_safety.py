"""What is dangerous is refused until an administrator allows it, with a reason that stays."""

import httpx
import pytest

from fixtures.control import ADMIN, SITE
from fixtures.control_api import key_with
from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.confinement import Level
from modelkeep.contracts.snapshot import Limits, decode_snapshot
from modelkeep.infra.broadcast import latest
from modelkeep.infra.db import Database

PATH = "/api/v1/safety"
CODE = {"file": ("m.joblib", b"x")}


async def upload(client: httpx.AsyncClient, **files: object) -> httpx.Response:
    return await client.post("/api/v1/models/m/versions", files=files or CODE, params={"create": "true"})


async def test_files_that_can_run_code_are_refused_until_they_are_allowed(client: httpx.AsyncClient):
    assert (await client.get(PATH)).json()["code_formats"] == {"allowed": False, "reason": "", "set_by": "", "set_at": None}
    refused = await upload(client)
    assert (refused.status_code, refused.json()["code"]) == (403, "code_formats_off")
    assert "modelkeep safety allow-code" in refused.json()["detail"]
    assert (await upload(client, file=("m.onnx", b"x"))).status_code == 202  # what is data needs no switch
    allowed = await client.put(f"{PATH}/code-formats", json={"allowed": True, "reason": " our own "})
    assert allowed.json()["code_formats"] | {"set_at": 0} == {
        "allowed": True,
        "reason": "our own",
        "set_by": "ada",
        "set_at": 0,
    }
    assert (await upload(client)).status_code == 202
    await client.put(f"{PATH}/code-formats", json={"allowed": False, "reason": "no more"})
    assert (await upload(client)).status_code == 403


async def test_a_planned_upload_is_refused_too(client: httpx.AsyncClient):
    planned = await client.post(
        "/api/v1/models/m/versions/check", json={"filename": "m.joblib", "size": 5}, params={"create": "true"}
    )
    assert planned.json()["code"] == "code_formats_off"
    for hooks, code in ((True, "code_formats_off"), (False, "")):
        answer = await client.post(
            "/api/v1/models/m/versions/check",
            json={"filename": "m.onnx", "size": 5, "hooks": hooks},
            params={"create": "true"},
        )
        assert (answer.json()["code"] if answer.content else "") == code


async def test_whoever_uploads_code_needs_a_right_of_their_own(
    client: httpx.AsyncClient, control: ControlPlane, admin_key: str
):
    await client.put(f"{PATH}/code-formats", json={"allowed": True, "reason": "our own"})
    client.headers["X-API-Key"] = await key_with(control, admin_key, Scope.MODELS_WRITE)
    refused = await upload(client)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "models:code" in refused.json()["detail"]
    assert (await upload(client, file=("m.onnx", b"x"))).status_code == 202
    hooks = {"file": ("m.onnx", b"x"), "hooks": ("hooks.py", b"x")}
    assert (await upload(client, **hooks)).json()["code"] == "forbidden"
    client.headers["X-API-Key"] = await key_with(control, admin_key, Scope.MODELS_WRITE, Scope.MODELS_CODE)
    assert (await upload(client)).status_code == 202
    assert (await upload(client, **hooks)).status_code == 202


async def test_a_change_is_in_the_audit_trail_with_its_reason(client: httpx.AsyncClient):
    await client.put(f"{PATH}/code-formats", json={"allowed": True, "reason": "our own"})
    (entry,) = (await client.get("/api/v1/audit", params={"target": "code_formats"})).json()["items"]
    assert (entry["action"], entry["actor_name"]) == ("safety.code_formats", "ada")
    assert entry["details"] == {"value": "on", "reason": "our own"}


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
async def test_no_change_without_a_reason(client: httpx.AsyncClient, reason: str):
    answer = await client.put(f"{PATH}/code-formats", json={"allowed": True, "reason": reason})
    assert answer.status_code == 400
    assert not (await client.get(PATH)).json()["code_formats"]["allowed"]


async def test_a_long_reason_is_kept_whole(client: httpx.AsyncClient):
    await client.put(f"{PATH}/code-formats", json={"allowed": True, "reason": "x" * 1000})
    assert (await client.get(PATH)).json()["code_formats"]["reason"] == "x" * 1000


@pytest.mark.parametrize("level", ["L1", "L0"])
async def test_no_level_can_be_accepted_that_the_settings_do_not_allow(client: httpx.AsyncClient, level: str):
    answer = await client.put(f"{PATH}/sandbox", json={"accepted": level, "reason": "old kernel"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_acceptable")
    assert "runners.unsafe_allow_level" in answer.json()["detail"]


@pytest.mark.parametrize(("allowed", "wanted"), [("L1", "L1"), ("L0", "L1"), ("L0", "L0")])
async def test_an_accepted_level_is_news_for_serving(db: Database, allowed: str, wanted: str):
    control = control_plane(db, ring_worker=bool, ring_courier=bool, limits=Limits(), site=SITE, acceptable=allowed)
    safety = await control.switches.accept(ADMIN, wanted, "old kernel")
    assert safety.accepted is not None
    assert (safety.accepted.short, safety.accepted_name) == (wanted, wanted)
    assert (await _news(db)) is safety.accepted
    await control.switches.accept(ADMIN, None, "new kernel")
    assert (await _news(db)) is None


async def test_what_is_done_while_a_lower_level_is_in_force_says_so_in_the_trail(db: Database):
    def installed(acceptable: str) -> ControlPlane:
        return control_plane(db, ring_worker=bool, ring_courier=bool, limits=Limits(), site=SITE, acceptable=acceptable)

    control = installed("L1")
    await control.models.create(ADMIN, "before")
    await control.switches.accept(ADMIN, "L1", "old kernel")
    await control.models.create(ADMIN, "meanwhile")
    await installed("").models.create(ADMIN, "not-here")  # this machine's settings let nobody accept it any more
    await control.switches.accept(ADMIN, None, "new kernel")
    await control.models.create(ADMIN, "after")
    assert [entry.details for entry in reversed(await control.audit.entries(limit=10))] == [
        {"name": "before", "workspace": "wsp_default"},
        {"value": "L1", "reason": "old kernel", "sandbox_accepted": "L1"},
        {"name": "meanwhile", "workspace": "wsp_default", "sandbox_accepted": "L1"},
        {"name": "not-here", "workspace": "wsp_default"},
        {"value": "off", "reason": "new kernel"},
        {"name": "after", "workspace": "wsp_default"},
    ]


async def test_a_lower_level_than_allowed_is_refused(db: Database):
    control = control_plane(db, ring_worker=bool, ring_courier=bool, limits=Limits(), site=SITE, acceptable="L1")
    with pytest.raises(Exception, match="L0 cannot be accepted"):
        await control.switches.accept(ADMIN, "L0", "why not")


async def _news(db: Database) -> Level | None:
    async with db.read() as tx:
        news = await latest(tx, "snapshot", 0)
    assert news is not None
    return decode_snapshot(news.payload).accepted
