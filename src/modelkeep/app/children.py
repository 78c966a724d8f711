"""Child processes of the supervisor: started with nothing they do not need, watched by pidfd, ended by name."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from modelkeep.sandbox.control import Channel
from modelkeep.sandbox.lockdown import die_with_parent


@dataclass
class Child:
    """A running process and the channel to it. `ended` resolves to its exit code (negative: the signal it died of)."""

    name: str
    pid: int
    channel: Channel
    ended: "asyncio.Future[int]"
    _process: "subprocess.Popen[bytes]"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.ended.done():
            self._process.send_signal(number)

    async def finish(self, grace_s: float) -> int:
        """Wait for the end; after `grace_s` seconds, bring it about."""
        done, _pending = await asyncio.wait({self.ended}, timeout=grace_s)
        if not done:
            self._process.kill()
        return await self.ended


def start(name: str, command: Sequence[str], environment: Mapping[str, str], fds: Sequence[int] = ()) -> Child:
    """Start a process that finds its end of the channel as the descriptor named last on its command line.

    It gets its own process group, so that a terminal's Ctrl-C reaches the supervisor alone.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *fds),
            process_group=0,
            # Set before the program starts: one that is killed while a child still imports must not leave it behind. The
            # supervisor's only other threads fetch and open model files, and hold nothing that this small function needs, so
            # running Python between fork and exec is safe.
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - as said above
        )
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def reap() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        ended.set_result(process.wait())

    loop.add_reader(pidfd, reap)
    return Child(name, process.pid, Channel(ours), ended, process)
