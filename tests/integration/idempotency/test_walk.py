"""Any walk of requests, repeats, other requests under a used key, days that pass: as a plain dictionary would have it."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.control import SITE, Rings, TestClock
from fixtures.control_api import api_over
from modelkeep.api.settings import ApiSettings
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.db import Database
from modelkeep.infra.idempotency import KEPT
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore

STEP = st.one_of(
    st.tuples(st.just("make"), st.sampled_from(["a", "b", "c", "No Name"]), st.sampled_from(["k1", "k2", "k3", None])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 23.0, 25.0]), st.none()),
)


@dataclass
class Expected:
    """What the installation should hold: models, and by key when, for what, and with which answer it came."""

    models: set[str] = field(default_factory=set)
    noted: dict[str, tuple[datetime, str, bytes]] = field(default_factory=dict)


async def walk(steps: list[tuple[str, object, str | None]], file: Path) -> None:
    clock, rings, expected = TestClock(), Rings(), Expected()
    db = Database(DatabaseSettings(url=f"sqlite:///{file}"))
    control = control_plane(
        db, ring_worker=rings.ring_worker, ring_courier=rings.ring_courier, limits=Limits(), site=SITE, clock=clock
    )
    app = api_over(control, Predictions(db, clock), db, LocalStore(file.parent / "blobs"), ApiSettings())
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada")
    headers = {"x-api-key": issued.secret.reveal()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers) as client:
        for what, value, key in steps:
            if what == "wait":
                assert isinstance(value, float)
                clock.advance(hours=value)
            else:
                given = {} if key is None else {"idempotency-key": key}
                answer = await client.post("/api/v1/models", json={"name": value}, headers=given)
                _compare(expected, answer, str(value), key, clock)
        found = {one["name"] for one in (await client.get("/api/v1/models")).json()["items"]}
        assert found == expected.models
        assert len((await client.get("/api/v1/audit")).json()["items"]) == 3 + len(found)
    await db.close()


def _compare(expected: Expected, answer: httpx.Response, name: str, key: str | None, clock: TestClock) -> None:
    noted = expected.noted.get(key) if key is not None else None
    if noted is not None and clock() - noted[0] > KEPT:
        noted = None
    says = (answer.status_code, answer.json().get("code"), answer.headers.get("idempotency-replayed"))
    if noted is not None and noted[1] == name:
        assert says == (201, None, "true")
        assert answer.content == noted[2]
    elif noted is not None:
        assert says == (409, "idempotency_key_reused", None)
    elif name == "No Name":
        assert says == (400, "invalid_name", None)
    elif name in expected.models:
        assert says == (409, "model_exists", None)
    else:
        assert says == (201, None, None)
        expected.models.add(name)
        if key is not None:
            expected.noted[key] = (clock(), name, answer.content)


@settings(max_examples=15, deadline=timedelta(seconds=20))
@given(st.lists(STEP, max_size=14))
def test_a_walk_ends_as_a_dictionary_would_have_it(migrated_sqlite: Path, steps: list[tuple[str, object, str | None]]):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "walk.db"
        shutil.copyfile(migrated_sqlite, file)
        asyncio.run(walk(steps, file))
