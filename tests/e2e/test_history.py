"""A server's spool, the real courier, and what people and programs find."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fixtures.history import record
from fixtures.installation import Installation
from modelkeep.client import Client, Invalid, NotFound
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.infra.spool import SpoolWriter


def _modelkeep(house: Installation, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
    command = [sys.executable, "-m", "modelkeep.app.cli", "predictions", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment)


def _found_within(client: Client, sought: PredictionRecord, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert client.prediction(sought.id).id == sought.id
        except NotFound:
            assert time.monotonic() < deadline, f"not found in {seconds} s"
            time.sleep(0.02)
        else:
            return


@pytest.fixture(scope="module")
def written(house: Installation) -> list[PredictionRecord]:
    """Predictions of another server on the same data directory, found within two seconds of their last."""
    writer = SpoolWriter(house.data / "spool/another")
    now = time.time()
    records = [record(now - 30 + number, deployment="told", version=number % 3) for number in range(30)]
    records[7] = record(now - 23, deployment="told", version=1, outcome="error", code="model_failed", status=500, outputs=None)
    records[4] = record(now - 26, deployment="told", version=1, key_id="ses_1", user="usr_7")
    writer.append(records)
    with house.client() as client:
        _found_within(client, records[-1], 2)
    writer.close()
    return records


def test_the_client_finds_predictions_and_what_went_in(house: Installation, written: list[PredictionRecord]) -> None:
    with house.client() as client:
        found = client.predictions(deployment="told", limit=100)
        assert [one.id for one in found] == [one.id for one in reversed(written)]
        assert found[0].inputs is None
        [failed] = client.predictions(deployment="told", outcome="error", since=datetime.fromtimestamp(written[0].at, UTC))
        assert [one.id for one in client.predictions(user="usr_7")] == [written[4].id]
        whole = client.prediction(failed.id)
        assert whole.inputs is not None
        assert whole.inputs.value == json.loads(written[7].inputs or b"")
        assert (whole.outputs, whole.code, whole.status) == (None, "model_failed", 500)
        with pytest.raises(Invalid):
            client.predictions(color="red")


def test_people_list_show_and_export(house: Installation, written: list[PredictionRecord], tmp_path: Path) -> None:
    listed = _modelkeep(house, "--deployment", "told", "--version", "2", "-n", "3", cwd=tmp_path)
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()[1:]] == [
        one.id for one in reversed(written) if one.version == 2
    ][:3], listed.stderr
    of_one = _modelkeep(house, "--user", "usr_7", "--json", cwd=tmp_path)
    assert [(one["id"], one["user"], one["key_id"]) for one in json.loads(of_one.stdout)] == [(written[4].id, "usr_7", "ses_1")]
    shown = _modelkeep(house, "show", written[3].id, cwd=tmp_path)
    assert "told, version 0 (ver_A)" in shown.stdout
    assert '{"inputs": [[' in shown.stdout
    exported = _modelkeep(house, "export", "told.parquet", "--deployment", "told", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert pq.read_table(tmp_path / "told.parquet")["id"].to_pylist() == [one.id for one in reversed(written)]
    assert _modelkeep(house, "--outcome", "great", cwd=tmp_path).returncode == 2
    missing = _modelkeep(house, "show", "prd_none", cwd=tmp_path)
    assert missing.returncode == 3
    assert "history" in missing.stderr
