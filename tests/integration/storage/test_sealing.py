"""Files at rest under a master key: nothing plain lies anywhere, keys change while files are in use, no key is no damage."""

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from fixtures.stores import Keeping, content, flipped, keeping, stream
from modelkeep.app import bootstrap, roles, storage_work
from modelkeep.app.cli import program
from modelkeep.app.places import Places
from modelkeep.app.settings import Settings
from modelkeep.contracts.errors import DamagedFile, Invalid, MasterKeyMissing, NotFound, StorageUnavailable
from modelkeep.contracts.storage import Blob, StorageSettings
from modelkeep.infra.blob_claims import ClaimedStore, Claims, OthersTurn
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database
from modelkeep.infra.envelopes import PIECE, TAG, Envelope, MasterKeys, new_master_key
from modelkeep.infra.exposition import Exposition
from modelkeep.infra.sealed_store import Rotation, SealedStore
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.infra.storage_metrics import FAMILIES, figures
from modelkeep.plugins.storage.local import LocalStore

PLANTED = b"a sentence that must not be found on any disk " * 100_000


@pytest.fixture
def sealed(tmp_path: Path) -> Keeping:
    return keeping("local, sealed", tmp_path, None)


async def alone() -> None:
    """Nobody removes anything here."""


def with_keys(place: Keeping, *lines: str) -> StorageSettings:
    file = Path(place.settings.master_keys_file)
    file.write_text("\n".join(lines) + "\n")
    return place.settings


def first_line(place: Keeping) -> str:
    return Path(place.settings.master_keys_file).read_text().strip()


def sealed_store(place: Keeping) -> SealedStore:
    store = place.store()
    assert isinstance(store, SealedStore)
    return store


@pytest.mark.parametrize("kind", ["local, sealed", "s3, sealed"])
async def test_no_plain_byte_lies_anywhere_not_even_while_a_runner_has_the_file(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    place = keeping(kind, tmp_path, request.getfixturevalue("object_store") if kind.startswith("s3") else None)
    blob = await place.store().put(stream(PLANTED), max_bytes=len(PLANTED))
    opened = await place.store(elsewhere=True).open(blob.digest)
    assert os.pread(opened, len(PLANTED), 0) == PLANTED
    assert str(Path(f"/proc/self/fd/{opened}").readlink()).startswith("/memfd:")
    needle = PLANTED[:40]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and needle in path.read_bytes()]
    assert not [name for name in place.lying() if needle in place.bytes_of(name)]
    os.close(opened)
    assert await content(place.store(), blob.digest) == PLANTED


async def test_a_key_is_rotated_without_a_file_being_written_anew(sealed: Keeping):
    blobs = [await sealed.store().put(stream(bytes([number]) * 1000), max_bytes=1000) for number in range(5)]
    before = {name: sealed.bytes_of(name) for name in sealed.lying()}
    old, new = first_line(sealed), new_master_key("second")
    with_keys(sealed, old, new)
    reading = sealed_store(sealed)
    assert await sealed_store(sealed).rotate(alone) == Rotation(rewritten=5, already=0)
    assert await sealed_store(sealed).rotate(alone) == Rotation(rewritten=0, already=5)
    assert {name: sealed.bytes_of(name) for name in sealed.lying()} == before
    assert await content(reading, blobs[0].digest) == bytes(1000)
    with_keys(sealed, new)
    for number, blob in enumerate(blobs):
        assert await content(sealed.store(), blob.digest) == bytes([number]) * 1000


async def test_a_rotation_that_was_interrupted_goes_on_where_it_was(sealed: Keeping, monkeypatch: pytest.MonkeyPatch):
    blobs = [await sealed.store().put(stream(bytes([number]) * 10), max_bytes=10) for number in range(4)]
    old, new = first_line(sealed), new_master_key("second")
    with_keys(sealed, old, new)
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    kept = 0
    keep_note = inner.keep_note

    async def dies(digest: str, note: bytes) -> None:
        nonlocal kept
        if kept == 2:
            raise KeyboardInterrupt
        kept += 1
        await keep_note(digest, note)

    monkeypatch.setattr(inner, "keep_note", dies)
    keys = MasterKeys.read(Path(sealed.settings.master_keys_file))
    rotating = SealedStore(inner, keys).rotate(alone)
    with pytest.raises(KeyboardInterrupt):
        await rotating
    for number, blob in enumerate(blobs):
        assert await content(sealed.store(), blob.digest) == bytes([number]) * 10
    assert await sealed_store(sealed).rotate(alone) == Rotation(rewritten=2, already=2)


