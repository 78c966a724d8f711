"""The runner itself: locked down first, then loads one model, then answers runs until nobody is left to ask.

Nothing that it imports for that imports numpy: runners that start cold take theirs from their artifact, where it has one. Forks
have the template's.
"""

import gc
import os
import socket
import sys
import time
import types
import warnings
from typing import TYPE_CHECKING

import msgspec

from modelkeep.contracts.confinement import Confinement
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.sandbox import frames, kernel, loader, lockdown, selftest
from modelkeep.sandbox.control import ChannelClosed, Fork, Inbox
from modelkeep.sandbox.memory import Memory
from modelkeep.sandbox.place import Place, walled
from modelkeep.sandbox.servers import Arrays, Servers

if TYPE_CHECKING:
    from modelkeep.sandbox.answering import Served

PROTOCOL_FAULT = 65
"""Exit status: what arrived on a socket was no frame."""

TAKEN = b"+"
"""What a runner that was forked ahead says once it has its order."""

RUNNER, WAITING = "modelkeep-run", "modelkeep-spare"
"""What a runner's process is called, and one that was forked ahead until it has its order."""

CANNOT_LOAD = 3
"""Exit status: the artifact was refused; `LoadFailed` said why."""


def main(
    fork: Fork,
    artifact: int,
    channel: int,
    allowance: lockdown.Allowance,
    *,
    hooks: int = -1,
    place: Place | None = None,
    seen: tuple[str, ...] = (),
) -> int:
    """Be a runner until nobody needs it; returns the exit status. Call it right after the fork.

    `channel` brings the sockets of those whom it serves; at its end of file the runner ends. `hooks` is open on the version's
    hooks (-1: it has none). `place` is where its archive is unpacked, in addition to what is `seen`.
    """
    memory = Memory("self", allowance.proc)
    allowance = msgspec.structs.replace(allowance, keep=allowance.keep | {memory.fd})
    if place is not None:
        allowance, place = _with(place, allowance, seen)
    lockdown.lock_down(allowance)
    _start_afresh()
    held = selftest.confinement(allowance.keep, allowance.file_bytes)
    return _work(fork, (artifact, hooks), channel, held, memory=memory, place=place)


def stand_by(orders: socket.socket, allowance: lockdown.Allowance) -> int:
    """Be a runner that is locked down before anybody needs it, and hears from `orders` what to load; returns the exit status.

    What comes is a `Fork` with the artifact, the runner's channel, its pipe, and the hooks where there are; it answers `TAKEN`.
    The end of `orders` is the runner's.
    """
    kernel.name_process(WAITING)
    memory = Memory("self", allowance.proc)
    lockdown.lock_down(msgspec.structs.replace(allowance, keep=frozenset({memory.fd, orders.fileno()})))
    _start_afresh()
    with orders:
        try:
            fork, (artifact, channel, output, *hooks) = _ordered(orders)
            orders.sendall(TAKEN)
        except (ChannelClosed, ConnectionError):
            return 0
    lockdown.limit_memory(memory.mapped_bytes() + (fork.spec.limits.memory_mb << 20))
    lockdown.write_to(output)
    os.close(output)
    held = selftest.confinement(frozenset({memory.fd, artifact, channel, *hooks}))
    return _work(fork, (artifact, *(hooks or [-1])), channel, held, memory=memory)


def _ordered(orders: socket.socket) -> tuple[Fork, list[int]]:
    inbox = Inbox()
    while True:
        for message, fds in inbox.receive(orders):
            if isinstance(message, Fork):
                return message, fds


def _work(
    fork: Fork, files: tuple[int, ...], channel: int, held: Confinement, *, memory: Memory, place: Place | None = None
) -> int:
    """Load, and serve; `files` are artifact and hooks, `held` is how well this process was seen to be locked in."""
    kernel.name_process(RUNNER)
    servers = Servers(socket.socket(fileno=channel))
    try:
        loader.require(fork.spec, held)
        served, loaded = _load(fork, files, memory, place)
    except CannotLoad as error:
        servers.greet(frames.encode(frames.LoadFailed(error.reason, error.detail, error.example)))
        return CANNOT_LOAD
    servers.greet(frames.encode(loaded))
    return serve(servers, served)


def serve(servers: Servers, served: "Served") -> int:
    """Answer runs, server by server, until there will be none any more; returns the exit status."""
    while (turn := servers.next()) is not None:
        if isinstance(turn.message, frames.Compile):
            servers.send(turn.server, served.compiled())
        elif isinstance(turn.message, frames.Quantise):
            servers.send(turn.server, served.quantised(turn.message, turn.inputs))
        else:
            servers.send(turn.server, _encoded(*served.answer(turn.message, turn.inputs)))
    return PROTOCOL_FAULT if servers.fault else 0


def _with(place: Place, allowance: lockdown.Allowance, seen: tuple[str, ...]) -> tuple[lockdown.Allowance, Place | None]:
    """Return what a runner with this folder may have, and the folder as it can be sealed; none where it cannot."""
    try:
        rules, sealable = walled(place, seen)
    except OSError:
        return allowance, None  # no Landlock here: what needs no folder may be loaded all the same
    sealable = msgspec.structs.replace(sealable, keep=allowance.keep)
    keep = allowance.keep | {sealable.sealing}
    return msgspec.structs.replace(allowance, rules=rules, keep=keep, file_bytes=place.size), sealable


def _load(fork: Fork, files: tuple[int, ...], memory: Memory, place: Place | None) -> "tuple[Served, frames.Loaded]":
    before, started = memory.resident_bytes(), time.perf_counter()
    spec = fork.spec
    told: list[str] | None = [] if spec.signature is None else None  # once, at validation
    artifact, hooks = files
    source = None if spec.hooks is None else loader.taken(hooks, spec.hooks.size, spec.hooks.digest)
    try:
        if source is not None and spec.hooks is not None and spec.hooks.alone:
            os.close(artifact)
            from modelkeep.sandbox.answering import rehearsed

            served = rehearsed(source, fork)
        else:
            sample = fork.sample if source is None else ()
            model = loader.load(spec, sample, artifact, place=place, told=told, close=True)
            from modelkeep.sandbox import answering  # numpy comes with it: not before the artifact could bring one

            served = answering.served(model, source, fork)
    except MemoryError as error:
        raise CannotLoad(Reason.MEMORY_LIMIT, str(error)) from error
    facts = msgspec.structs.replace(served.facts, warnings=(*served.facts.warnings, *(told or ())))
    placed = place.held_bytes() if place is not None else 0
    return served, frames.Loaded(facts, time.perf_counter() - started, before, memory.resident_bytes(), placed)


def _start_afresh() -> None:
    """Shed what a forked process must not share with its siblings, or show to a pickle."""
    gc.enable()  # the template does without while it imports
    sys.modules["__main__"] = types.ModuleType("__main__")
    numpy = sys.modules.get("numpy")
    if numpy is not None:  # one that comes later is nobody else's
        numpy.random.seed()  # the shared legacy state is what models use; Python's own seeds itself
    warnings.resetwarnings()
    warnings.simplefilter("ignore")


def _encoded(message: frames.Result | frames.RunFailed, outputs: Arrays) -> "list[bytes | memoryview]":
    try:
        return frames.encode(message, outputs)
    except frames.FrameError as error:
        return frames.encode(frames.RunFailed(message.id, "output_invalid", f"The answer is too large: {error}"))
