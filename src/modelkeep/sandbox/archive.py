"""What is in an uploaded archive: ZIP, or tar, plain or compressed. Read in memory, inside a locked-down runner.

Nothing is extracted; only plain files under plain relative names come out. What a header says is never believed: sizes are
counted while unpacking, and the two places in which a ZIP describes a member must agree. Archives inside stay closed unless a
runner asks for one.
"""

import re
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.sandbox import zipped

MOST_FILES: Final = 10_000
MOST_BYTES: Final = 64 << 30
LONGEST_NAME: Final = 1024
LONGEST_PART: Final = 255
DEEPEST: Final = 32
HIGHEST_RATIO: Final = 200
"""How many times larger than the archive its files may be, once they are larger than `HARMLESS` bytes together."""

HARMLESS: Final = 256 << 20

Kind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]

_BLOCK: Final = 512
_GZIP: Final = 16 + zlib.MAX_WBITS
_COMPRESSED: Final[tuple[tuple[re.Pattern[bytes], Kind], ...]] = (
    (re.compile(rb"\x1f\x8b\x08"), "tar.gz"),
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), "tar.bz2"),
    (re.compile(rb"\xfd7zXZ\0"), "tar.xz"),
)
_XZ_MEMORY: Final = 256 << 20  # xz -9 asks for 65 MiB
_DRIVE = re.compile(r"[A-Za-z]:")
_APPLE: Final = "__MACOSX/"  # what the archiver of macOS adds beside every file in a ZIP
_BESIDE: Final = "._"  # and before the name of every file and folder in a tar
_PLAIN_TYPES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_MOVES: Final = frozenset({"path", "linkpath", "size", "hdrcharset"})


class Entry(msgspec.Struct, frozen=True):
    """A file of an archive: its relative name, with `/` between its parts, and its size in bytes."""

    name: str
    size: int


class _Member(msgspec.Struct, frozen=True):
    """A file or a folder as an archive names it; `held` is where its bytes are."""

    name: str
    size: int
    folder: bool
    held: "memoryview | zipped.Member | None" = None


def kind(data: bytes) -> Kind | None:
    """Return which archive the bytes begin like, or None. A compressed file need not be a compressed tar."""
    if zipped.begins(data):
        return "zip"
    if data[257:262] == b"ustar":
        return "tar"
    return next((name for start, name in _COMPRESSED if start.match(data)), None)


def listed(data: bytes, most: int = MOST_BYTES) -> tuple[Entry, ...]:
    """Return the files in an archive, in its order, of at most `most` bytes together; raises `CannotLoad`."""
    return tuple(Entry(name, member.size) for name, member in _members(data, most))


def contents(data: bytes, most: int = MOST_BYTES) -> dict[str, memoryview | bytes]:
    """Return the files in an archive by name, of at most `most` bytes together; raises `CannotLoad`.

    What is stored as it is comes as a view of `data`, without a copy.
    """
    return {name: _bytes_of(member) for name, member in _members(data, most)}


def unpacked(data: bytes, most: int = MOST_BYTES, *, whole: bool = False) -> Iterator[tuple[str, memoryview | bytes]]:
    """Yield the files in an archive, name and bytes, one in memory at a time; raises `CannotLoad`.

    `whole`: with the folder that holds all of them, where there is one.
    """
    for name, member in _members(data, most, whole=whole):
        yield name, _bytes_of(member)


def _bytes_of(member: _Member) -> memoryview | bytes:
    return member.held.content() if isinstance(member.held, zipped.Member) else member.held or b""


def _members(data: bytes, most: int, *, whole: bool = False) -> list[tuple[str, _Member]]:
    """The files under their final names, checked as a whole."""
    found = kind(data)
    if found is None:
        raise CannotLoad(Reason.UNRECOGNISED, "The file is no archive: ZIP, tar, tar.gz, tar.bz2 and tar.xz are read.")
    if found == "zip":
        members = _zip(data)
    else:
        members = _tar(data if found == "tar" else _decompressed(data, found, _bound(len(data), most)))
    bounded = _bounded(members, len(data), most)
    files = _without_apples(_named(one for one in bounded if not one.name.startswith(_APPLE)))
    if not files:
        raise CannotLoad(Reason.ARCHIVE_REFUSED, "The archive holds no file.")
    return files if whole else _without_top(files)


def _bound(size: int, most: int) -> int:
    return min(most, max(HARMLESS, HIGHEST_RATIO * size))


def _bounded(members: Iterable[_Member], size: int, most: int) -> Iterator[_Member]:
    total, bound = 0, _bound(size, most)
    for count, member in enumerate(members, 1):
        if count > MOST_FILES:
            raise CannotLoad(Reason.ARCHIVE_REFUSED, f"The archive holds more than {MOST_FILES} files and folders.")
        total += member.size
        if total > bound:
            raise too_large(bound)
        yield member


def too_large(bound: int) -> CannotLoad:
    """Return the refusal of an archive that unpacks to more than `bound` bytes."""
    detail = (
        f"The files in the archive are larger than {bound} bytes together, which is the most for an archive of this size here."
    )
    return CannotLoad(Reason.ARCHIVE_REFUSED, detail)


