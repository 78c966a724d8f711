"""The processes of one installation: what `modelkeep serve` starts, and what each role does once it is started.

A role is started by the supervisor as `python -m modelkeep.app.processes ROLE [SOCKET] CHANNEL` (of several servers, ROLE
ends with the number: `server-2`), is told its settings as
the first message on its channel, says when it is up, and ends when it is told to drain or when the channel closes.
"""

import asyncio
import gc
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

import msgspec

from modelkeep.app.places import Places
from modelkeep.contracts.confinement import level
from modelkeep.contracts.secret import hidden_again
from modelkeep.sandbox import control, kernel, succeeding
from modelkeep.sandbox.control import Channel, ChannelClosed

if TYPE_CHECKING:
    from modelkeep.app.estate import Estate
    from modelkeep.app.settings import ServerSettings, Settings

_MOST_DESCRIPTORS = 65536

Take = Callable[[control.Message, list[int]], None]


def serve(settings: "Settings", *, announce: Callable[[str, str], None], take_over: int = -1) -> None:
    """Run everything until SIGTERM or Ctrl-C, or until another has taken over and ended: whatever was started first stays.

    Raises before anything is started when the data or an address is taken. `announce` is told the addresses of HTTP and of gRPC
    when both answer; "" where there is no gRPC. `take_over` is the descriptor of a socket to whoever runs now, and leaves the
    addresses and the data to this one; -1 where nobody does.
    """
    from modelkeep.app import estate, first
    from modelkeep.infra import quotas, tally, telemetry, tls

    telemetry.configure(settings.log, role="supervisor")
    _allow_descriptors()
    places = Places(settings.data.absolute())
    places.make()
    if settings.server.tls is not None:
        tls.check_apart(settings.server.tls)
    if take_over >= 0:
        _close_to_others()
        asyncio.run(_succeed(settings, places, take_over, announce))
        return
    with estate.made(places, settings.server) as ours:
        _close_to_others()
        tally.start_fresh(places.metrics)
        tally.start_fresh(places.storage_metrics)
        quotas.start_fresh(places.quotas)
        succeeded = asyncio.run(_supervise(settings, places, ours, announce))
    if succeeded:
        first.stay()


async def _succeed(settings: "Settings", places: Places, fd: int, announce: Callable[[str, str], None]) -> None:
    """Take over from the tree at the other end of this socket. Raises `NotTakenOver`."""
    from modelkeep.app import estate
    from modelkeep.app.takeover import inheritance

    channel = Channel(socket.socket(fileno=fd))
    descriptors, offer = await inheritance(channel)
    ours = estate.inherited(descriptors, offer.rpcs, offer.generation, offer.worker, settings.server)
    try:
        await _supervise(settings, places, ours, announce, (channel, offer))
    finally:
        ours.close()


async def _supervise(
    settings: "Settings",
    places: Places,
    estate: "Estate",
    announce: Callable[[str, str], None],
    before: tuple[Channel, succeeding.Offer] | None = None,
) -> bool:
    """Run the tree of processes. `before`: who leaves the estate to us, with what it says; or nobody.

    Return whether another tree has taken over.
    """
    from modelkeep.app import bootstrap, roles
    from modelkeep.app.census import budget_of_machine
    from modelkeep.app.folders import Folders
    from modelkeep.app.settings import child_environment
    from modelkeep.app.succession import Succession
    from modelkeep.app.supervisor import Supervisor
    from modelkeep.app.takeover import Takeover

    server = settings.server
    budget = budget_of_machine(settings.runners.budget_mb, settings.runners.min_idle_s)
    all_bytes, taking = budget.limit_bytes, None
    if before is not None:
        channel, offer = before
        budget.limit_bytes = max(1, all_bytes - offer.held_bytes)
        taking = Takeover(channel, offer, estate, alone=lambda: setattr(budget, "limit_bytes", all_bytes))
    succession = Succession(places, estate, _leave_s(server), taking)
    worker = estate.worker or settings.worker.name
    address = f"{'https' if server.tls else 'http'}://{estate.address}"
    supervisor = Supervisor(
        roles.roles(settings, places, estate.doors, estate.inner, estate.rpcs, generation=estate.generation, worker=worker),
        open_artifact=bootstrap.artifact_opener(settings.storage, places),
        environment=child_environment(settings),
        drain_s=server.drain_s + server.notice_s,
        warm=places.snapshot.exists(),
        acceptable=level(settings.runners.unsafe_allow_level),
        budget=budget,
        folders=Folders(places.folders(estate.generation)),
        renews=server.tls is not None,
        held=before is not None,
        succession=succession.run,
        announce=lambda: announce(address, estate.rpcs.address if estate.rpcs is not None else ""),
    )
    try:
        await supervisor.run()
    finally:
        if succession.channel is not None:
            succession.channel.close()
    return succession.heir is not None


