"""What comes out of an uploaded archive: plain files under plain names, whole, and never more than the bound.

Where it can be shown, a control says that a plain extractor would have been fooled.
"""

import io
import lzma
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.archives import as_tar, as_zip
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.sandbox import archive

FILES = {"MLmodel": b"flavors: {}\n" * 50, "data/weights.bin": os.urandom(3000), "data/empty": b"", "a b/ü.txt": b"x"}
PACKERS = {
    "zip stored": as_zip,
    "zip deflated": lambda files: as_zip(files, zipfile.ZIP_DEFLATED),
    "tar": as_tar,
    "tar.gz": lambda files: as_tar(files, "w:gz"),
    "tar.bz2": lambda files: as_tar(files, "w:bz2", compresslevel=1),
    "tar.xz": lambda files: as_tar(files, "w:xz", preset=0),
}


@pytest.fixture(params=PACKERS)
def pack(request):
    return PACKERS[request.param]


TRUSTING = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}  # older Pythons know nothing else


def read(data, **options):
    return {name: bytes(content) for name, content in archive.contents(data, **options).items()}


def refused(data, reason=Reason.ARCHIVE_REFUSED, **options):
    with pytest.raises(CannotLoad) as caught:
        archive.contents(data, **options)
    assert caught.value.reason is reason, caught.value
    return caught.value.detail


def tar_of(*members):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as opened:
        for member, data in members:
            opened.addfile(member, io.BytesIO(data))
    return held.getvalue()


def member(name, kind=tarfile.REGTYPE, size=0, **fields):
    one = tarfile.TarInfo(name)
    one.type, one.size = kind, size
    for field, value in fields.items():
        setattr(one, field, value)
    return one


# ---- what is good


def test_every_kind_of_archive_gives_back_its_files(pack):
    data = pack(FILES)
    assert read(data) == FILES
    assert {one.name: one.size for one in archive.listed(data)} == {name: len(content) for name, content in FILES.items()}


def test_one_folder_around_everything_is_left_out_once(pack):
    assert read(pack({f"model/{name}": data for name, data in FILES.items()})) == FILES
    assert set(read(pack({f"model/sub/{name}": data for name, data in FILES.items()}))) == {f"sub/{name}" for name in FILES}


def test_what_is_stored_is_not_copied():
    for pack in (as_zip, as_tar):
        data = pack(FILES)
        assert archive.contents(data)["data/weights.bin"].obj is data


def test_an_archive_made_by_streaming_is_read():
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.held = io.BytesIO()

        def writable(self):
            return True

        def write(self, piece):
            return self.held.write(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in FILES.items():
            opened.writestr(name, data)
    assert read(pipe.held.getvalue()) == FILES


def test_large_members_with_sizes_in_64_bits_are_read():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as opened, opened.open("a", "w", force_zip64=True) as file:
        file.write(b"abc")
    assert read(held.getvalue()) == {"a": b"abc"}


def test_an_archive_inside_stays_closed(pack):
    inner = as_zip({"../../evil": b"x"})
    assert read(pack({"inner.zip": inner, "b": b""})) == {"inner.zip": inner, "b": b""}


APPLE = b"\x00\x05\x16\x07"


def test_what_macos_writes_beside_the_files_is_left_out(pack):
    beside = {"._MLmodel": APPLE, "data/._weights.bin": APPLE, "._data": APPLE, "a b/._ü.txt": APPLE, "._.": APPLE}
    assert read(pack({**beside, **FILES})) == FILES
    inside = {f"model/{name}": data for name, data in {**FILES, **beside}.items()}
    assert read(pack({"._model": APPLE, **inside})) == FILES


def test_a_name_that_only_looks_like_those_of_macos_stays(pack):
    files = {"._weights.bin": b"abc", "a/._": b"d", "a/._b": b"e", "b": b"f"}
    assert read(pack(files)) == files


def test_tar_with_a_dot_in_front_and_a_top_folder_is_read():
    data = tar_of((member(".", tarfile.DIRTYPE), b""), (member("./m", tarfile.DIRTYPE), b""), (member("./m/a", size=1), b"a"))
    assert read(data) == {"a": b"a"}


PLAIN = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/\\:."), min_size=1, max_size=12
)


