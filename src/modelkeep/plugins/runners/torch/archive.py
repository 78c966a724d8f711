"""What a file of PyTorch's is, told from its first bytes and its table of contents. Nothing in it is run or unpickled here."""

import io
import zipfile
import zlib
from enum import Enum

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How `torch.save` began its files before PyTorch 1.6, and still does when it is told to."""

_ZIP = b"PK\x03\x04"
_NAME_SIZE_AT, _NAME_AT = 26, 30
_FIRST = (
    b".data/",
    b".format_version",
    b"archive_format",
    b"archive_version",
    b"byteorder",
    b"bytecode.pkl",
    b"code/",
    b"constants",
    b"data.pkl",
    b"data/",
    b"extra/",
    b"models/",
    b"version",
)
_FOLDER, _SHORT = b"archive/", 64
_LAST = b"/.data/serialization_id"
_SAFETENSORS_HEADER_AT = 8
_MOST_UNPACKED = 256 << 20
_CHUNK = 1 << 20
_ENCRYPTED = 1
_MARKED_FOLDER = 0x10
_INNER = "the last table of contents is that of an archive within the archive"
_DAMAGED = "The file begins like one of PyTorch's, and is damaged further on"


class Kind(Enum):
    """What a file of PyTorch's may be, and how its uploader would call it."""

    SCRIPT = "TorchScript"
    PROGRAM = "a program of torch.export"
    SAVED = "what torch.save wrote"
    LEGACY = "what torch.save wrote in its form of before PyTorch 1.6"
    SAFETENSORS = "safetensors"
    PACKAGE = "a torch.package"
    INDUCTOR = "an AOTInductor package"
    MOBILE = "a model for mobile devices in FlatBuffers"
    OTHER = "an archive that PyTorch wrote"


class Archive(msgspec.Struct, frozen=True):
    """A file that was looked at: its kind, and the names in it without the folder that all are in."""

    kind: Kind
    names: frozenset[str] = frozenset()


def recognise(head: bytes, tail: bytes) -> str | None:
    """Return "torch-export" or "torchscript"; the latter for all else that PyTorch writes, so that it is refused in words."""
    if head.startswith(_ZIP):
        name = head[_NAME_AT : _NAME_AT + int.from_bytes(head[_NAME_SIZE_AT : _NAME_SIZE_AT + 2], "little")]
        _folder, slash, first = name.partition(b"/")
        known = slash and first.startswith(_FIRST)
        cut = len(head) < _SHORT and len(name) > 1 and _FOLDER.startswith(name)  # a character alone begins too many names
        if not known and _LAST not in tail and not cut:
            return None
        exported = b"/archive_format" in tail or first.startswith((b"models/", b"data/weights/", b"data/constants/"))
        return "torch-export" if exported else "torchscript"
    return "torchscript" if head.startswith(LEGACY) or _is_mobile(head) or is_safetensors(head) else None


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, and its first characters."""
    length = int.from_bytes(head[:_SAFETENSORS_HEADER_AT], "little")
    return 1 < length < 1 << 27 and head[_SAFETENSORS_HEADER_AT:].startswith((b'{"', b"{}"))


def look_at(data: bytes, *, weights: bool = False) -> Archive:
    """Return what the file is; raises `CannotLoad` where it is cut or damaged. `weights`: they are to be read."""
    if is_safetensors(data[:16]):
        return Archive(Kind.SAFETENSORS)
    if data.startswith(LEGACY):
        return Archive(Kind.LEGACY)
    if _is_mobile(data[:8]):
        return Archive(Kind.MOBILE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = _alone(archive)
            paths = [one.filename for one in infos]
            names = frozenset(path.partition("/")[2] for path in paths)
            kind = _kind(names)
            if kind in {Kind.SCRIPT, Kind.PROGRAM} or (weights and kind is Kind.SAVED):
                _check_sizes(infos, len(data))
                _check_content(archive, infos)
    except zipfile.BadZipFile as error:
        if str(error) in {_INNER, "File is not a zip file"}:
            detail = f"The file has {len(data)} bytes and lacks the table of contents at its end."
            raise CannotLoad(Reason.TRUNCATED, detail) from error
        raise CannotLoad(Reason.LOAD_FAILED, f"{_DAMAGED}: {error}.") from error
    except (zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise CannotLoad(Reason.LOAD_FAILED, f"{_DAMAGED}: {error}.") from error
    if len(set(paths)) != len(paths) or len({path.partition("/")[0] for path in paths}) != 1:
        raise CannotLoad(Reason.LOAD_FAILED, f"{_DAMAGED}: its records are not in one folder, each once.")
    return Archive(kind, names)


def _alone(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if not infos or min(one.header_offset for one in infos):
        raise zipfile.BadZipFile(_INNER)
    return infos


def _kind(names: frozenset[str]) -> Kind:
    """The kind of an archive with these names: what must not be loaded first."""
    if any(name.startswith("data/aotinductor/") for name in names):
        return Kind.INDUCTOR
    if ".data/extern_modules" in names:
        return Kind.PACKAGE
    if "archive_format" in names:
        return Kind.PROGRAM if any(name.startswith("models/") for name in names) else Kind.OTHER
    if any(name.startswith("code/") for name in names) and {"data.pkl", "constants.pkl"} <= names:
        return Kind.SCRIPT
    return Kind.SAVED if "data.pkl" in names else Kind.OTHER


def _check_sizes(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what would not be in the file, or be much more than the file, once it is unpacked."""
    if sum(one.compress_size for one in infos) > size:
        raise zipfile.BadZipFile("its records overlap")
    for one in infos:
        if one.external_attr & _MARKED_FOLDER:  # PyTorch leaves such a record out, and answers with what lay in the memory
            raise zipfile.BadZipFile("a record is marked as a folder")
        if one.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or one.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile("a record is packed in a way that PyTorch has not")
        if one.compress_type == zipfile.ZIP_STORED and one.compress_size != one.file_size:
            raise zipfile.BadZipFile("a record is not as long as it says")
    unpacked = sum(one.file_size for one in infos if one.compress_type == zipfile.ZIP_DEFLATED)
    if unpacked > _MOST_UNPACKED:
        raise zipfile.BadZipFile(f"its packed records would be {unpacked >> 20} MB, and {_MOST_UNPACKED >> 20} MB are allowed")


def _check_content(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> None:
    """Compare each record with its checksum: PyTorch does not, and would answer with damaged weights."""
    for one in infos:
        with archive.open(one) as record:
            left = one.file_size
            while chunk := record.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise zipfile.BadZipFile("a record is longer than it says")
        if left:
            raise zipfile.BadZipFile("a record is shorter than it says")


def _is_mobile(head: bytes) -> bool:
    return head[4:8] == b"PTMF"
