"""Runners that start as a new Python: what they have imported when they are locked in, and have not opened their artifact."""

import json
import os
import socket
import subprocess
import sys

import msgspec

from modelkeep.contracts.confinement import Level
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import cold, view
from modelkeep.sandbox.control import Fork
from modelkeep.sandbox.lockdown import ENVIRONMENT, Allowance

LOOKING = """
import json, os, sys
sys.path[:] = {path!r}
from modelkeep.sandbox import cold, kernel, loader

def taken(*file):
    locked = kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS), kernel.prctl(kernel.PR_GET_DUMPABLE)
    print(json.dumps([locked, sorted(sys.modules)]), flush=True)
    os._exit(0)

loader.taken = taken
cold.main({number})
"""
"""The program of a cold runner, which looks about and ends where it would open its artifact."""


def test_one_that_is_locked_in_has_imported_nothing_but_what_frames_need():
    spec = RunnerSpec("ver_1", "0" * 64, 1, "python", "python", accepted=Level.OPEN)
    ours, channel = socket.socketpair()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    artifact, told = os.memfd_create("artifact"), os.memfd_create("start")
    allowance = Allowance(0, os.getpid(), frozenset({artifact, channel.fileno()}), 1, proc)
    start = cold.Start(Fork("one", spec), artifact, channel.fileno(), allowance, None, view.readable(tuple(sys.path)))
    os.write(told, msgspec.msgpack.encode(start))
    program = LOOKING.format(path=sys.path, number=told)
    with ours, channel:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            env=ENVIRONMENT,
            pass_fds=(artifact, channel.fileno(), proc, told),
            capture_output=True,
            text=True,
            timeout=60,
        )
    for number in (artifact, told, proc):
        os.close(number)
    assert done.returncode == 0, done.stdout + done.stderr
    locked, modules = json.loads(done.stdout)
    assert locked == [1, 0], "no new privileges, and nobody may look into it"
    packages = {one.partition(".")[0] for one in modules} - set(sys.stdlib_module_names) - {"__main__"}
    assert packages - {"typing_extensions"} == {"modelkeep", "msgspec"}  # msgspec imports the former where it is installed
