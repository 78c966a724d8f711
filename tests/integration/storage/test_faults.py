"""Between us and a real object store everything that can go wrong goes wrong: nothing wrong is acknowledged, or served."""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from fixtures.faults import Exchange, Fault, FaultyProxy, faulty, no_fault
from fixtures.object_store import ObjectStore
from fixtures.stores import Keeping, content, keeping, stream
from modelkeep.contracts.errors import DamagedFile, MasterKeyMissing, ModelkeepError, NotFound, StorageUnavailable
from modelkeep.contracts.storage import BlobStore

MIB = 1 << 20
DATA = random.Random(7).randbytes(300_000)
CAMPAIGN = 100  # on the way down, for each of the two stores: 200 in all


@pytest_asyncio.fixture
async def proxy(object_store: ObjectStore) -> AsyncIterator[FaultyProxy]:
    async with faulty(object_store.address) as one:
        yield one


def behind(place: Keeping, proxy: FaultyProxy, timeout_s: float = 6.0) -> BlobStore:
    """A store on the same bucket, with nothing cached, that has the proxy before it."""
    return place.store(elsewhere=True, settings=replace(place.settings, endpoint=proxy.url, timeout_s=timeout_s))


def is_object(exchange: Exchange) -> bool:
    return exchange.method == "GET" and re.search(r"/[0-9a-f]{2}/[0-9a-f]{64}", exchange.target) is not None


def times(count: int, fault: Fault) -> Fault:
    """The fault, for the first `count` exchanges that it applies to."""
    left = [count]

    def some(exchange: Exchange) -> None:
        if left[0] and not exchange.answered and (exchange.method in {"PUT", "POST"} or is_object(exchange)):
            left[0] -= 1
            fault(exchange)

    return some


def slow_down(exchange: Exchange) -> None:
    exchange.refuse("503 Slow Down", "SlowDown")


def internal_error(exchange: Exchange) -> None:
    exchange.refuse("500 Internal Server Error", "InternalError")


def cut_short(exchange: Exchange) -> None:
    exchange.send_only = len(exchange.answer) // 2


