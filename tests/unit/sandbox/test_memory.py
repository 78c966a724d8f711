"""What a process holds is measured as the kernel counts it."""

import os
import subprocess
import sys

import psutil

from modelkeep.sandbox.memory import peak_resident_bytes, resident_bytes


def test_memory_is_measured():
    before = resident_bytes(os.getpid())
    ballast = b"x" * 100_000_000  # written, and too large to come from memory that was freed before
    assert resident_bytes(os.getpid()) - before > 80_000_000
    assert peak_resident_bytes() >= resident_bytes(os.getpid()) - 1_000_000
    assert len(ballast) == 100_000_000


def test_that_of_another_process_until_it_ends():
    script = "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert resident_bytes(other.pid) == psutil.Process(other.pid).memory_info().rss
        other.communicate(b"\n")
    assert resident_bytes(other.pid) == 0
