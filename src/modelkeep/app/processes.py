"""The processes of one installation: what `modelkeep serve` starts, and what each role does once it is started.

A role is started by the supervisor as `python -m modelkeep.app.processes ROLE [SOCKET] CHANNEL` (of several servers, ROLE
ends with the number: `server-2`), is told its settings as
the first message on its channel, says when it is up, and ends when it is told to drain or when the channel closes.
"""

import asyncio
import contextlib
import fcntl
import gc
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelkeep.app import grpc_port
from modelkeep.app.listening import listening
from modelkeep.app.places import Places
from modelkeep.contracts.confinement import level
from modelkeep.contracts.errors import Conflict
from modelkeep.contracts.secret import hidden_again
from modelkeep.sandbox import control, kernel
from modelkeep.sandbox.control import Channel, ChannelClosed

if TYPE_CHECKING:
    from modelkeep.app.settings import Settings

_MOST_DESCRIPTORS = 65536

Take = Callable[[control.Message, list[int]], None]


class DataInUse(Conflict):
    """Another Modelkeep is running on this data directory."""

    code = "data_in_use"


def serve(settings: "Settings", *, announce: Callable[[str, str], None]) -> None:
    """Run everything until SIGTERM or Ctrl-C. Raises before anything is started when the data or an address is taken.

    `announce` is told the addresses of HTTP and of gRPC when both answer; "" where there is no gRPC.
    """
    from modelkeep.app import bootstrap
    from modelkeep.app.census import budget_of_machine
    from modelkeep.app.folders import Folders
    from modelkeep.app.settings import child_environment
    from modelkeep.app.supervisor import Supervisor
    from modelkeep.infra import quotas, tally, telemetry, tls

    telemetry.configure(settings.log, role="supervisor")
    _allow_descriptors()
    places = Places(settings.data.absolute())
    places.make()
    server, encryption = settings.server, settings.server.tls
    if encryption is not None:
        tls.check_apart(encryption)
    with (
        _locked(places.data),
        listening(server.host, server.port, server.processes) as doors,
        grpc_port.reserved(server) as rpcs,
        _local_socket(places) as inner,
    ):
        _close_to_others()
        tally.start_fresh(places.metrics)
        tally.start_fresh(places.storage_metrics)
        quotas.start_fresh(places.quotas)
        host, port = doors[0].getsockname()[:2]
        address = f"{'https' if encryption else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

        async def run() -> None:
            supervisor = Supervisor(
                bootstrap.roles(settings, places, doors, inner, rpcs),
                open_artifact=bootstrap.artifact_opener(settings.storage, places),
                environment=child_environment(settings),
                drain_s=settings.server.drain_s + settings.server.notice_s,
                warm=places.snapshot.exists(),
                acceptable=level(settings.runners.unsafe_allow_level),
                budget=budget_of_machine(settings.runners.budget_mb, settings.runners.min_idle_s),
                folders=Folders(places.folders),
                renews=encryption is not None,
                announce=lambda: announce(address, rpcs.address if rpcs is not None else ""),
            )
            await supervisor.run()

        asyncio.run(run())


def _close_to_others() -> None:
    """Let no process of the same user look into this one, as a runner's may be; and leave no core behind."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _allow_descriptors() -> None:
    """Let this tree of processes hold as many connections as the system allows; the usual 1024 is for another time."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Hold the data directory for this tree of processes alone; the kernel lets go when the supervisor ends, however."""
    with (data / "lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise DataInUse(
                f"Another Modelkeep (process {lock.read().strip()}) is running on {data}. Stop it, or name another --data."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def _local_socket(places: Places) -> Iterator[socket.socket]:
    """Listen for the server's forwarded requests on behalf of the api process."""
    path = places.run / "api.sock"
    path.unlink(missing_ok=True)
    folder = os.open(places.run, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner:
        inner.bind(f"/proc/self/fd/{folder}/api.sock")
        os.close(folder)
        path.chmod(0o600)
        inner.listen(1024)
        yield inner


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
    from modelkeep.app.bootstrap import ServerRole
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
