"""The template: one warm, single-threaded process that holds no secret. Each runner is a fork of it.

Started by the supervisor as `python -I -m modelkeep.sandbox.template FD`, where FD is its end of a control channel and the
environment is `lockdown.ENVIRONMENT`. It says first how well runners are locked in here (`Grounded`). Then it answers each
`Fork` with `Forked` and, when that runner has ended, with `Exited`. A runner that could not even be forked is `Exited` without
having been `Forked`. It ends at the channel's end of file, and its runners end with it.

A fork of so many frameworks takes ten milliseconds, and its lock-down three: once nothing has been asked for a while, one
runner is forked ahead, and waits, locked in, for what it is to load. One that unpacks an archive is forked when it is asked
for, since what it is given comes before the lock-down.
"""

import contextlib
import gc
import importlib
import importlib.abc
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, NoReturn

import msgspec

from modelkeep.contracts.runner import Runner
from modelkeep.sandbox import (
    answering,  # noqa: F401 - imported once, for all forks
    child,
    cold,
    loader,
    lockdown,
    view,
)
from modelkeep.sandbox.cells import Cells
from modelkeep.sandbox.control import ChannelClosed, Exited, Fork, Forked, Grounded, Inbox, pack
from modelkeep.sandbox.place import Place, lent, mounted

_QUIET_S = 0.05
_STARTING_THREADS = ("polars",)
"""Modules that start threads as they are imported, which forks would lack. Others (CatBoost) import them where they are
installed, and do without where they are not; a runner that needs one may still import it."""
_ANSWER_S = 1.0

NOT_FORKED = 71
"""Status of an `Exited` for a runner that could not be forked."""


class Running(msgspec.Struct, frozen=True):
    """A runner that has not been reaped: its name ("": it waits for one), process id and user id (0: ours)."""

    runner: str
    pid: int
    uid: int


class _Grant(NamedTuple):
    """What a runner gets for its archive: whether it unpacks one, whether it can mount, the folder it is lent (-1: none)."""

    unpacks: bool
    separate: bool
    folder: int = -1


class _Spare(NamedTuple):
    """The runner that was forked ahead: what is known of it, its pidfd, and the socket that tells it what to load."""

    running: Running
    pidfd: int
    orders: socket.socket


