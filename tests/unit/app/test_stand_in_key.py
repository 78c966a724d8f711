"""The file with the key that stands for callers without one: read once, before anything is started."""

import hashlib
from pathlib import Path

import pytest

from modelkeep.app.roles import key_digest
from modelkeep.contracts.errors import Invalid


def test_the_key_becomes_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("mk_secret\n")
    assert key_digest(str(file)) == hashlib.sha256(b"mk_secret").hexdigest()
    assert key_digest("") == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"mk_one mk_two", b"mk_one\nmk_two\n", b"mk_\xff", None])
def test_what_holds_no_single_key_ends_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Invalid, match="stand_in_key_file") as refused:
        key_digest(str(file))
    assert "mk_" not in refused.value.message
    assert str(tmp_path) not in refused.value.message
