"""Which files are loaded at which level, and what makes a level."""

import itertools
import json
import subprocess
import sys

import msgspec
import pytest

from modelkeep.contracts.confinement import NEEDED, Confinement, Layer, Level, level
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Format, Manifest
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import loader, selftest, view


class Plugin:
    manifest = Manifest("p", tuple(Format(kind, (f".{kind}",), kind) for kind in ("data", "guarded", "code")))


def loads(kind, held, accepted=None):
    spec = RunnerSpec("ver_1", "", 0, kind, "p", accepted=accepted)
    try:
        loader.require(spec, Confinement(held, (Layer("landlock", holds=False, detail="too old"),)), [Plugin])
    except CannotLoad as error:
        return str(error)
    return True


def test_data_needs_a_filter_and_code_needs_walls_too():
    answers = {(kind, held.short): loads(kind, held) is True for kind in NEEDED for held in Level}
    refused = {key for key, loaded in answers.items() if not loaded}
    assert refused == {("data", "L0"), ("guarded", "L0"), ("code", "L0"), ("code", "L1")}


def test_what_is_accepted_lowers_the_need_and_never_raises_it():
    for kind, held, accepted in itertools.product(NEEDED, Level, Level):
        enough = held >= min(NEEDED[kind], accepted)
        assert (loads(kind, held, accepted) is True) == enough


def test_a_refusal_says_what_is_needed_what_there_is_and_why():
    said = loads("code", Level.FILTERED)
    assert said.startswith(Reason.NOT_CONFINED)
    assert "code needs L2" in said
    assert "gives L1" in said
    assert "landlock: too old" in said


@pytest.mark.parametrize(
    ("holds", "reached"),
    [
        ("hygiene seccomp landlock namespaces", Level.SEPARATED),
        ("hygiene seccomp landlock", Level.WALLED),
        ("hygiene seccomp", Level.FILTERED),
        ("hygiene seccomp namespaces", Level.FILTERED),
        ("hygiene landlock namespaces", Level.OPEN),
        ("seccomp landlock namespaces", Level.OPEN),
        ("", Level.OPEN),
    ],
)
def test_a_level_has_all_layers_below_it(holds, reached):
    layers = ("hygiene", "seccomp", "landlock", "namespaces")
    assert selftest._level({layer: layer in holds.split() for layer in layers}) is reached


LOOK = """
import os, sys, msgspec
left_open = os.open("/dev/null", os.O_RDONLY)
from modelkeep.sandbox import selftest
sys.stdout.buffer.write(msgspec.json.encode([selftest.confinement(frozenset(range(256))), selftest.confinement(frozenset())]))
"""


def test_a_process_that_nobody_locked_in_is_seen_to_be_open():
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, check=True)
    open_to, strict = msgspec.json.decode(done.stdout, type=list[Confinement])
    assert open_to.level is Level.OPEN
    for fault in (
        "the environment holds more than it should",
        "files can be written",
        "privileges could be gained",
        "its memory can be read from outside",
        "a process can be made",
        "a socket can be opened",
        "memory can be hidden in files",
        "a program can be started",
        "a process can be signalled",
        "a file's mode can be changed",
        "its end with its parent can be called off",
        "folders can be listed",
        "names of other files can be asked for",
    ):
        assert fault in open_to.missing
    assert "a descriptor is left open" not in open_to.missing
    assert "a descriptor is left open" in strict.missing


def test_levels_have_short_names():
    assert [one.short for one in Level] == ["L0", "L1", "L2", "L3"]
    assert [level(one.short) for one in Level] == list(Level)
    assert level("") is None


def test_the_view_is_of_python_and_leaves_out_what_lies_in_it():
    seen = view.readable(tuple(sys.path))
    assert any(view.inside(json.__file__, folder) for folder in seen)
    assert any(view.inside(loader.__file__, folder) for folder in seen)
    assert view.WRITABLE in seen
    assert not any(view.inside(one, other) for one, other in itertools.permutations(seen, 2))
    assert not any(view.inside(path, folder) for path in ("/etc/passwd", "/home", "/proc/1") for folder in seen)


@pytest.mark.parametrize(
    ("path", "folder", "answer"), [("/a/b", "/a", True), ("/a", "/a", True), ("/ab", "/a", False), ("/a", "/a/b", False)]
)
def test_a_path_is_inside_a_folder_by_whole_names(path, folder, answer):
    assert view.inside(path, folder) is answer
