"""The template: one warm, single-threaded process that holds no secret. Each runner is a fork of it.

Started by the supervisor as `python -I -m modelkeep.sandbox.template FD`, where FD is its end of a control channel and the
environment is `lockdown.ENVIRONMENT`. It says first how well runners are locked in here (`Grounded`). Then it answers each
`Fork` with `Forked` and, when that runner has ended, with `Exited`. A runner that could not even be forked is `Exited` without
having been `Forked`. It ends at the channel's end of file, and its runners end with it.
"""

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from modelkeep.sandbox import child, cold, loader, lockdown, view
from modelkeep.sandbox.cells import Cells
from modelkeep.sandbox.control import ChannelClosed, Exited, Fork, Forked, Grounded, Inbox, pack
from modelkeep.sandbox.place import Place, lent, mounted

NOT_FORKED = 71
"""Status of an `Exited` for a runner that could not be forked."""


class Running(msgspec.Struct, frozen=True):
    """A runner that has not been reaped: its name, process id and user id (0: ours)."""

    runner: str
    pid: int
    uid: int


class _Grant(NamedTuple):
    """What a runner gets for its archive: whether it unpacks one, whether it can mount, the folder it is lent (-1: none)."""

    unpacks: bool
    separate: bool
    folder: int = -1


class Template:
    """Forks runners, reaps them, and imports what they will need in the meantime."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._cells = Cells()
        self._inbox = Inbox()
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    def run(self) -> None:
        """Work until the supervisor closes the channel."""
        with contextlib.suppress(ChannelClosed, ConnectionError):
            self._channel.sendall(pack(Grounded(self._cells.confinement)))
            gc.disable()  # importing makes many objects and no garbage
            for _module in preload():
                self._turn(0)
            gc.enable()
            gc.collect()
            while True:
                self._turn(None)

    def _turn(self, timeout: float | None) -> None:
        for key, _events in self._selector.select(timeout):
            if isinstance(key.data, Running):
                self._reap(key.fd, key.data)
            else:
                for message, fds in self._inbox.receive(self._channel):
                    if isinstance(message, Fork):
                        self._fork(message, fds)

    def _fork(self, fork: Fork, fds: list[int]) -> None:
        artifact, channel, output, *lent = fds
        for runner in loader.installed():
            if runner.manifest.name == fork.spec.runner:
                # What is asked for first is imported first, and here: done in the fork, it would be done twice at once.
                deque(_imported((*runner.manifest.preload, *runner.manifest.preload_when_asked)), maxlen=0)
        if lockdown.count_threads(self._cells.proc) != 1:
            raise RuntimeError("a preloaded module has started a thread: forks of this template would be broken")
        unpacks = loader.unpacks(fork.spec)
        # A folder that is lent belongs to the supervisor's user, as all of the data directory does; another could not reach it.
        borrows = unpacks and not self._cells.separate
        memory_bytes = fork.spec.limits.memory_mb << 20
        allowance = self._cells.allowance(memory_bytes, frozenset({artifact, channel}), output, same_user=borrows)
        gc.freeze()  # runners share these objects' memory as long as no collection touches them
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"cannot fork a runner: {error}\n")
            self._channel.sendall(pack(Exited(fork.runner, NOT_FORKED, 0)))
            pid = -1
        if pid == 0:
            _become_runner(fork, artifact, channel, allowance, _Grant(unpacks, self._cells.separate, *lent))
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._watch(Running(fork.runner, pid, allowance.uid))
        else:
            self._cells.release(allowance.uid)

    def _watch(self, running: Running) -> None:
        pidfd = os.pidfd_open(running.pid)
        message = pack(Forked(running.runner, running.pid), [pidfd])
        sent = socket.send_fds(self._channel, [message], [pidfd])
        self._channel.sendall(message[sent:])
        self._selector.register(pidfd, selectors.EVENT_READ, running)

    def _reap(self, pidfd: int, running: Running) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _pid, status, usage = os.wait4(running.pid, 0)
        self._cells.release(running.uid)
        exited = Exited(running.runner, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
        self._channel.sendall(pack(exited))


def preload() -> Iterator[str]:
    """Import what the installed runners name, one module at a time; yields each name once it is there.

    A module that is not installed belongs to an extra that this installation does without: runners that need it say so.
    """
    for runner in loader.installed():
        yield from _imported(runner.manifest.preload)


def _imported(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the runners of other plugins need none of it
            sys.stderr.write(f"not preloaded: {name}: {error}\n")
        yield name


def _become_runner(fork: Fork, artifact: int, channel: int, allowance: lockdown.Allowance, grant: _Grant) -> None:
    """Never returns. Nothing of the template's own stack may run in the runner."""
    status = cold.BROKEN
    try:
        place = _place(fork, allowance, grant)
        seen = view.readable(tuple(sys.path))
        if loader.is_cold(fork.spec):
            cold.begin(cold.Start(fork, artifact, channel, allowance, place, seen))
        status = child.main(fork, artifact, channel, allowance, place=place, seen=seen)
    except Exception:  # noqa: BLE001 - the last frame of a process: tell the supervisor's pipe, then end
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _place(fork: Fork, allowance: lockdown.Allowance, grant: _Grant) -> Place | None:
    """Return the runner's own folder, where its format needs one and there is one to be had."""
    if not grant.unpacks:
        return None
    if grant.separate:
        return mounted(fork.spec.limits, allowance.uid)
    return lent(fork.spec.limits, fork.folder, grant.folder) if grant.folder >= 0 else None


def main(fd: int) -> None:
    """Be the template of the supervisor at the other end of `fd`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides when runners end; a terminal's Ctrl-C goes to all
    lockdown.clean_environment()
    tempfile.tempdir = "/"  # torch asks for such a folder on import; looking for one where nothing can be written is an error
    parent = os.getppid()
    template = Template(socket.socket(fileno=fd))
    lockdown.die_with_parent(parent)  # after namespaces were entered, which may clear it
    template.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