@given(files=st.dictionaries(PLAIN.map(lambda name: f"{name}.bin"), st.binary(max_size=200), min_size=1, max_size=6))
def test_files_of_any_plain_names_come_back_or_are_said_to_collide(files):
    for pack in PACKERS.values():
        try:
            assert read(pack(files)) == files
        except CannotLoad as error:
            assert "there twice" in error.detail  # noqa: PT017
            folded = {archive._folded(name) for name in files}
            assert len(folded) < len(files)


# ---- names

BAD_NAMES = [
    "../evil", "a/../../evil", "/etc/evil", "a//b", "a/./b", "C:/evil", "c:evil", "a\\b", "..\\evil", "a\nb", "a\x1b[2Jb",
    "a/..", "..", "a\u202eb", "x" * 300, "/".join("d" * 40), "a/" * 200 + "b",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_not_plain_and_relative_are_refused(pack, name):
    refused(pack({name: b"x", "b": b"y"}))


@given(parts=st.lists(st.sampled_from(["..", ".", "", "a", "b\\c", "d:"]), min_size=1, max_size=6))
def test_no_name_ever_leads_out_of_the_archive(parts):
    for pack in PACKERS.values():
        try:
            names = list(archive.contents(pack({"/".join(parts): b"x", "z": b"y"})))
        except CannotLoad:
            continue
        assert all(not name.startswith("/") and os.path.normpath(name) == name and ".." not in name for name in names)


def test_a_plain_extractor_is_led_out(tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(fileobj=io.BytesIO(as_tar({"../evil": b"x"}))) as opened:
        opened.extract("../evil", tmp_path / "in", **TRUSTING)
    assert (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"Model.bin": b"", "model.bin": b""},
        {"straße": b"", "STRASSE": b""},
        {"é": b"", "e\u0301": b""},
        {"A/x": b"", "a/y": b""},
        {"ﬁle": b"", "file": b""},
    ],
)
def test_names_that_are_one_on_some_file_system_are_refused(pack, files):
    refused(pack(files))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as opened:
        opened.writestr("a", b"good")
        opened.writestr("a", b"evil")
    refused(held.getvalue())
    refused(tar_of((member("a", size=4), b"good"), (member("a", size=4), b"evil")))
    with zipfile.ZipFile(held) as opened:
        assert opened.read("a") == b"evil"  # the control: which one is the file is the reader's taste


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("A", "a/b")])
def test_a_file_that_is_a_folder_too_is_refused(pack, names):
    refused(pack({**dict.fromkeys(names, b"x"), "other": b""}))


# ---- members that are no files


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE, b"Z",
    ],
)  # fmt: skip
def test_what_is_no_file_in_a_tar_is_refused(kind):
    assert refused(tar_of((member("a", size=1), b"x"), (member("b", kind, linkname="a"), b"")))


def test_a_plain_extractor_makes_the_link(tmp_path):
    data = tar_of((member("b", tarfile.SYMTYPE, linkname="/etc/passwd"), b""))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        opened.extractall(tmp_path, **TRUSTING)
    assert (tmp_path / "b").is_symlink()


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_file_in_a_zip_is_refused(mode):
    held = io.BytesIO()
    entry = zipfile.ZipInfo("a")
    entry.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(held, "w") as opened:
        opened.writestr(entry, b"/etc/passwd")
    refused(held.getvalue())


@pytest.mark.parametrize(
    "headers",
    [
        {"path": "../evil"}, {"size": "9999"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"GNU.sparse.map": "0,1", "GNU.sparse.size": "100"}, {"GNU.sparse.name": "/etc/evil", "GNU.sparse.realsize": "9"},
    ],
)  # fmt: skip
def test_headers_that_say_something_else_of_a_member_are_refused(headers):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as opened:
        one = member("a", size=3)
        one.pax_headers = headers
        opened.addfile(one, io.BytesIO(b"abc"))
    with pytest.raises(CannotLoad):
        archive.contents(held.getvalue())