def _named(members: Iterable[_Member]) -> list[tuple[str, _Member]]:
    """The files by their checked names; no two of which may be one on any file system, nor a file be a folder as well."""
    spelled: dict[str, str] = {}
    taken: set[str] = set()
    files = []
    for member in members:
        name = _checked(member.name)
        if not name:
            continue  # the folder that was packed, as `tar -C folder .` names it
        parts = name.split("/")
        for end in range(1, len(parts) + member.folder):
            _one_folder("/".join(parts[:end]), spelled, taken)
        if member.folder:
            continue
        folded = _folded(name)
        if folded in spelled:
            raise _refused(name, f"is there twice, or besides {spelled[folded]!r}")
        spelled[folded] = name
        taken.add(folded)
        files.append((name, member))
    return files


def _one_folder(name: str, spelled: dict[str, str], taken: set[str]) -> None:
    folded = _folded(name)
    if folded in taken:
        raise _refused(name, "is a file and a folder")
    if spelled.setdefault(folded, name) != name:
        raise _refused(name, f"is there besides {spelled[folded]!r}")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _checked(given: str) -> str:
    """Return a plain relative name; raises `CannotLoad` for every other."""
    name = given
    while name.startswith("./"):
        name = name[2:]
    name = name.removesuffix("/")
    if name in {"", "."} and given.startswith("."):
        return ""
    if len(name) > LONGEST_NAME or not name.isprintable() or "\\" in name or _DRIVE.match(name):
        raise _refused(given, "is no plain relative name")
    parts = name.split("/")
    if len(parts) > DEEPEST or any(part in {"", ".", ".."} or len(part.encode()) > LONGEST_PART for part in parts):
        raise _refused(given, "is no plain relative name")
    return name


def _refused(name: str, why: str) -> CannotLoad:
    return CannotLoad(Reason.ARCHIVE_REFUSED, f"In the archive, {name[:100]!r} {why}.")


def _without_apples(files: list[tuple[str, _Member]]) -> list[tuple[str, _Member]]:
    """The files without those in which macOS keeps what it knows of the others: `._name` beside `name`."""
    there = {name for name, _member in files}
    there |= {name[:at] for name in there for at, letter in enumerate(name) if letter == "/"}
    return [(name, member) for name, member in files if not _is_beside(name, there)]


def _is_beside(name: str, there: set[str]) -> bool:
    folder, slash, last = name.rpartition("/")
    return last == f"{_BESIDE}." or (last.startswith(_BESIDE) and f"{folder}{slash}{last.removeprefix(_BESIDE)}" in there)


def _without_top(files: list[tuple[str, _Member]]) -> list[tuple[str, _Member]]:
    """The files without the one folder that holds them all, if there is one."""
    tops = {name.partition("/")[0] for name, _member in files}
    if len(tops) > 1 or any("/" not in name for name, _member in files):
        return files
    return [(name.partition("/")[2], member) for name, member in files]


def _zip(data: bytes) -> Iterator[_Member]:
    for one in zipped.members(data, MOST_FILES):
        yield _Member(one.name, one.size, one.folder, one)


def _tar(data: bytes) -> Iterator[_Member]:
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:") as tar:
            yield from _tar_members(tar, memoryview(data))
            rest = data[tar.offset :]
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise CannotLoad(Reason.TRUNCATED, f"The archive ends early, or is damaged: {error}") from error
    if len(rest) < _BLOCK or rest.count(0) != len(rest):
        raise CannotLoad(Reason.TRUNCATED, "The archive ends without its end mark.")


def _tar_members(tar: tarfile.TarFile, data: memoryview) -> Iterator[_Member]:
    for one in islice(tar, MOST_FILES + 1):
        if one.size < 0 or one.offset_data + one.size > len(data):
            raise CannotLoad(Reason.TRUNCATED, "The archive ends within a file.")
        if one.issparse() or one.type not in _PLAIN_TYPES or _MOVES & set(tar.pax_headers):
            raise _refused(one.name, "is no plain file")
        if one.isdir():
            yield _Member(one.name, 0, folder=True)
        else:
            yield _Member(one.name, one.size, folder=False, held=data[one.offset_data : one.offset_data + one.size])


def _decompressed(data: bytes, found: Kind, bound: int) -> bytes:
    """The bytes in a compressed file of one stream, as long as they are at most `bound` and what tar itself adds."""
    unpacking, fault = _decompressor(found)
    most = bound + 4 * _BLOCK * MOST_FILES
    try:
        plain: bytes = unpacking.decompress(data, most + 1)
    except fault as error:
        raise CannotLoad(Reason.TRUNCATED, f"The archive is damaged: {error}") from error
    if len(plain) > most:
        raise too_large(bound)
    if not unpacking.eof or unpacking.unused_data.strip(b"\0"):
        raise CannotLoad(Reason.TRUNCATED, "The archive's compressed part ends early, or something follows it.")
    if kind(plain) != "tar":
        raise CannotLoad(Reason.UNRECOGNISED, "The compressed file holds no tar archive.")
    return plain


def _decompressor(found: Kind) -> tuple[Any, type[Exception]]:
    """What unpacks one stream, and what it raises of a damaged one. Not every Python was built with all of them."""
    if found == "tar.bz2":
        import bz2

        return bz2.BZ2Decompressor(), OSError
    if found == "tar.xz":
        import lzma

        return lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), lzma.LZMAError
    return zlib.decompressobj(_GZIP), zlib.error