@pytest.mark.parametrize("other", [new_master_key("other"), new_master_key("first")], ids=["missing", "wrong"])
async def test_a_missing_or_wrong_master_key_says_so_and_damages_nothing(sealed: Keeping, other: str):
    blob = await sealed.store().put(stream(b"abc"), max_bytes=3)
    right = first_line(sealed)
    kept = {name: sealed.bytes_of(name) for name in sealed._names()}
    with_keys(sealed, other, new_master_key("newest"))
    store = sealed_store(sealed)
    asks: list[Callable] = [store.open, store.size, lambda digest: content(store, digest), lambda _digest: store.rotate(alone)]
    for ask in asks:
        with pytest.raises(MasterKeyMissing, match="first"):
            await ask(blob.digest)
    assert {name: sealed.bytes_of(name) for name in sealed._names()} == kept
    with_keys(sealed, right)
    assert await content(sealed.store(), blob.digest) == b"abc"


async def test_pieces_cannot_be_cut_off_moved_or_repeated(sealed: Keeping):
    """Each of these is written under the right name, and its envelope made to say so: only the pieces themselves can tell."""
    data = random.Random(4).randbytes(3 * PIECE)
    blob = await sealed.store().put(stream(data), max_bytes=len(data))
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    keys = MasterKeys.read(Path(sealed.settings.master_keys_file))
    envelope = msgspec.json.decode(await inner.note(blob.digest), type=Envelope)
    data_key = keys.open(envelope, blob.digest)
    (name,) = sealed.lying()
    whole, step = sealed.bytes_of(name), PIECE + TAG
    first, second, third = whole[:step], whole[step : 2 * step], whole[2 * step :]
    for number, changed in enumerate(
        [first + second, second + first + third, first + first + third, first + third, whole + third, whole[:-1]]
    ):
        put = await inner.put(stream(changed), max_bytes=len(changed))
        size = len(changed) - TAG * -(-len(changed) // step)
        for said in {envelope.size, size}:
            forged = keys.seal(data_key, blob.digest, put.digest, said)
            await inner.keep_note(blob.digest, msgspec.json.encode(forged))
            with pytest.raises(DamagedFile):
                await content(sealed.store(), blob.digest)
            with pytest.raises(DamagedFile):
                await sealed.store().open(blob.digest)
        assert number < 6


async def test_an_envelope_opens_no_other_file(sealed: Keeping):
    mine = await sealed.store().put(stream(b"mine"), max_bytes=4)
    other = await sealed.store().put(stream(b"other"), max_bytes=5)
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    await inner.keep_note(mine.digest, await inner.note(other.digest))
    with pytest.raises(MasterKeyMissing):
        await content(sealed.store(), mine.digest)


async def test_every_flipped_bit_of_an_envelope_is_found(sealed: Keeping):
    blob = await sealed.store().put(stream(b"abc"), max_bytes=3)
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    note = await inner.note(blob.digest)
    drawn = random.Random(5)
    for _ in range(100):
        await inner.keep_note(blob.digest, flipped(note, drawn.randrange(8 * len(note))))
        with pytest.raises((MasterKeyMissing, NotFound, DamagedFile)):
            await sealed.store().open(blob.digest)


async def test_files_from_before_there_was_a_master_key_stay_readable(sealed: Keeping):
    plain = sealed.store(settings=replace(sealed.settings, master_keys_file=""))
    blob = await plain.put(stream(b"from before"), max_bytes=100)
    assert await content(sealed.store(), blob.digest) == b"from before"
    assert await sealed.store().size(blob.digest) == 11


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "name\n", "name abc\n", "a/b " + "A" * 43 + "=\n", "x {key}\nx {key}\n"],
)
def test_a_file_of_keys_that_cannot_be_used_is_refused_without_its_content(tmp_path: Path, text: str):
    text = text.format(key=new_master_key("x").removeprefix("x "))
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(Invalid) as refused:
        MasterKeys.read(file)
    assert "master_keys_file" in refused.value.message
    assert not any(word in refused.value.message for word in text.split() if len(word) > 4)


