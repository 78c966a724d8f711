"""Reads `requirements.txt`: one locked requirement a line, with hashes where they are given.

    scikit-learn==1.9.0 --hash=sha256:0123...

What pip-compile and uv write is taken: comments, continued lines, markers, options that only say where an index is.
"""

import re
from typing import NamedTuple

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

_ELSEWHERE = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host", "--only-binary")
_HASH = re.compile(r"\s+--hash[= ](?P<kind>\w+):(?P<value>[0-9a-fA-F]+)")
_COMMENT = re.compile(r"(^|\s)#.*$")


class Locked(NamedTuple):
    """One requirement: the package's normalised name, its version, and the digests that its wheel may have, by algorithm."""

    name: str
    version: str
    digests: tuple[tuple[str, str], ...] = ()


def read(text: str) -> list[Locked]:
    """Return what a `requirements.txt` locks for this Python and machine; raises `CannotLoad` naming the line."""
    found = []
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        part = _COMMENT.sub("", line).rstrip()
        first = first if joined else number
        if part.endswith("\\"):
            joined += part[:-1] + " "
            continue
        whole, joined = (joined + part).strip(), ""
        if whole and not whole.startswith(_ELSEWHERE):
            locked = _locked(whole, first)
            found += [locked] if locked else []
    return found


def _locked(line: str, number: int) -> Locked | None:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    digests = tuple((one["kind"], one["value"].lower()) for one in _HASH.finditer(line))
    try:
        wanted = Requirement(_HASH.sub("", line))
    except InvalidRequirement as error:
        raise _refused(number, "is no locked requirement: name==version, with wheels/ holding its wheel") from error
    if wanted.marker is not None and not wanted.marker.evaluate():
        return None
    exact = [one.version for one in wanted.specifier if one.operator in {"==", "==="} and not one.version.endswith(".*")]
    if wanted.url or len(wanted.specifier) != 1 or len(exact) != 1:
        raise _refused(number, f"does not lock {wanted.name} to one version: write {wanted.name}==VERSION")
    return Locked(canonicalize_name(wanted.name), exact[0], digests)


def _refused(number: int, why: str) -> CannotLoad:
    return CannotLoad(Reason.LOAD_FAILED, f"requirements.txt, line {number}, {why}.")