def shorter_than_asked(exchange: Exchange) -> None:
    del exchange.answer[len(exchange.answer) // 2 :]


def closed_at_once(exchange: Exchange) -> None:
    exchange.gone = True


def no_http(exchange: Exchange) -> None:
    exchange.status = b""
    exchange.headers.clear()
    exchange.answer.clear()


def wrong_length(exchange: Exchange) -> None:
    exchange.headers[b"content-length"] = str(len(exchange.answer) + 10).encode()


def flip(exchange: Exchange) -> None:
    if exchange.answer:
        exchange.answer[len(exchange.answer) // 3] ^= 0x10


ANSWERS = {
    fault.__name__: fault
    for fault in (slow_down, internal_error, cut_short, shorter_than_asked, closed_at_once, no_http, wrong_length, flip)
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_fault_that_passes_costs_a_repetition(bucket_place: Keeping, proxy: FaultyProxy, name: str):
    blob = await bucket_place.store().put(stream(DATA), max_bytes=len(DATA))
    proxy.after = times(1, ANSWERS[name])
    opened = await behind(bucket_place, proxy).open(blob.digest)
    assert os.pread(opened, len(DATA) + 1, 0) == DATA
    os.close(opened)


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_fault_that_stays_is_said_and_nothing_wrong_is_served(bucket_place: Keeping, proxy: FaultyProxy, name: str):
    blob = await bucket_place.store().put(stream(DATA), max_bytes=len(DATA))
    proxy.after = times(10_000, ANSWERS[name])
    store = behind(bucket_place, proxy)
    received = bytearray()
    with pytest.raises((StorageUnavailable, DamagedFile)):
        async for piece in store.read(blob.digest):
            received += piece
    assert len(received) < len(DATA)
    proxy.after = no_fault
    assert await content(store, blob.digest) == DATA


@pytest.mark.parametrize("name", ["slow_down", "internal_error", "closed_at_once", "no_http"])
async def test_an_upload_is_acknowledged_after_a_fault_that_passes_and_refused_while_it_stays(
    bucket_place: Keeping, proxy: FaultyProxy, name: str
):
    proxy.after = times(2, ANSWERS[name])
    store = behind(bucket_place, proxy)
    blob = await store.put(stream(DATA), max_bytes=len(DATA))
    assert await content(bucket_place.store(elsewhere=True), blob.digest) == DATA
    proxy.after = times(10_000, ANSWERS[name])
    with pytest.raises(StorageUnavailable) as refused:
        await store.put(stream(DATA[:-1]), max_bytes=len(DATA))
    assert refused.value.retry_after_s == 5


async def test_bytes_that_change_on_their_way_up_are_not_acknowledged(bucket_place: Keeping, proxy: FaultyProxy):
    def flip_up(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.body:
            exchange.body[len(exchange.body) // 2] ^= 1

    store = behind(bucket_place, proxy)
    proxy.before = flip_up
    with pytest.raises(StorageUnavailable):
        await store.put(stream(DATA), max_bytes=len(DATA))
    proxy.before = no_fault
    blob = await store.put(stream(DATA), max_bytes=len(DATA))  # what was left there is not taken for it
    assert await content(bucket_place.store(elsewhere=True), blob.digest) == DATA


async def test_a_store_that_keeps_other_bytes_than_it_was_sent_is_found_out(
    bucket_place: Keeping, proxy: FaultyProxy, object_store: ObjectStore
):
    """A store that checks nothing: it says that it has stored what it has not."""

    def forget(exchange: Exchange) -> None:
        if exchange.method == "PUT":
            exchange.refuse("200 OK", "")
            exchange.answer.clear()
            exchange.headers[b"etag"] = b'"0123456789abcdef0123456789abcdef"'

    proxy.before = forget
    with pytest.raises(ModelkeepError):
        await behind(bucket_place, proxy).put(stream(DATA), max_bytes=len(DATA))
    assert object_store.names(bucket_place.settings.bucket) == []


async def test_wrong_etags_of_the_parts_of_a_large_upload_are_not_acknowledged(bucket_place: Keeping, proxy: FaultyProxy):
    data = random.Random(8).randbytes(18 * MIB)

    def wrong_etag(exchange: Exchange) -> None:
        if exchange.method == "PUT" and "partNumber" in exchange.target:
            exchange.headers[b"etag"] = b'"00000000000000000000000000000000"'

    store = behind(bucket_place, proxy)
    proxy.after = wrong_etag
    try:
        blob = await store.put(stream(data), max_bytes=len(data))
    except StorageUnavailable:
        assert bucket_place.lying() == []
    else:  # a store may not care for the tags; then it must have the bytes
        assert await content(bucket_place.store(elsewhere=True), blob.digest) == data
    proxy.after = no_fault
    blob = await store.put(stream(data), max_bytes=len(data))
    assert await content(bucket_place.store(elsewhere=True), blob.digest) == data


async def test_a_stalled_answer_ends_at_its_deadline(bucket_place: Keeping, proxy: FaultyProxy):
    blob = await bucket_place.store().put(stream(DATA), max_bytes=len(DATA))

    def stall(exchange: Exchange) -> None:
        exchange.stall = True

    proxy.after = stall
    store = behind(bucket_place, proxy, timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match=r"in time|not answer"):
        await store.open(blob.digest)
    assert time.monotonic() - began < 15
    proxy.after = times(1, stall)
    assert await content(behind(bucket_place, proxy, timeout_s=3.0), blob.digest) == DATA


async def test_a_second_start_needs_no_network(object_store: ObjectStore, tmp_path, proxy: FaultyProxy):
    place = keeping("s3", tmp_path, object_store)
    store = behind(place, proxy)
    blob = await store.put(stream(DATA), max_bytes=len(DATA))
    before = proxy.seen
    os.close(await store.open(blob.digest))
    assert proxy.seen == before
    proxy.before = internal_error
    opened = await store.open(blob.digest)
    assert os.pread(opened, len(DATA), 0) == DATA
    assert await content(store, blob.digest) == DATA
    os.close(opened)


async def test_a_file_that_is_gone_is_not_there_by_the_copy_of_its_envelope(
    object_store: ObjectStore, tmp_path, proxy: FaultyProxy
):
    place = keeping("s3, sealed", tmp_path, object_store)
    store = behind(place, proxy, timeout_s=2.0)
    blob = await store.put(stream(DATA), max_bytes=len(DATA))
    await place.store(elsewhere=True).remove(blob.digest)
    proxy.before = lambda exchange: internal_error(exchange) if "/notes/" in exchange.target else None
    with pytest.raises(NotFound):
        await store.size(blob.digest)


async def test_a_sealed_file_opens_while_the_bucket_is_away(object_store: ObjectStore, tmp_path, proxy: FaultyProxy):
    place = keeping("s3, sealed", tmp_path, object_store)
    store = behind(place, proxy)
    blob = await store.put(stream(DATA), max_bytes=len(DATA))
    proxy.before = internal_error
    opened = await store.open(blob.digest)
    assert os.pread(opened, len(DATA), 0) == DATA
    os.close(opened)


@pytest.mark.timeout(300)
async def test_every_bit_that_is_flipped_on_its_way_down_is_found(bucket_place: Keeping, proxy: FaultyProxy):
    blob = await bucket_place.store().put(stream(DATA), max_bytes=len(DATA))
    drawn = random.Random(99)
    flips, found = 0, 0

    def flip_one(exchange: Exchange) -> None:
        nonlocal flips
        if is_object(exchange) and exchange.ok and exchange.answer:
            bit = drawn.randrange(8 * len(exchange.answer))
            exchange.answer[bit // 8] ^= 1 << bit % 8
            flips += 1

    proxy.after = flip_one
    for _ in range(CAMPAIGN):
        received = bytearray()
        try:
            async for piece in behind(bucket_place, proxy).read(blob.digest):
                received += piece
        except (DamagedFile, MasterKeyMissing):
            found += len(received) < len(DATA)
    print(f"\n{found} of {flips} flipped bits found")
    assert found == flips == CAMPAIGN


async def test_a_damaged_copy_is_fetched_again(object_store: ObjectStore, tmp_path):
    place = keeping("s3", tmp_path, object_store)
    store = place.store()
    blob = await store.put(stream(DATA), max_bytes=len(DATA))
    (copy,) = [path for path in place.folder.rglob("copies/*") if path.is_file()]
    copy.chmod(0o600)
    copy.write_bytes(b"X" + DATA[1:])
    opened = await store.open(blob.digest)
    assert os.pread(opened, len(DATA), 0) == DATA
    os.close(opened)


async def test_the_cache_keeps_its_bound_and_what_is_in_use(object_store: ObjectStore, tmp_path):
    place = keeping("s3", tmp_path, object_store)
    store = place.store(settings=replace(place.settings, cache_gb=2.5 * MIB / 1024**3))
    blobs = []
    opened = -1
    for number in range(5):
        blobs.append(await store.put(stream(bytes([number]) * MIB), max_bytes=MIB))
        if number == 0:
            opened = await store.open(blobs[0].digest)
    kept = {path.name for path in place.folder.rglob("copies/*") if path.is_file()}
    assert kept == {blobs[0].digest, blobs[4].digest}  # the one in use, and the newest
    os.close(opened)
    await store.put(stream(b"more"), max_bytes=MIB)
    assert await content(store, blobs[0].digest) == bytes(MIB)


async def test_replicas_that_start_at_once_fetch_once(object_store: ObjectStore, tmp_path, proxy: FaultyProxy):
    place = keeping("s3", tmp_path, object_store)
    blob = await place.store().put(stream(DATA), max_bytes=len(DATA))
    fetched = 0

    def count(exchange: Exchange) -> None:
        nonlocal fetched
        fetched += is_object(exchange)

    proxy.before = count
    store = behind(place, proxy)
    for descriptor in await asyncio.gather(*(store.open(blob.digest) for _ in range(8))):
        os.close(descriptor)
    assert fetched == 1
