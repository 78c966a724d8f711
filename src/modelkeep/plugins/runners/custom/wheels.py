"""The packages that an artifact brings: wheels, checked against its `requirements.txt` and this machine, and unpacked.

Nothing is fetched and nothing is run. A package that this process has already loaded cannot be replaced: its wheel must be of
the same version, and is then left out.
"""

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from modelkeep.contracts.columns import listed
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Unpack
from modelkeep.plugins.runners.custom import requirements
from modelkeep.plugins.runners.custom.requirements import Locked

if TYPE_CHECKING:
    from packaging.tags import Tag

PACKAGES = ".packages"
"""The folder, beside the artifact's own files, that the wheels are unpacked in."""

_WHEELS, _REQUIREMENTS = "wheels", "requirements.txt"
_DATA = re.compile(r"[^/]+\.data/(?P<kind>[^/]+)/(?P<rest>.+)")
_LIBRARIES = frozenset({"purelib", "platlib"})
_LARGEST_METADATA = 1 << 20
_OURS_FOR_NOW = frozenset({"packaging", "picklescan", "typing_extensions"})
"""What is used on an archive before it is unpacked, and what msgspec has taken its needs from: others may come after them."""


class Wheel(NamedTuple):
    """One wheel: its file's name in the artifact, and the package, version and kinds of machine that the name tells."""

    file: str
    name: str
    version: str
    tags: "frozenset[Tag]"


def install(folder: str, unpack: Unpack) -> list[str]:
    """Check and unpack the wheels in an artifact's folder; returns "name version" of each. Raises `CannotLoad`."""
    wheels = [_named(path.name) for path in sorted(Path(folder, _WHEELS).glob("*.whl"))]
    wanted = _wanted(Path(folder, _REQUIREMENTS))
    _check_each_once(wheels)
    _check_machine(wheels)
    for one in wanted:
        _check_present(one, wheels)
    _check_digests(folder, wanted, wheels)
    _check_needs(folder, wheels)
    missing = [wheel for wheel in wheels if not _is_loaded(folder, wheel)]
    _let_go(_OURS_FOR_NOW)
    for wheel in missing:
        unpack(wheel.file, _placed)
    return [f"{wheel.name} {wheel.version}" for wheel in wheels]