@pytest.mark.parametrize("headers", [{"path": "a"}, {"size": "0"}, {"linkpath": "x"}])
def test_headers_for_all_members_that_name_them_are_refused(headers):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as opened:
        opened.addfile(member("b", size=3), io.BytesIO(b"abc"))
    with pytest.raises(CannotLoad):
        archive.contents(held.getvalue())


def test_a_negative_size_in_a_tar_ends_at_once():
    data = bytearray(tar_of((member("a", size=3), b"abc")))
    data[124:136] = b"\xff" * 10 + b"\xfe\x00"  # base 256: -512
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    with pytest.raises(CannotLoad):
        archive.contents(bytes(data))


# ---- bombs


def test_more_than_the_bound_is_refused(pack):
    data = pack({"a": os.urandom(5000), "b": os.urandom(5000)})
    assert len(read(data, most=10_000)) == 2
    assert "9999 bytes" in refused(data, most=9999)


def test_a_bomb_is_refused_by_its_ratio(monkeypatch):
    monkeypatch.setattr(archive, "HARMLESS", 1 << 20)
    for pack in (PACKERS[name] for name in ("zip deflated", "tar.gz", "tar.bz2", "tar.xz")):
        data = pack({"zeros": bytes(8 << 20)})
        assert archive.HIGHEST_RATIO * len(data) < 8 << 20  # the control: it is one
        refused(data)
        assert read(pack({"zeros": bytes(1 << 19)}))


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_not_unpacked_to_its_end(monkeypatch, kind):
    monkeypatch.setattr(archive, "HARMLESS", 1 << 20)
    monkeypatch.setattr(archive, "MOST_FILES", 100)
    data = PACKERS[kind]({"zeros": bytes(64 << 20)})
    assert archive.kind(data) == kind
    tracemalloc.start()
    try:
        refused(data)
        least = tracemalloc.get_traced_memory()[1]
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:  # the control: a plain reader takes all of it
            assert len(opened.extractfile("zeros").read()) == 64 << 20
        assert least < 32 << 20 < 64 << 20 <= tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_xz_that_asks_for_much_memory_is_refused():
    plain = as_tar({"a": b"abc"})
    data = bytearray(lzma.compress(plain, lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    assert read(bytes(data)) == {"a": b"abc"}  # the control
    head = data.index(b"\x21\x01", 12)  # the filter's number, the length of what is said of it, and the size of its dictionary
    data[head + 2] = 38  # a gigabyte
    size = (data[12] + 1) * 4
    data[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(bytes(data[12 : 12 + size - 4])))
    assert lzma.decompress(bytes(data)) == plain  # a plain reader would
    assert "emory" in refused(bytes(data), Reason.TRUNCATED)


def test_too_many_files_are_refused(pack):
    refused(pack({str(number): b"" for number in range(archive.MOST_FILES + 1)}))
    assert len(read(pack({str(number): b"" for number in range(100)}))) == 100


def central(data):
    """Where the table of contents of a ZIP begins."""
    return struct.unpack_from("<I", data, len(data) - 6)[0]


def test_a_member_that_unpacks_to_more_than_it_says_is_refused():
    data = bytearray(as_zip({"a": bytes(100_000)}, zipfile.ZIP_DEFLATED))
    for at in (22, central(data) + 24):
        data[at : at + 4] = struct.pack("<I", 10)
    for at in (14, central(data) + 16):
        data[at : at + 4] = struct.pack("<I", zlib.crc32(bytes(10)))
    refused(bytes(data), Reason.TRUNCATED)


def overlapping():
    """A ZIP of which two names share one member's bytes, each with a fitting header of its own."""
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = kernel.compress(bytes(50_000)) + kernel.flush()
    crc = zlib.crc32(bytes(50_000))
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(packed), 50_000, 1, 0)
    body = local + b"a" + packed
    entries = b"".join(
        struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, len(packed), 50_000, 1, 0, 0, 0, 0, 0, 0) + name
        for name in (b"a", b"a")
    )
    return body + entries + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(entries), len(body), 0)


