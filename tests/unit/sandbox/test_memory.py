"""What a process holds: pages of its own, nothing once it has ended, whoever may look."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelkeep.sandbox.memory import machine_bytes, private_bytes, resident_bytes


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def forbidden(_path):
    raise PermissionError


def test_what_is_written_counts_as_a_process_s_own():
    before = private_bytes(os.getpid())
    ballast = bytearray(b"x") * (50 << 20)
    assert private_bytes(os.getpid()) - before > 0.9 * len(ballast)  # libraries' threads give some of theirs back meanwhile
    assert private_bytes(os.getpid()) <= resident_bytes(os.getpid())


def test_where_nobody_may_look_all_that_is_no_file_counts(monkeypatch):
    exact = private_bytes(os.getpid())
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert 0.5 * exact < private_bytes(os.getpid()) <= resident_bytes(os.getpid())


@pytest.mark.parametrize("may_look", [True, False])
def test_a_process_that_has_ended_holds_nothing(monkeypatch, may_look):
    if not may_look:
        monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert private_bytes(ended()) == 0


def test_the_machine_has_as_much_as_the_kernel_says_or_less():
    assert (256 << 20) < machine_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
