"""Folders that are lent to runners: closed to others, and gone with all that is in them."""

import os
import stat

from modelkeep.app.folders import Folders


async def test_a_folder_is_closed_to_others_and_removed_with_what_is_in_it(tmp_path):
    folders = Folders(tmp_path / "lent")
    kept, removed = folders.make("runner-1", 1), folders.make("runner-1", 1)
    try:
        for one in (kept, removed):
            assert stat.S_IMODE(one.path.stat().st_mode) == 0o700
            assert os.fstat(one.fd).st_ino == one.path.stat().st_ino
            (one.path / "a" / "b").mkdir(parents=True)
            (one.path / "a" / "b" / "file").write_bytes(b"x")
        await folders.remove(removed.path)
        assert [path.name for path in (tmp_path / "lent").iterdir()] == [kept.path.name]
    finally:
        os.close(kept.fd)
        os.close(removed.fd)


async def test_removing_follows_no_link(tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "file").write_text("theirs")
    folders = Folders(tmp_path / "lent")
    folder = folders.make("runner-1", 1)
    os.close(folder.fd)
    (folder.path / "file").symlink_to(tmp_path / "others" / "file")
    (folder.path / "folder").symlink_to(tmp_path / "others")
    await folders.remove(folder.path)
    folders.sweep()
    assert (tmp_path / "others" / "file").read_text() == "theirs"


async def test_a_sweep_removes_what_an_earlier_life_left(tmp_path):
    folders = Folders(tmp_path / "lent")
    folders.sweep()
    os.close(folders.make("runner-7", 1).fd)
    folders.sweep()
    assert not (tmp_path / "lent").exists()