def test_members_that_share_bytes_are_refused():
    assert "shares bytes" in refused(overlapping())
    with zipfile.ZipFile(io.BytesIO(overlapping())) as opened:
        assert sum(one.file_size for one in opened.infolist()) == 100_000  # the control: believed, it counts twice


# ---- the two places in which a ZIP describes a member


@pytest.mark.parametrize(
    ("at", "new"),
    [(6, b"\x01\x00"), (6, b"\x08\x00"), (8, b"\x08\x00"), (14, b"\0\0\0\1"), (18, b"\1\0\0\0"), (22, b"\1\0\0\0"), (30, b"b")],
    ids=["encrypted", "flags", "method", "checksum", "packed size", "size", "name"],
)
def test_a_member_that_is_described_in_two_ways_is_refused(at, new):
    data = bytearray(as_zip({"a": b"abc", "c": b"d"}))
    data[at : at + len(new)] = new
    refused(bytes(data))


def test_sizes_that_lie_in_64_bits_are_refused():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as opened, opened.open("a", "w", force_zip64=True) as file:
        file.write(b"abc")
    data = bytearray(held.getvalue())
    data[18:26] = b"\xff" * 8  # what says that they are there; some Pythons write them in both places
    at = data.index(b"\x01\x00\x10\x00", 30) + 4
    data[at : at + 8] = (2**63).to_bytes(8, "little")
    refused(bytes(data))


def test_an_encrypted_member_is_refused():
    data = bytearray(as_zip({"a": b"abc"}))
    for at in (6, central(data) + 8):
        data[at] |= 1
    assert "encrypted" in refused(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method):
    assert "deflate" in refused(as_zip({"a": b"abc"}, method))


def test_a_checksum_that_does_not_fit_is_refused():
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = bytearray(as_zip({"a": os.urandom(100)}, compression))
        data[60] ^= 1
        refused(bytes(data), Reason.TRUNCATED)


def test_something_before_or_after_a_zip_is_refused():
    data = as_zip({"a": b"abc"})
    with pytest.raises(CannotLoad):
        archive.contents(b"\x80\x04N." + data)
    refused(data + b"more", Reason.TRUNCATED)
    with zipfile.ZipFile(io.BytesIO(b"\x80\x04N." + data)) as opened:
        assert opened.read("a") == b"abc"  # the control: one file, a pickle and an archive


def test_something_after_a_tar_is_refused(pack):
    data = as_tar({"a": b"abc"})
    refused(data + b"more", Reason.TRUNCATED)
    damaged = bytearray(as_tar({"a": b"abc", "b": b"abc"}))
    damaged[1024] ^= 1  # the second header: a plain reader takes it for the end
    refused(bytes(damaged), Reason.TRUNCATED)
    with tarfile.open(fileobj=io.BytesIO(bytes(damaged))) as opened:
        assert opened.getnames() == ["a"]


# ---- damage


@settings(max_examples=150)
@given(data=st.data())
def test_an_archive_that_is_cut_anywhere_is_refused(data):
    for pack in PACKERS.values():
        whole = pack(FILES)
        least = len(whole) - 512 if pack is as_tar else len(whole)  # the second half of a tar's end mark, and what fills it up
        keep = data.draw(st.integers(0, min(least, len(whole.rstrip(b"\0")) if pack is as_tar else least) - 1))
        with pytest.raises(CannotLoad):
            archive.contents(whole[:keep])


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_gives_files_as_they_were_named(data):
    for pack in PACKERS.values():
        whole = bytearray(pack(FILES))
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
        try:
            found = archive.contents(bytes(whole))
        except CannotLoad:
            continue
        assert sum(map(len, found.values())) <= sum(map(len, FILES.values()))


@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08", b"BZh11AY&SY", b"\xfd7zXZ\0", bytes(257) + b"ustar\x0000"]),
)
def test_whatever_the_bytes_nothing_but_a_refusal_comes(data, start):
    with pytest.raises(CannotLoad):
        archive.contents(start + data)


def test_an_archive_without_files_is_refused(pack):
    with pytest.raises(CannotLoad):
        archive.contents(pack({}))
