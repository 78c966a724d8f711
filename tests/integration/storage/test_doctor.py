"""The doctor keeps, reads back and removes a file in the object store, and leaves nothing there."""

import json
from pathlib import Path

import pytest

from fixtures.object_store import KEY_ID, SECRET, ObjectStore
from modelkeep.app import doctor
from modelkeep.app.doctor import Finding
from modelkeep.app.settings import Settings
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.storage import StorageSettings
from modelkeep.plugins.storage.s3 import S3BlobStore


def looked(storage: StorageSettings, data: Path) -> Finding:
    (finding,) = doctor.storage(Settings(data=data, storage=storage))
    return finding


def test_a_sound_object_store_is_found_so_by_using_it(object_store: ObjectStore, tmp_path: Path):
    bucket = object_store.bucket()
    finding = looked(object_store.settings(bucket), tmp_path / "data")
    assert finding.status == "ok"
    assert "kept, read back and removed" in finding.detail
    assert object_store.names(bucket) == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "changes",
    [{"secret_access_key": "planted-wrong-secret"}, {"endpoint": "http://127.0.0.1:9"}, {"bucket": ""}],
    ids=["wrong secret", "nobody there", "no bucket"],
)
def test_one_that_cannot_be_used_fails_in_words_without_the_secret(
    object_store: ObjectStore, tmp_path: Path, changes: dict[str, object]
):
    settings = object_store.settings(object_store.bucket(), timeout_s=2.0)
    finding = looked(StorageSettings(**{**vars(settings), **changes}), tmp_path)
    assert (finding.status, bool(finding.advice)) == ("fail", True)
    assert SECRET not in json.dumps(finding.document())
    assert "planted" not in json.dumps(finding.document())


async def test_keys_are_read_from_their_file_and_again_after_a_change(object_store: ObjectStore, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY_ID}\n{SECRET}\n")
    changes = {"access_key_id": "", "secret_access_key": "", "keys_file": str(keys)}
    store = S3BlobStore.create(tmp_path / "copies", object_store.settings(object_store.bucket(), **changes))
    assert [name async for name in store.notes()] == []
    keys.write_text("only-an-id\n")
    with pytest.raises(Invalid, match="two lines") as refused:
        S3BlobStore.create(tmp_path / "copies", object_store.settings(object_store.bucket(), **changes))
    assert "only-an-id" not in refused.value.message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"access_key_id": ""}, "access_key_id"),
        ({"secret_access_key": ""}, "secret_access_key"),
        ({"sign_in": "role"}, "role_arn"),
        ({"sign_in": "web-identity", "role_arn": "arn:x"}, "web_identity_token_file"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file"),
    ],
)
def test_what_is_missing_is_named(object_store: ObjectStore, tmp_path: Path, changes: dict[str, object], named: str):
    with pytest.raises(Invalid, match=f"storage.{named}"):
        S3BlobStore.create(tmp_path, object_store.settings("any", **changes))
