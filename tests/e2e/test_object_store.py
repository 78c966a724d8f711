"""An installation whose model files are in an object store, sealed: the store is ended under it, and comes back."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sklearn.dummy import DummyRegressor

from fixtures.installation import Installation, eventually
from fixtures.object_store import SECRET, ObjectStore, object_store_server
from modelkeep.infra.envelopes import new_master_key

PATIENCE_S = 90.0


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[ObjectStore]:
    """A server for one test, which may stop it."""
    folder = tmp_path / "object-store"
    folder.mkdir()
    with object_store_server(folder) as server:
        yield server


def artifact(folder: Path, value: float) -> Path:
    path = folder / f"{value}.pkl"
    path.write_bytes(pickle.dumps(DummyRegressor(strategy="constant", constant=value).fit([[0.0]], [0.0])))
    return path


def predicted(client: httpx.Client) -> float | int:
    answer = client.post("/api/v1/predict/steady", json={"inputs": [[0.0]]})
    return float(answer.json()["outputs"]["value"][0]) if answer.status_code == 200 else answer.status_code


def uploaded(client: httpx.Client, file: Path) -> httpx.Response:
    with file.open("rb") as content:
        return client.post("/api/v1/models/steady/versions", files={"file": (file.name, content)})


@pytest.mark.timeout(400)
def test_predictions_and_restarts_need_no_object_store_and_uploads_wait_for_it(own_store: ObjectStore, tmp_path: Path):
    keys, master_keys = tmp_path / "keys", tmp_path / "master-keys"
    keys.write_text(f"testkey\n{SECRET}\n")
    master_keys.write_text(new_master_key("first") + "\n")
    settings = {
        "MODELKEEP_STORAGE__KIND": "s3",
        "MODELKEEP_STORAGE__BUCKET": own_store.bucket(),
        "MODELKEEP_STORAGE__ENDPOINT": own_store.url,
        "MODELKEEP_STORAGE__KEYS_FILE": str(keys),
        "MODELKEEP_STORAGE__MASTER_KEYS_FILE": str(master_keys),
        "MODELKEEP_STORAGE__TIMEOUT_S": "6",
    }
    house = Installation(tmp_path / "data", **settings).start()
    try:
        house.wait(PATIENCE_S).set_up()
        with house.http() as client, house.client() as modelkeep:
            modelkeep.push(artifact(tmp_path, 1.0), "steady")
            eventually(lambda: predicted(client) == 1.0, "an answer")
            own_store.stop()
            assert predicted(client) == 1.0
            refused = uploaded(client, artifact(tmp_path, 2.0))
            assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            assert predicted(client) == 1.0
        _starts_again(house)
        with house.http() as client, house.client() as modelkeep:
            eventually(lambda: predicted(client) == 1.0, "the runner starts from its copy")
            assert uploaded(client, artifact(tmp_path, 2.0)).status_code == 503
            own_store.start()
            began = time.monotonic()
            eventually(lambda: uploaded(client, artifact(tmp_path, 2.0)).status_code == 202, "uploads are taken again", 15)
            print(f"\nback after {time.monotonic() - began:.2f} s")
            eventually(lambda: modelkeep.version("steady", 2).state == "ready", "the new version is ready")
            modelkeep.promote("steady", 2)
            eventually(lambda: predicted(client) == 2.0, "the new version answers")
            assert modelkeep.download("steady", 1, tmp_path / "back.pkl").read_bytes() == artifact(tmp_path, 1.0).read_bytes()
    finally:
        house.stop()
    assert SECRET not in house.log.read_text()


def _starts_again(house: Installation) -> None:
    assert house.stop() == 0
    house.start().wait(PATIENCE_S)
