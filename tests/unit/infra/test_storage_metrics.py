"""What is asked of the store is counted once, under its outcome, by whichever process; the page shows all of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures.stores import content, stream
from modelkeep.contracts.errors import NotFound, TooLarge
from modelkeep.contracts.storage import Blob
from modelkeep.infra.exposition import Exposition
from modelkeep.infra.storage_metrics import FAMILIES, MeteredStore, StorageMeter, figures
from modelkeep.plugins.storage.local import LocalStore

NEVER = "0" * 64


def shown(folder: Path) -> dict[tuple[str, ...], float]:
    """What a server's page shows: numbers by name and values of labels, without a histogram's buckets and sums."""
    page = Exposition().page(FAMILIES, figures(folder, folder)()).decode()
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if not sample.name.endswith(("_bucket", "_sum")):
                found[sample.name.removeprefix("modelkeep_storage_"), *sample.labels.values()] = sample.value
    assert found.pop(("free_bytes",)) > 0
    return found


async def test_operations_are_counted_with_their_outcomes_and_bytes(tmp_path: Path):
    meter = StorageMeter(tmp_path / "metrics", 0)
    store = MeteredStore(LocalStore(tmp_path / "blobs"), meter)
    blob = await store.put(stream(b"ab", b"cde"), max_bytes=5)
    assert blob == Blob(blob.digest, 5)
    with pytest.raises(TooLarge):
        await store.put(stream(b"too long"), max_bytes=5)
    assert await content(store, blob.digest, start=1, end=3) == b"bc"
    assert await content(store, blob.digest) == b"abcde"
    os.close(await store.open(blob.digest))
    assert await store.size(blob.digest) == 5
    assert [one.digest async for one in store.stored()] == [blob.digest]
    for ask in (store.size, store.open):
        with pytest.raises(NotFound):
            await ask(NEVER)
    await store.remove(blob.digest)
    assert shown(tmp_path / "metrics") == {
        ("operations_total", "put", "ok"): 1,
        ("operations_total", "put", "too_large"): 1,
        ("operations_total", "read", "ok"): 2,
        ("operations_total", "open", "ok"): 1,
        ("operations_total", "open", "not_found"): 1,
        ("operations_total", "size", "ok"): 1,
        ("operations_total", "size", "not_found"): 1,
        ("operations_total", "list", "ok"): 1,
        ("operations_total", "delete", "ok"): 1,
        ("bytes_total", "put", "in"): 5,
        ("bytes_total", "read", "out"): 7,
        ("bytes_total", "open", "out"): 5,
        **{("operation_seconds_count", name): count for name, count in COUNTS.items()},
    }
    meter.close()


COUNTS = {"put": 2, "read": 2, "open": 2, "size": 2, "list": 1, "delete": 1}


async def test_a_put_that_is_cancelled_or_breaks_is_counted_as_that(tmp_path: Path):
    meter = StorageMeter(tmp_path / "metrics", 0)
    store = MeteredStore(LocalStore(tmp_path / "blobs"), meter)
    arrived = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        arrived.set()
        await asyncio.Event().wait()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    putting = asyncio.create_task(store.put(endless(), max_bytes=5))
    await arrived.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    with pytest.raises(ConnectionResetError):
        await store.put(broken(), max_bytes=5)
    found = shown(tmp_path / "metrics")
    assert found["operations_total", "put", "cancelled"] == found["operations_total", "put", "internal"] == 1
    assert ("bytes_total", "put", "in") not in found
    meter.close()


def test_several_processes_count_together_and_one_that_has_ended_stays_counted(tmp_path: Path):
    api, worker = StorageMeter(tmp_path, 0), StorageMeter(tmp_path, 1)
    for meter in (api, worker):
        meter.removed(100)
    worker.rotated(3)
    worker.keeps({"artifact": 10, "unused": 0})
    assert shown(tmp_path) == {
        ("freed_bytes_total",): 200,
        ("removed_files_total",): 2,
        ("key_rotations_total",): 1,
        ("keys_rotated_total",): 3,
        ("kept_bytes", "artifact"): 10,
        ("kept_bytes", "unused"): 0,
    }
    api.close()
    worker.close()
    counted = shown(tmp_path)
    assert counted["freed_bytes_total",] == 200
    assert ("kept_bytes", "artifact") not in counted  # nobody can say so now
