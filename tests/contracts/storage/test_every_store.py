"""What every blob store promises: on a local disk and in an object store, sealed and plain."""

import asyncio
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.stores import Keeping, content, flipped, stream
from modelkeep.contracts.errors import DamagedFile, MasterKeyMissing, NotFound, TooLarge

NEVER = "0" * 64
MIB = 1 << 20
CAMPAIGN = 50  # for each of the four stores: 200 in all
edges = st.sampled_from([0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 17])


def from_descriptor(fd: int) -> bytes:
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


@given(chunks=st.lists(st.binary(max_size=200), max_size=8), size=edges, seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_put_is_read_back_under_its_digest_whole_and_in_parts(
    place: Keeping, chunks: list[bytes], size: int, seed: int
):
    drawn = random.Random(seed)
    chunks = [*chunks, drawn.randbytes(size)]
    whole = b"".join(chunks)

    async def walk() -> None:
        blob = await place.store().put(stream(*chunks), max_bytes=len(whole))
        assert (blob.digest, blob.size) == (hashlib.sha256(whole).hexdigest(), len(whole))
        for store in (place.store(), place.store(elsewhere=True)):
            assert await content(store, blob.digest) == whole
            assert await store.size(blob.digest) == len(whole)
            start, end = sorted((drawn.randint(0, len(whole)), drawn.randint(0, len(whole))))
            assert await content(store, blob.digest, start=start, end=end) == whole[start:end]
            assert await content(store, blob.digest, start=start) == whole[start:]
            assert from_descriptor(await store.open(blob.digest)) == whole

    asyncio.run(walk())


async def test_equal_puts_at_once_are_one_blob(place: Keeping):
    data = random.Random(1).randbytes(3 * MIB)
    blobs = await asyncio.gather(*(store.put(stream(data), max_bytes=len(data)) for store in [place.store()] * 4))
    assert len({blob.digest for blob in blobs}) == 1
    assert await content(place.store(elsewhere=True), blobs[0].digest) == data


async def test_a_blob_that_is_there_already_is_not_kept_twice(place: Keeping):
    store = place.store()
    first = await store.put(stream(b"abc"), max_bytes=3)
    before = place.lying()
    assert await store.put(stream(b"a", b"bc"), max_bytes=3) == first
    assert place.lying() == before
    assert len(before) == 1


async def test_what_is_stored_is_listed_by_its_plain_digest_with_its_bytes_and_its_time(place: Keeping):
    store = place.store()
    assert [one async for one in store.stored()] == []
    began = time.time()
    blobs = {(await store.put(stream(data), max_bytes=5)).digest for data in (b"a", b"bb", b"ccc")}
    listed = [one async for one in place.store(elsewhere=True).stored()]
    assert {one.digest for one in listed} == blobs
    assert {one.size for one in listed} == ({17, 18, 19} if place.settings.master_keys_file else {1, 2, 3})
    assert all(began - 60 < one.at < time.time() + 60 for one in listed)  # an object store has a clock of its own
    await store.remove(listed[0].digest)
    assert {one.digest async for one in store.stored()} == blobs - {listed[0].digest}


async def test_one_byte_too_many_is_refused_and_leaves_nothing(place: Keeping):
    before = place.kept()
    with pytest.raises(TooLarge, match="larger than the 9 bytes"):
        await place.store().put(stream(b"01234", b"56789"), max_bytes=9)
    assert place.kept() == before


async def test_a_stream_that_fails_leaves_nothing(place: Keeping):
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 * MIB)
        raise ConnectionResetError

    before = place.kept()
    with pytest.raises(ConnectionResetError):
        await place.store().put(broken(), max_bytes=10 * MIB)
    assert place.kept() == before


async def test_a_put_that_is_cancelled_leaves_nothing(place: Keeping):
    arrived = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (2 * MIB)
        arrived.set()
        await asyncio.Event().wait()

    before = place.kept()
    putting = asyncio.create_task(place.store().put(endless(), max_bytes=10 * MIB))
    await arrived.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert place.kept() == before


@pytest.mark.parametrize("digest", [NEVER, "", "..", "../../etc/passwd", NEVER.upper().replace("0", "A"), "0" * 63])
async def test_what_is_not_there_is_not_found_and_no_name_is_a_path(place: Keeping, digest: str):
    store = place.store()
    for ask in (store.size, store.open, lambda digest: content(store, digest)):
        with pytest.raises(NotFound):
            await ask(digest)


async def test_a_removed_blob_is_gone_and_who_has_it_open_reads_on(place: Keeping):
    store = place.store()
    before = place.kept()
    blob = await store.put(stream(b"abc"), max_bytes=3)
    opened = await store.open(blob.digest)
    await store.remove(blob.digest)
    assert from_descriptor(opened) == b"abc"
    with pytest.raises(NotFound):
        await store.open(blob.digest)
    assert place.kept() == before
    if blob.digest != NEVER:
        await store.remove(NEVER)


async def test_a_descriptor_cannot_be_written_through(place: Keeping):
    blob = await place.store().put(stream(b"abc"), max_bytes=3)
    opened = await place.store().open(blob.digest)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(opened, b"X")
    os.close(opened)


async def test_a_damaged_blob_is_healed_by_putting_it_again(place: Keeping):
    data = random.Random(2).randbytes(100)
    blob = await place.store().put(stream(data), max_bytes=100)
    (name,) = place.lying()
    place.overwrite(name, flipped(place.bytes_of(name), 3))
    assert await place.store(elsewhere=True).put(stream(data), max_bytes=100) == blob
    assert await content(place.store(elsewhere=True), blob.digest) == data


@pytest.mark.timeout(300)
async def test_every_flipped_bit_of_what_is_stored_is_found_by_whoever_reads_it(place: Keeping):
    drawn = random.Random(2026)
    data = drawn.randbytes(MIB + 4321)
    blob = await place.store().put(stream(data), max_bytes=len(data))
    (name,) = place.lying()
    sound = place.bytes_of(name)
    found = 0
    for _ in range(CAMPAIGN):
        place.overwrite(name, flipped(sound, drawn.randrange(8 * len(sound))))
        received = bytearray()
        try:
            async for piece in place.store(elsewhere=True).read(blob.digest):
                received += piece
        except (DamagedFile, MasterKeyMissing):
            found += len(received) < len(data)  # what came is not a whole file
    assert found == CAMPAIGN
    place.overwrite(name, sound)
    assert await content(place.store(elsewhere=True), blob.digest) == data


async def test_damaged_bytes_are_never_handed_to_a_runner_as_right(place: Keeping):
    """A local file is opened as it is: its runner compares the digest, as it does with every file."""
    data = random.Random(3).randbytes(5000)
    blob = await place.store().put(stream(data), max_bytes=len(data))
    (name,) = place.lying()
    place.overwrite(name, flipped(place.bytes_of(name), 77))
    if place.settings.kind == "local" and not place.settings.master_keys_file:
        assert hashlib.sha256(from_descriptor(await place.store().open(blob.digest))).hexdigest() != blob.digest
    else:
        with pytest.raises(DamagedFile):
            await place.store(elsewhere=True).open(blob.digest)
