"""What the local store promises beyond what every store does: syncs, locks, and what the disk says."""

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelkeep.contracts import discovery
from modelkeep.contracts.errors import StorageFull
from modelkeep.contracts.storage import StorageSettings
from modelkeep.plugins import on_disk
from modelkeep.plugins.on_disk import in_thread
from modelkeep.plugins.storage.local import LocalStore


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(store: LocalStore, digest: str) -> bytes:
    return b"".join([piece async for piece in store.read(digest)])


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return discovery.find(discovery.STORAGE, "local").create(tmp_path / "blobs", StorageSettings())


async def test_a_put_that_is_cancelled_before_its_file_is_there_leaves_nothing_either(store: LocalStore, tmp_path: Path):
    gate = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, gate.wait)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    putting = [asyncio.create_task(store.put(stream(b"x"), max_bytes=10)) for _ in range(5)]
    await asyncio.sleep(0)
    for one in putting:
        one.cancel()
    await asyncio.sleep(0)
    for one in putting:  # again, as a shutdown does it to those that an impatient caller has left
        one.cancel()
    gate.set()
    await busy
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*putting, return_exceptions=True))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert files(tmp_path) == []


async def test_what_is_done_in_a_thread_has_ended_when_its_cancellation_is_told_however_often_it_came():
    gate, done = threading.Event(), []

    def work() -> None:
        gate.wait()
        done.append(True)

    doing = asyncio.create_task(in_thread(work))
    for _ in range(3):
        await asyncio.sleep(0)
        doing.cancel()
    await asyncio.sleep(0)
    assert not doing.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert done == [True]


def test_every_folder_on_the_way_is_this_users_alone_and_known_to_the_one_above(tmp_path: Path, monkeypatch):
    synced = []
    monkeypatch.setattr(on_disk, "sync_folder", synced.append)
    on_disk.make_folder(tmp_path / "a" / "b" / "c")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c")] == [0o700] * 3
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b"]


async def test_a_put_that_is_cancelled_leaves_nothing(store: LocalStore, tmp_path: Path):
    arrived = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        arrived.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(store.put(endless(), max_bytes=10**6))
    await arrived.wait()
    assert len(files(tmp_path)) == 1
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert files(tmp_path) == []


async def test_a_put_that_is_cancelled_in_the_middle_of_a_write_lets_the_write_end_first(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A descriptor that is closed under a writing thread may by then be another file's."""
    told: list[str] = []
    writing, go_on = threading.Event(), threading.Event()
    write, close = os.write, os.close

    def slow_write(fd: int, data: bytes) -> int:
        if len(data) == 10_000:
            writing.set()
            assert go_on.wait(10)
            told.append("written")
        return write(fd, data)

    def telling_close(fd: int) -> None:
        if "unfinished" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            told.append("closed")
        close(fd)

    monkeypatch.setattr(os, "write", slow_write)
    monkeypatch.setattr(os, "close", telling_close)
    putting = asyncio.create_task(store.put(stream(b"x" * 10_000), max_bytes=10**6))
    assert await asyncio.to_thread(writing.wait, 10)
    told.clear()
    putting.cancel()
    await asyncio.sleep(0.05)
    assert not putting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert told == ["written", "closed"]
    assert files(tmp_path) == []


async def test_the_same_content_is_kept_once_and_a_damaged_copy_is_healed(store: LocalStore, tmp_path: Path):
    blob = await store.put(stream(b"abc"), max_bytes=3)
    path = tmp_path / "blobs" / blob.digest[:2] / blob.digest
    path.chmod(0o600)
    path.write_bytes(b"abX")
    assert await store.put(stream(b"a", b"bc"), max_bytes=3) == blob
    assert await content(store, blob.digest) == b"abc"
    assert len(files(tmp_path)) == 1


async def test_a_full_disk_is_said_to_be_full_and_leaves_nothing(store: LocalStore, tmp_path: Path):
    await store.put(stream(b"before"), max_bytes=100)
    kept = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageFull):
            await store.put(stream(*[b"x" * 1024] * 8), max_bytes=10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(tmp_path) == kept


async def test_a_disk_fault_that_is_not_fullness_is_not_called_so(store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        await store.put(stream(b"x"), max_bytes=1)


async def test_a_blob_is_synced_before_it_is_moved_and_its_folder_after(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def telling_fsync(fd: int) -> None:
        told.append("folder" if Path(f"/proc/self/fd/{fd}").resolve().is_dir() else "file")
        fsync(fd)

    def telling_rename(path: Path, target: Path) -> Path:
        told.append("move")
        return rename(path, target)

    await store.put(stream(b"makes the folders"), max_bytes=100)
    monkeypatch.setattr(os, "fsync", telling_fsync)
    monkeypatch.setattr(Path, "rename", telling_rename)
    await store.put(stream(b"makes the folders"), max_bytes=100)
    assert told == ["file", "move", "folder", "folder"]


_WRITE_AND_HANG = """
import asyncio, sys
from pathlib import Path
from modelkeep.plugins.storage.local import LocalStore
async def chunks():
    yield b"half a file"
    print("written", flush=True)
    await asyncio.Event().wait()
asyncio.run(LocalStore(Path(sys.argv[1])).put(chunks(), max_bytes=1000))
"""


async def test_a_large_blob_is_synced_as_it_comes_so_that_its_end_holds_up_nobody(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    mib, synced = 1 << 20, []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    await store.put(stream(*[bytes(mib)] * 40), max_bytes=40 * mib)
    assert synced == [16 * mib, 32 * mib]


async def test_what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not(store: LocalStore, tmp_path: Path):
    root = tmp_path / "blobs"
    with subprocess.Popen([sys.executable, "-c", _WRITE_AND_HANG, str(root)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        assert await store.sweep() == 0
        assert len(files(root)) == 1
        writer.kill()
    assert await store.sweep() == 1
    assert files(root) == []
