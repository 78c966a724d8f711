"""Every attack, in every set-up: it works where nothing protects, and not from inside a runner.

What is left open at level L2 is what the threat model says (`docs/explanation/sandbox.md`); at L3 nothing of this is.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.attacks import hooks, places
from fixtures.attacks.bodies import BODIES, ENDING, LASTING

STAGE = Path(__file__).parents[2] / "fixtures" / "attacks" / "stage.py"
LEFT_OPEN = {"L2": {"whether a file exists"}, "L3": set()}
"""Attacks that work from inside a runner at a level."""

CLOSED_BEFORE = {
    "root": {"the old system calls of x32"},
    "plain": {
        "the old system calls of x32",
        "change a library that others import",
        "performance counters",
    },
}
CLOSED_BEFORE["podlike"] = CLOSED_BEFORE["plain"] | {
    "a user namespace",
    "a user namespace, by clone",
    "a user namespace, by clone3",
    "io_uring",
    "keys of the kernel",
}
"""Attacks that a set-up, or this kernel, closes by itself."""

PLACE_CLOSED_BEFORE = {"root": set(), "plain": {"mount over its folder"}}
PLACE_CLOSED_BEFORE["podlike"] = PLACE_CLOSED_BEFORE["plain"] | {"another model's folder, by its process"}
"""The same for attacks on the folder that an archive is unpacked in."""

OTHERWISE = {
    "a message over the cap": ("SENT", "SENT: CUT"),
    "a message that is none": ("SENT", "SENT: CUT"),
    "an endless loop": ("LOOPING", "LOOPING: STOPPED"),
    "a crash": ("CRASHING", "CRASHING: CUT"),
    "an exit": ("ENDING", "ENDING: CUT"),
    "the old system calls of x32": ("OPEN", ": CUT"),
}
"""Attacks that are not asked whether they succeeded: how they end unprotected, and in a runner."""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacks name system calls by their x86-64 numbers"),
    pytest.mark.timeout(500),
]


@pytest.fixture(scope="module", params=["root", "plain", "podlike"])
def stage(request):
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can try what root meets")
    done = subprocess.run(
        [sys.executable, STAGE, request.param],
        capture_output=True,
        text=True,
        timeout=480,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return request.param, json.loads(done.stdout)


@pytest.mark.parametrize("name", BODIES)
def test_an_attack_works_unprotected_and_not_in_a_runner(stage, name):
    setup, found = stage
    alone, confined = found["attacks"][name]["unprotected"], found["attacks"][name]["runner"]
    works, ends = OTHERWISE.get(name, ("OPEN", "BLOCKED"))
    if name not in CLOSED_BEFORE[setup]:
        assert alone.startswith(works), "the control does not show the attack"
    if name in LEFT_OPEN[found["level"]]:
        assert confined.startswith("OPEN"), "closed by now: say so in the threat model"
    else:
        assert confined.startswith(ends), confined


@pytest.mark.parametrize("name", LASTING)
def test_an_attack_works_as_little_from_a_class_whose_runner_is_a_new_python(stage, name):
    _setup, found = stage
    expected = "OPEN" if name in LEFT_OPEN[found["level"]] else "BLOCKED"
    assert found["classes"][name].startswith(expected)


@pytest.mark.parametrize("place", hooks.PLACES)
@pytest.mark.parametrize("name", LASTING)
def test_an_attack_works_unprotected_and_as_little_from_hooks(stage, name, place):
    setup, found = stage
    alone, confined = found["hooks"][place][name]["unprotected"], found["hooks"][place][name]["runner"]
    if name not in CLOSED_BEFORE[setup]:
        assert alone.startswith("OPEN"), "the control does not show the attack"
    assert confined.startswith("OPEN" if name in LEFT_OPEN[found["level"]] else "BLOCKED"), confined


@pytest.mark.parametrize("name", sorted(ENDING))
def test_hooks_that_end_their_runner_end_nothing_else(stage, name):
    _setup, found = stage
    assert found["hooks"]["preprocess"][name]["runner"].startswith(OTHERWISE[name][1])


@pytest.mark.parametrize("name", places.BODIES)
def test_an_attack_on_the_folder_of_an_archive_works_unprotected_and_not_in_a_runner(stage, name):
    setup, found = stage
    alone, confined = found["places"][name]["unprotected"], found["places"][name]["runner"]
    if name not in PLACE_CLOSED_BEFORE[setup]:
        assert alone.startswith("OPEN"), "the control does not show the attack"
    assert confined.startswith("BLOCKED"), confined


def test_runners_are_locked_in_as_well_as_the_set_up_allows(stage):
    setup, found = stage
    layers = found["layers"]
    assert layers["hygiene"] is True
    assert layers["seccomp"] is True
    assert layers["landlock"] is True
    assert (layers["own user"] is True) == (setup == "root")
    if setup == "podlike":
        assert found["level"] == "L2"
        assert "unshare" in layers["namespaces"]
    if setup == "root":
        assert found["level"] == "L3"