def _leave_s(server: "ServerSettings") -> float:
    """Return how long the last callers may take to leave: until all that they have idles no more, and is answered."""
    return max(server.idle_s, 1.2 * server.grpc_connection_s) + server.drain_s


def _close_to_others() -> None:
    """Let no process of the same user look into this one, as a runner's may be; and leave no core behind."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _allow_descriptors() -> None:
    """Let this tree of processes hold as many connections as the system allows; the usual 1024 is for another time."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# ---- roles


async def _role(channel: Channel, take: Take, work: Callable[[asyncio.Event], Coroutine[object, object, None]]) -> None:
    """Do `work` until the supervisor says drain or is gone; hand its other messages to `take`."""
    gc.freeze()
    gc.enable()
    stop = asyncio.Event()

    async def listen() -> None:
        while True:
            try:
                message, fds = await channel.receive()
            except ChannelClosed:
                os._exit(1)  # the supervisor is gone: nothing may outlive it
            if isinstance(message, control.Drain):
                stop.set()
            else:
                take(message, fds)

    listening = asyncio.create_task(listen())
    working = asyncio.create_task(work(stop))
    await asyncio.wait({listening, working}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        await listening
    listening.cancel()
    await working


async def run_server(channel: Channel, settings: bytes, door: socket.socket) -> None:
    """Serve predictions on `door`."""
    from modelkeep.app.roles import ServerRole
    from modelkeep.app.server import Server
    from modelkeep.infra import telemetry

    role = msgspec.json.decode(settings, type=ServerRole, dec_hook=hidden_again)
    telemetry.configure(role.log, role=f"server-{role.slot + 1}" if role.slots > 1 else "server")
    server = Server(role, channel.send)
    await _role(channel, server.take, lambda stop: server.work(door, stop, lambda: channel.send(control.Started())))


def _nothing(message: control.Message, fds: list[int]) -> None:
    """Roles without runners are sent nothing but drain."""
    del message
    for fd in fds:
        os.close(fd)


async def run_api(channel: Channel, settings: bytes, inner: socket.socket) -> None:
    """Serve the control plane on the inner socket; bring the database up to date first."""
    from modelkeep.app import bootstrap

    await _role(channel, _nothing, lambda stop: bootstrap.api(settings, inner, stop, lambda: channel.send(control.Started())))


async def run_courier(channel: Channel, settings: bytes) -> None:
    """Carry news down and heartbeats up."""
    from modelkeep.app import bootstrap

    await _role(channel, _nothing, lambda stop: bootstrap.courier(settings, stop, lambda: channel.send(control.Started())))


async def run_worker(channel: Channel, settings: bytes) -> None:
    """Do the jobs."""
    from modelkeep.app import bootstrap
    from modelkeep.worker.runners import Runners

    runners = Runners(channel)
    await _role(
        channel, runners.take, lambda stop: bootstrap.worker(settings, runners, stop, lambda: channel.send(control.Started()))
    )


Role = Callable[..., Awaitable[None]]

_ROLES = dict[str, Role](server=run_server, api=run_api, courier=run_courier, worker=run_worker)
_NICENESS = {"server": 0, "courier": 5, "api": 10, "worker": 10}
"""Who waits for a prediction comes first: servers, then runners (5) and the way of records, then people and their uploads."""


async def _start(role: str, channel_fd: int, fds: list[int]) -> None:
    channel = Channel(socket.socket(fileno=channel_fd))
    message, _fds = await channel.receive()
    if not isinstance(message, control.Configure):
        raise TypeError(type(message).__name__)
    _close_to_others()
    sockets = [socket.socket(fileno=fd) for fd in fds]
    os.nice(_NICENESS[role])
    await _ROLES[role](channel, message.settings, *sockets)


def main(arguments: list[str]) -> None:
    """Be one role, as the supervisor asks on the command line."""
    gc.disable()  # importing makes many objects and no garbage; the role collects again once it is up
    name, *fds, channel_fd = arguments
    role = name.partition("-")[0]
    if role == "server":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_start(role, int(channel_fd), [int(fd) for fd in fds]))
    else:
        asyncio.run(_start(role, int(channel_fd), [int(fd) for fd in fds]))


if __name__ == "__main__":
    main(sys.argv[1:])