class Template:
    """Forks runners, reaps them, and imports what they will need in the meantime."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._cells = Cells()
        self._inbox = Inbox()
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._spare: _Spare | None = None
        self._ahead = True
        self._prepared: set[type[Runner]] = set()

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
                wanting = self._ahead and self._spare is None
                if not self._turn(_QUIET_S if wanting else None):
                    self._fork_ahead()

    def _turn(self, timeout: float | None) -> bool:
        """Do what there is to do; whether there was anything before the time was over."""
        ready = self._selector.select(timeout)
        for key, _events in ready:
            if isinstance(key.data, Running):
                self._reap(key.fd, key.data)
            else:
                for message, fds in self._inbox.receive(self._channel):
                    if isinstance(message, Fork):
                        self._start(message, fds)
        return bool(ready)

    def _start(self, fork: Fork, fds: list[int]) -> None:
        for runner in loader.installed():
            if runner.manifest.name == fork.spec.runner and runner not in self._prepared:
                # What is asked for first is imported first, and here: done in the fork, it would be done twice at once.
                deque(_imported((*runner.manifest.preload, *runner.manifest.preload_when_asked)), maxlen=0)
                self._prepared.add(runner)
                self._dismiss()
        unpacks = loader.unpacks(fork.spec)
        # The one that waits is locked in, so it cannot stand back any more.
        apart = unpacks or loader.is_cold(fork.spec) or fork.spec.spare
        if apart or not self._order(fork, fds):
            self._fork(fork, fds, unpacks=unpacks)
        for fd in fds:
            os.close(fd)

    def _order(self, fork: Fork, fds: list[int]) -> bool:
        """Have the runner that waits load this; whether there was one, and it has said that it will."""
        if self._spare is None:
            return False
        (waiting, pidfd, orders), self._spare = self._spare, None
        message = pack(fork, fds)
        orders.settimeout(_ANSWER_S)
        try:
            with orders:
                sent = socket.send_fds(orders, [message], fds)
                if sent < len(message):
                    orders.sendall(message[sent:])
                taken = orders.recv(1)
        except OSError:
            taken = b""
        if not taken:  # it was about to end, as those are the first to do when memory runs out
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return False
        self._watch(Running(fork.runner, waiting.pid, waiting.uid), pidfd)
        return True

    def _dismiss(self) -> None:
        """Let the runner that waits end: it has not what was imported since."""
        if self._spare is not None:
            self._spare.orders.close()
            self._spare = None

    def _fork_ahead(self) -> None:
        """Fork a runner that waits. Should it end before it is asked, none is forked ahead until one was forked otherwise."""
        self._check_threads()
        orders, theirs = socket.socketpair()
        allowance = self._cells.allowance(None, frozenset(), 2)
        pid = self._forked()
        if pid == 0:
            _be_runner(lambda: child.stand_by(theirs, allowance))
        theirs.close()
        self._ahead = pid > 0
        if pid < 0:
            orders.close()
            self._cells.release(allowance.uid)
            return
        pidfd = os.pidfd_open(pid)
        waiting = Running("", pid, allowance.uid)
        self._selector.register(pidfd, selectors.EVENT_READ, waiting)
        self._spare = _Spare(waiting, pidfd, orders)

    def _fork(self, fork: Fork, fds: list[int], *, unpacks: bool) -> None:
        self._check_threads()
        artifact, channel, output, *lent = fds
        hooks = lent.pop() if fork.spec.hooks is not None else -1
        # A folder that is lent belongs to the supervisor's user, as all of the data directory does; another could not reach it.
        borrows = unpacks and not self._cells.separate
        memory_bytes = fork.spec.limits.memory_mb << 20
        keep = frozenset({artifact, channel, hooks} - {-1})
        allowance = self._cells.allowance(memory_bytes, keep, output, same_user=borrows)
        pid = self._forked()
        if pid == 0:
            grant = _Grant(unpacks, self._cells.separate, *lent)
            _be_runner(lambda: _runner(fork, (artifact, hooks), channel, allowance, grant))
        self._ahead = pid > 0
        if pid < 0:
            self._channel.sendall(pack(Exited(fork.runner, NOT_FORKED, 0)))
            self._cells.release(allowance.uid)
            return
        pidfd = os.pidfd_open(pid)
        running = Running(fork.runner, pid, allowance.uid)
        self._selector.register(pidfd, selectors.EVENT_READ, running)
        self._watch(running, pidfd)

    def _check_threads(self) -> None:
        if lockdown.count_threads(self._cells.proc) != 1:
            raise RuntimeError("a preloaded module has started a thread: forks of this template would be broken")

    @staticmethod
    def _forked() -> int:
        """Fork; returns the process id, 0 in the child, -1 where there can be no more processes."""
        gc.freeze()  # runners share these objects' memory as long as no collection touches them
        try:
            return os.fork()
        except OSError as error:
            sys.stderr.write(f"cannot fork a runner: {error}\n")
            return -1

    def _watch(self, running: Running, pidfd: int) -> None:
        """Tell the supervisor of a runner that has got its name, and of its end when that comes."""
        self._selector.modify(pidfd, selectors.EVENT_READ, running)
        message = pack(Forked(running.runner, running.pid), [pidfd])
        sent = socket.send_fds(self._channel, [message], [pidfd])
        self._channel.sendall(message[sent:])

    def _reap(self, pidfd: int, running: Running) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _pid, status, usage = os.wait4(running.pid, 0)
        self._cells.release(running.uid)
        if not running.runner:
            if self._spare is not None and self._spare.running == running:
                self._dismiss()
                self._ahead = False
            return
        exited = Exited(running.runner, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
        self._channel.sendall(pack(exited))


def preload() -> Iterator[str]:
    """Import what the installed runners name, one module at a time; yields each name once it is there.

    A module that is not installed belongs to an extra that this installation does without: runners that need it say so.
    """
    for runner in loader.installed():
        yield from _imported(runner.manifest.preload)


class _Absent(importlib.abc.MetaPathFinder):
    """Has modules that start threads look as if they were not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - as in the base class
        """Find nothing; raises `ModuleNotFoundError` for those modules."""
        if fullname in _STARTING_THREADS:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


_ABSENT = _Absent()


def _imported(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        sys.meta_path.insert(0, _ABSENT)
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the runners of other plugins need none of it
            sys.stderr.write(f"not preloaded: {name}: {error}\n")
        finally:
            sys.meta_path.remove(_ABSENT)
        yield name


def _runner(fork: Fork, files: tuple[int, int], channel: int, allowance: lockdown.Allowance, grant: _Grant) -> int:
    if fork.spec.spare:
        lockdown.stand_back()  # first of all: a new Python's start is most of what a runner that crashes costs
    artifact, hooks = files
    place = _place(fork, allowance, grant)
    seen = view.readable(tuple(sys.path))
    if loader.is_cold(fork.spec):
        cold.begin(cold.Start(fork, artifact, channel, allowance, place, seen))
    return child.main(fork, artifact, channel, allowance, hooks=hooks, place=place, seen=seen)


def _be_runner(work: Callable[[], int]) -> NoReturn:
    """Nothing of the template's own stack may run in the runner."""
    status = cold.BROKEN
    try:
        status = work()
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
