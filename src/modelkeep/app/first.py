"""The process that was started first: when another tree has taken over it stays, as the one that others know.

A terminal, a container and a service manager hold on to the process that they started. So it waits for the trees that follow,
passes signals on to them, and ends with the last one, by its status. It holds nothing else any more.
"""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

from modelkeep.sandbox import kernel

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stay() -> NoReturn:
    """Be there until the last tree has ended: a child of ours, and whoever takes over from it becomes ours when it ends."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    said: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        said.append(number)
        _pass_on(number)

    for number in _PASSED_ON:
        signal.signal(number, hear)
    status = 0
    with contextlib.suppress(ChildProcessError):
        while True:
            _pid, how = os.wait()
            status = os.waitstatus_to_exitcode(how)
            if said:  # a tree that was still leaving ended by it: the one that had taken over is ours now, and has not heard
                _pass_on(said[-1])
    raise SystemExit(status if status >= 0 else 128 - status)


def _pass_on(number: int) -> None:
    for pid in _children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]
