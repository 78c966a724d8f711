"""The members of a ZIP file in memory, each described twice and the same both times; sizes counted, checksums compared."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from stat import S_IFDIR, S_IFMT, S_IFREG
from typing import Final

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_PLAIN_TYPES: Final = (0, S_IFREG, S_IFDIR)
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW: Final = 0x8
_UTF8: Final = 0x800
_IN_EXTRA: Final = 0xFFFFFFFF
_ZIP64: Final = 1
_LONGEST_ENTRY: Final = 4096


class Member(msgspec.Struct, frozen=True):
    """A file or a folder in a ZIP. `packed` are its bytes as they are kept; `size` is what they are said to unpack to."""

    name: str
    size: int
    folder: bool
    packed: memoryview
    deflated: bool
    crc: int

    def content(self) -> memoryview | bytes:
        """Return the unpacked bytes, without a copy where they are stored plainly; raises `CannotLoad`."""
        plain = self._inflated() if self.deflated else self.packed
        if len(plain) != self.size or zlib.crc32(plain) != self.crc:
            raise CannotLoad(
                Reason.TRUNCATED, f"In the archive, {self.name[:100]!r} has another size or checksum than it says."
            )
        return plain

    def _inflated(self) -> bytes:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = unpacking.decompress(self.packed, self.size + 1)
            if not unpacking.eof and len(plain) == self.size:
                plain += unpacking.decompress(unpacking.unconsumed_tail, 1)  # nothing but the end mark may be left
        except zlib.error as error:
            raise CannotLoad(Reason.TRUNCATED, f"In the archive, {self.name[:100]!r} is damaged: {error}") from error
        if not unpacking.eof or unpacking.unused_data:
            raise CannotLoad(Reason.TRUNCATED, f"In the archive, {self.name[:100]!r} does not end where it says.")
        return plain


def begins(data: bytes) -> bool:
    """Whether the bytes begin as a ZIP does: with its first member, or with its end where it is empty."""
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def members(data: bytes, most: int) -> Iterator[Member]:
    """Yield what is in a ZIP of at most `most` members; raises `CannotLoad` for what is damaged, hidden, shared or unusual."""
    _check_end(data, most)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            infos, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, ValueError, OverflowError) as error:
        raise CannotLoad(Reason.TRUNCATED, f"The archive is damaged: {error}") from error
    view, free = memoryview(data), 0
    places = sorted(infos, key=lambda info: info.header_offset)
    starts = {}
    for info in places:
        if info.header_offset < free or (free == 0 and info.header_offset):
            raise _refused(info.orig_filename, "shares bytes with another member, or does not begin where it must")
        starts[info.header_offset] = start = _start(view, info)
        free = start + info.compress_size
        if free > end:
            raise CannotLoad(Reason.TRUNCATED, "The archive ends within a file.")
    for info in infos:
        start = starts[info.header_offset]
        yield _member(info, view[start : start + info.compress_size])


def _member(info: zipfile.ZipInfo, packed: memoryview) -> Member:
    mode = S_IFMT(info.external_attr >> 16)
    folder = info.orig_filename.endswith("/")
    if info.flag_bits & _ENCRYPTED:
        raise _refused(info.orig_filename, "is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _refused(info.orig_filename, "is compressed in a way that is not read here; deflate is")
    if mode not in _PLAIN_TYPES or (mode == S_IFDIR) > folder or (folder and info.file_size):
        raise _refused(info.orig_filename, "is no plain file")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return Member(info.orig_filename, info.file_size, folder, packed, deflated, info.CRC)


def _start(data: memoryview, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, by its own header, which must say what the table of contents says."""
    at = info.header_offset
    if at < 0 or at + _LOCAL.size > len(data):
        raise CannotLoad(Reason.TRUNCATED, "The archive's table of contents points outside it.")
    mark, _version, flags, method, _time, _date, crc, packed, size, name_size, extra_size = _LOCAL.unpack_from(data, at)
    begin = at + _LOCAL.size
    name, extra = bytes(data[begin : begin + name_size]), bytes(data[begin + name_size : begin + name_size + extra_size])
    if _IN_EXTRA in {packed, size}:
        size, packed = _zip64(extra, size, packed)
    said = (crc, packed, size)
    told = said == (info.CRC, info.compress_size, info.file_size)
    agrees = (
        mark == b"PK\x03\x04"
        and (flags, method) == (info.flag_bits, info.compress_type)
        and name == _raw_name(info)
        and info.filename == info.orig_filename
        and (told or (flags & _SIZES_FOLLOW and not any(said)))
    )
    if not agrees:
        raise _refused(info.orig_filename, "is described in two ways")
    return begin + len(name) + len(extra)


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437", errors="replace")


def _zip64(extra: bytes, size: int, packed: int) -> tuple[int, int]:
    """The sizes that did not fit into 32 bits, from a member's own header: unpacked, then packed."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        body = extra[at + 4 : at + 4 + length]
        if tag == _ZIP64 and len(body) >= 8 * ((size == _IN_EXTRA) + (packed == _IN_EXTRA)):
            numbers = [int.from_bytes(body[begin : begin + 8], "little") for begin in range(0, len(body), 8)]
            size = numbers.pop(0) if size == _IN_EXTRA else size
            packed = numbers.pop(0) if packed == _IN_EXTRA else packed
            break
        at += 4 + length
    return size, packed


def _check_end(data: bytes, most: int) -> None:
    """Refuse what has no end record, or a table of contents too large to be looked at, or more than one disk."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - 0xFFFF - _END.size))
    if at < 0 or at + _END.size > len(data):
        raise CannotLoad(Reason.TRUNCATED, f"The file has {len(data)} bytes and lacks the table of contents at its end.")
    _mark, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(data, at)
    if at + _END.size + comment != len(data):
        raise CannotLoad(Reason.TRUNCATED, "Something follows the archive, or its end is damaged.")
    locator = at - _LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        where = _LOCATOR.unpack_from(data, locator)[2]
        if where + _END64.size != locator:
            raise CannotLoad(Reason.TRUNCATED, "The archive's end is damaged.")
        _m, _s, _v, _n, disk, first_disk, here, count, size, offset = _END64.unpack_from(data, where)
        at = where
    if disk or first_disk or here != count or count > most:
        raise CannotLoad(Reason.ARCHIVE_REFUSED, f"The archive has several parts, or more than {most} files and folders.")
    if size > count * _LONGEST_ENTRY or offset + size != at:
        raise CannotLoad(Reason.TRUNCATED, "The archive's table of contents is not where it says, or too large.")


def _refused(name: str, why: str) -> CannotLoad:
    return CannotLoad(Reason.ARCHIVE_REFUSED, f"In the archive, {name[:100]!r} {why}.")