def test_the_command_rotates_the_keys_of_a_data_directory(sealed: Keeping, capsys: pytest.CaptureFixture, monkeypatch):
    asyncio.run(sealed.store().put(stream(b"abc"), max_bytes=3))
    assert program.run(["storage", "new-key", "--name", "second"]) == 0
    with_keys(sealed, first_line(sealed), capsys.readouterr().out.strip())
    monkeypatch.setenv("MODELKEEP_STORAGE__MASTER_KEYS_FILE", sealed.settings.master_keys_file)
    assert program.run(["storage", "rotate-key", "--data", str(sealed.folder), "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out) == {"master_key": "second", "rewritten": 1, "already": 0}
    monkeypatch.delenv("MODELKEEP_STORAGE__MASTER_KEYS_FILE")
    assert program.run(["storage", "rotate-key", "--data", str(sealed.folder)]) != 0
    assert "storage.master_keys_file" in capsys.readouterr().err


async def test_keys_are_not_rotated_while_unused_files_are_removed(
    sealed: Keeping, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copyfile(migrated_sqlite, sealed.folder / "modelkeep.db")
    places = Places(sealed.folder)
    settings = Settings.model_validate({"data": str(sealed.folder), "storage": asdict(sealed.settings)})
    await sealed.store().put(stream(b"abc"), max_bytes=3)
    with_keys(sealed, first_line(sealed), new_master_key("second"))
    db = Database(roles.database_settings(settings, places))
    meter = bootstrap.storage_meter(places, "worker")
    async with Claims(db, utc_now).turn():
        with pytest.raises(OthersTurn):
            await storage_work.rotate(settings)
    assert await storage_work.rotate(settings) == ("second", Rotation(rewritten=1, already=0))
    page = Exposition().page(FAMILIES, figures(places.storage_metrics, places.data)()).decode()
    assert "modelkeep_storage_keys_rotated_total 1.0" in page
    meter.close()
    await db.close()


def test_the_command_shows_what_is_unused_and_removes_it(tmp_path: Path, migrated_sqlite: Path, capsys: pytest.CaptureFixture):
    assert program.run(["storage", "collect", "--data", str(tmp_path)]) != 0
    assert "has not been started" in capsys.readouterr().err
    shutil.copyfile(migrated_sqlite, tmp_path / "modelkeep.db")

    async def put() -> Blob:
        db = Database(DatabaseSettings(url=f"sqlite:///{tmp_path}/modelkeep.db"))
        long_ago = Claims(db, lambda: utc_now() - timedelta(days=8))
        blob = await ClaimedStore(LocalStore(Places(tmp_path).blobs), long_ago).put(stream(b"abc"), max_bytes=3)
        await db.close()
        return blob

    blob = asyncio.run(put())
    (lying,) = [path for path in Places(tmp_path).blobs.rglob("*") if path.name == blob.digest]
    os.utime(lying, (1, 1))
    unused = [{"digest": blob.digest, "bytes": 3, "why": "unused"}]
    for options, removed in ((["--dry-run"], False), ([], True)):
        assert program.run(["storage", "collect", "--data", str(tmp_path), "--json", *options]) == 0
        told = msgspec.json.decode(capsys.readouterr().out)
        assert (told["unused"], told["bytes"], told["removed"], told["kept"]["unused"]) == (unused, 3, removed, 3)
        assert lying.exists() is not removed
    assert program.run(["storage", "collect", "--data", str(tmp_path), "--dry-run"]) == 0
    assert "0 files of 0 B would be removed." in capsys.readouterr().out


async def test_sealed_files_are_not_taken_for_unknown_ones_where_no_master_key_is_set(sealed: Keeping, migrated_sqlite: Path):
    shutil.copyfile(migrated_sqlite, sealed.folder / "modelkeep.db")
    await sealed.store().put(stream(b"abc"), max_bytes=3)
    settings = Settings.model_validate({"data": str(sealed.folder)})
    before = sealed.kept()
    with pytest.raises(storage_work.KeysNotSet):
        await storage_work.collect(settings, dry_run=False, unknown=True)
    assert (await storage_work.collect(settings, dry_run=False, unknown=False)).unused == ()
    assert [name for name in sealed.kept() if not name.startswith(("modelkeep.db", "site.key"))] == [
        name for name in before if not name.startswith("modelkeep.db")
    ]


class Meddled:
    """A store below a sealed one; `after` is called with the place whenever a note was kept, before the writer looks at it."""

    def __init__(self, place: Keeping, after: Callable[[str], Awaitable[None]]) -> None:
        self._inner = bootstrap.noting_store(place.settings, Places(place.folder))
        self._after = after

    async def keep_note(self, digest: str, note: bytes) -> None:
        await self._inner.keep_note(digest, note)
        await self._after(digest)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def meddled(place: Keeping, after: Callable[[str], Awaitable[None]]) -> SealedStore:
    return SealedStore(Meddled(place, after), MasterKeys.read(Path(place.settings.master_keys_file)))


@pytest.mark.parametrize("kind", ["local, sealed", "s3, sealed"])
async def test_of_equal_uploads_at_once_the_last_envelope_stands_and_every_one_is_kept(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    """Each writes its envelope and finds that of the next, which came in between; the innermost finds its own."""
    place = keeping(kind, tmp_path, request.getfixturevalue("object_store") if kind.startswith("s3") else None)
    waiting = [1, 2, 3]

    async def another(digest: str) -> None:
        if waiting:
            waiting.pop()
            assert (await rival.put(stream(b"abc"), max_bytes=3)).digest == digest

    class Blind(SealedStore):
        """One that looked before any of the others had written."""

        async def _has(self, digest: str) -> bool:
            return False

    rival = Blind(Meddled(place, another), MasterKeys.read(Path(place.settings.master_keys_file)))
    blob = await rival.put(stream(b"abc"), max_bytes=3)
    assert not waiting
    assert len(place.lying()) == 1
    assert await content(place.store(elsewhere=True), blob.digest) == b"abc"


async def test_an_envelope_that_names_a_file_that_is_gone_is_written_again(sealed: Keeping):
    """The other upload failed after it had written its envelope, and somebody collected its file."""
    gone = await sealed.store().put(stream(b"abc"), max_bytes=3)
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    stale = await inner.note(gone.digest)
    await sealed.store().remove(gone.digest)
    meddling = [stale]

    async def overwritten(digest: str) -> None:
        if meddling:
            await inner.keep_note(digest, meddling.pop())

    await meddled(sealed, overwritten).put(stream(b"abc"), max_bytes=3)
    assert await content(sealed.store(), gone.digest) == b"abc"


async def test_a_store_that_keeps_no_envelope_is_found_before_the_upload_is_acknowledged(sealed: Keeping):
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    garbled = 0

    async def garble(digest: str) -> None:
        nonlocal garbled
        garbled += 1
        note = await inner.note(digest)
        await inner.keep_note(digest, flipped(note, 8 * (len(note) - 9 - garbled)))  # in the sealed key, which stands last

    with pytest.raises(StorageUnavailable, match="does not give back the envelope"):
        await meddled(sealed, garble).put(stream(b"abc"), max_bytes=3)
    assert garbled == 3


async def test_an_upload_that_fails_at_its_envelope_takes_no_file_from_another_that_found_it(sealed: Keeping):
    """The second trusts the first one's envelope, which is kept; the first then ends with an error, and its file stays."""

    async def fails(digest: str) -> None:
        await sealed.store().put(stream(b"abc"), max_bytes=3)
        raise StorageUnavailable

    with pytest.raises(StorageUnavailable):
        await meddled(sealed, fails).put(stream(b"abc"), max_bytes=3)
    assert await content(sealed.store(), hashlib.sha256(b"abc").hexdigest()) == b"abc"


async def test_a_rotation_goes_on_past_a_file_that_is_lost(sealed: Keeping):
    lost, kept = [await sealed.store().put(stream(data), max_bytes=9) for data in (b"lost", b"kept")]
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    note = await inner.note(lost.digest)
    await inner.remove(msgspec.json.decode(note, type=Envelope).sealed)
    with_keys(sealed, first_line(sealed), new_master_key("second"))
    assert await sealed_store(sealed).rotate(alone) == Rotation(rewritten=2, already=0)
    assert await content(sealed.store(), kept.digest) == b"kept"


async def test_a_rotation_whose_envelope_is_not_kept_says_so(sealed: Keeping):
    """The store takes the new envelope and still gives the one before: with the old key gone, nobody could read the file."""
    blob = await sealed.store().put(stream(b"abc"), max_bytes=3)
    inner = bootstrap.noting_store(sealed.settings, Places(sealed.folder))
    before = await inner.note(blob.digest)
    with_keys(sealed, first_line(sealed), new_master_key("second"))

    async def forgets(digest: str) -> None:
        await inner.keep_note(digest, before)

    with pytest.raises(StorageUnavailable, match="does not give back the envelope"):
        await meddled(sealed, forgets).rotate(alone)