def _wanted(file: Path) -> list[Locked]:
    try:
        return requirements.read(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise CannotLoad(Reason.LOAD_FAILED, "requirements.txt is no UTF-8 text.") from error


def _named(file: str) -> Wheel:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _build, tags = parse_wheel_filename(file)
    except InvalidWheelFilename as error:
        raise CannotLoad(
            Reason.LOAD_FAILED, f"{file} is not named as a wheel is: NAME-VERSION-PYTHON-ABI-MACHINE.whl."
        ) from error
    return Wheel(f"{_WHEELS}/{file}", name, str(version), tags)


def _check_each_once(wheels: Iterable[Wheel]) -> None:
    seen: dict[str, str] = {}
    for wheel in wheels:
        if wheel.name in seen:
            raise CannotLoad(Reason.LOAD_FAILED, f"There are two wheels of {wheel.name}: {seen[wheel.name]} and {wheel.file}.")
        seen[wheel.name] = wheel.file


def _check_machine(wheels: Iterable[Wheel]) -> None:
    from packaging.tags import sys_tags

    here = list(sys_tags())
    fitting = frozenset(here)
    for wheel in wheels:
        if not wheel.tags & fitting:
            made_for = listed(sorted(map(str, wheel.tags)))
            raise CannotLoad(
                Reason.MISSING_DEPENDENCY,
                f"{wheel.file} is for another Python or machine ({made_for}); here it must be for {here[0]}, or for any.",
            )


def _check_present(locked: Locked, wheels: Iterable[Wheel]) -> None:
    brought = next((wheel.version for wheel in wheels if wheel.name == locked.name), None)
    installed = _installed(locked.name)
    for version in (brought, installed):
        if version is not None and _same(version, locked.version):
            return
    there = f"; the wheel there is of {brought}" if brought else f"; installed here is {installed}" if installed else ""
    raise CannotLoad(
        Reason.MISSING_DEPENDENCY,
        f"requirements.txt asks for {locked.name} {locked.version}, and wheels/ has no wheel of it{there}.",
    )


def _check_digests(folder: str, wanted: Iterable[Locked], wheels: Iterable[Wheel]) -> None:
    by_name = {wheel.name: wheel for wheel in wheels}
    for locked in wanted:
        wheel = by_name.get(locked.name)
        if wheel is None or not locked.digests:
            continue
        data = Path(folder, wheel.file).read_bytes()
        if not any(_has_digest(data, kind, value) for kind, value in locked.digests):
            raise CannotLoad(
                Reason.CORRUPT, f"{wheel.file} has another hash than requirements.txt says for {locked.name} {locked.version}."
            )


def _has_digest(data: bytes, kind: str, value: str) -> bool:
    return kind in {"sha256", "sha384", "sha512"} and hashlib.new(kind, data).hexdigest() == value


def _check_needs(folder: str, wheels: Iterable[Wheel]) -> None:
    """Refuse a wheel that needs a package which is neither brought nor installed, before it fails somewhere on the way."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    brought = {wheel.name: wheel.version for wheel in wheels}
    for wheel in wheels:
        for text in _metadata(folder, wheel).get_all("Requires-Dist", []):
            try:
                needed = Requirement(text)
            except InvalidRequirement:
                continue  # old packages have such; what they meant shows when it is imported
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            version = brought.get(canonicalize_name(needed.name)) or _installed(needed.name)
            if version is None or not needed.specifier.contains(version, prereleases=True):
                have = f"{version} is there" if version else "it is neither installed here nor among the artifact's wheels"
                raise CannotLoad(
                    Reason.MISSING_DEPENDENCY, f"{wheel.name} {wheel.version} needs {needed.name}{needed.specifier}: {have}."
                )


def _metadata(folder: str, wheel: Wheel) -> "metadata.PackageMetadata":
    """Return what a wheel says of itself; raises `CannotLoad` where that cannot be read."""
    from email.parser import BytesParser

    try:
        with zipfile.ZipFile(Path(folder, wheel.file)) as archive:
            name = next(one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            with archive.open(name) as file:
                return BytesParser().parsebytes(file.read(_LARGEST_METADATA), headersonly=True)  # type: ignore[return-value]
    except (zipfile.BadZipFile, StopIteration, NotImplementedError, OSError, ValueError) as error:
        raise CannotLoad(Reason.LOAD_FAILED, f"{wheel.file} is damaged: it holds no description of a package.") from error


def _is_loaded(folder: str, wheel: Wheel) -> bool:
    """Whether this process has the package already, of the same version; raises `CannotLoad` where it is another."""
    with zipfile.ZipFile(Path(folder, wheel.file)) as archive:
        tops = {_placed(name).removeprefix(f"{PACKAGES}/").partition("/")[0].partition(".")[0] for name in archive.namelist()}
    loaded = sorted(top for top in tops - {""} - _OURS_FOR_NOW if top in sys.modules)
    if not loaded:
        return False
    here = _installed(wheel.name)
    if here is not None and _same(here, wheel.version):
        return True
    have = f"{wheel.name} {here}" if here else f"a module {loaded[0]} of their own"
    raise CannotLoad(
        Reason.MISSING_DEPENDENCY,
        f"{wheel.file} conflicts with {have}, which every runner here works with. Leave it out, or bring the same version.",
    )


def _placed(name: str) -> str:
    """Where a file of a wheel goes, beside the artifact's own; "" for scripts and the like, which nothing here would run."""
    data = _DATA.fullmatch(name)
    if data is None:
        return f"{PACKAGES}/{name}"
    return f"{PACKAGES}/{data['rest']}" if data["kind"] in _LIBRARIES else ""


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _same(left: str, right: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(left) == Version(right)
    except InvalidVersion:
        return left == right


def _let_go(packages: frozenset[str]) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] in packages]:
        del sys.modules[name]
