"""What a tree of processes holds, and leaves to the one that takes its place: its addresses, and the lock on the data.

The lock and the sockets are open files of the kernel, and whoever has a descriptor of one has it as much as who made it: there
is no moment in which nobody listens, or another program could take an address or the data.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.app import grpc_port
from modelkeep.app.listening import listening
from modelkeep.contracts.errors import Conflict
from modelkeep.serving.grpc.settings import GrpcAddress

if TYPE_CHECKING:
    from modelkeep.app.places import Places
    from modelkeep.app.settings import ServerSettings


class DataInUse(Conflict):
    """Another Modelkeep is running on this data directory."""

    code = "data_in_use"


class OtherAddress(Conflict):
    """An upgrade keeps the addresses and the number of server processes: to change them, stop the server and start it again."""

    code = "upgrade_other_address"


@dataclass(frozen=True)
class Estate:
    """`doors` are the lines of callers of each server process, `inner` is the api's.

    `lock` is the descriptor of the data's lock. `holding` keep the port of gRPC for us, where there is one (`rpcs`). Ours is
    `generation`, 0 or 1. `worker` is the name under which jobs are worked on; "" for that of the settings.
    """

    doors: list[socket.socket]
    inner: socket.socket
    lock: int
    holding: list[socket.socket]
    rpcs: GrpcAddress | None
    generation: int = 0
    worker: str = ""

    def descriptors(self) -> dict[str, int]:
        """Return all that is passed on, by name."""
        doors = {f"door-{slot}": door.fileno() for slot, door in enumerate(self.doors)}
        holding = {f"rpcs-{number}": one.fileno() for number, one in enumerate(self.holding)}
        return {"lock": self.lock, "inner": self.inner.fileno()} | doors | holding

    @property
    def address(self) -> str:
        """Where HTTP is answered: `127.0.0.1:8080`."""
        host, port = self.doors[0].getsockname()[:2]
        return f"{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def rpcs_port(self) -> int:
        """The port of gRPC; 0 for none."""
        return int(self.rpcs.address.rpartition(":")[2]) if self.rpcs is not None else 0

    def own(self) -> None:
        """Have the lock say that it is ours."""
        os.ftruncate(self.lock, 0)
        os.write(self.lock, str(os.getpid()).encode())

    def close(self) -> None:
        """Let go of everything; another may go on having it."""
        for one in (*self.doors, self.inner, *self.holding):
            one.close()
        os.close(self.lock)


@contextlib.contextmanager
def made(places: "Places", server: "ServerSettings") -> Iterator[Estate]:
    """Make all of it, for a first start. Raises when the data or an address is taken."""
    holding: list[socket.socket] = []
    with (
        _locked(places.data) as lock,
        listening(server.host, server.port, server.processes) as doors,
        grpc_port.reserved(server, holding) as rpcs,
        _local_socket(places) as inner,
    ):
        yield Estate(doors, inner, lock, holding, rpcs)


def inherited(descriptors: Mapping[str, int], rpcs: str, generation: int, worker: str, server: "ServerSettings") -> Estate:
    """Return what another tree has left to us, which is ours to close. Raises `OtherAddress` where the settings differ."""
    sockets = {name: socket.socket(fileno=fd) for name, fd in descriptors.items() if name != "lock"}
    doors = [one for name, one in sorted(sockets.items(), key=_numbered) if name.startswith("door-")]
    holding = [one for name, one in sockets.items() if name.startswith("rpcs-")]
    address = GrpcAddress(rpcs, server.grpc_connection_s) if rpcs else None
    estate = Estate(doors, sockets["inner"], descriptors["lock"], holding, address, generation, worker)
    wanted = (server.processes, server.port or doors[0].getsockname()[1], server.grpc_port)
    if (len(doors), doors[0].getsockname()[1], estate.rpcs_port) != wanted:
        estate.close()
        raise OtherAddress
    return estate


def _numbered(item: tuple[str, socket.socket]) -> int:
    """Doors are in the order of their servers."""
    number = item[0].rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[int]:
    """Hold the data directory for this tree of processes alone; the kernel lets go when nobody has the lock any more."""
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
        yield lock.fileno()


@contextlib.contextmanager
def _local_socket(places: "Places") -> Iterator[socket.socket]:
    """Listen for the server's forwarded requests on behalf of the api process."""
    with local_socket(places.run, "api.sock") as inner:
        inner.listen(1024)
        yield inner


@contextlib.contextmanager
def local_socket(folder: Path, name: str) -> Iterator[socket.socket]:
    """Make a socket of this name, for this user alone; whoever had it before has it no more. The folder's path may be long."""
    path = folder / name
    path.unlink(missing_ok=True)
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner:
        try:
            inner.bind(f"/proc/self/fd/{opened}/{name}")
        finally:
            os.close(opened)
        path.chmod(0o600)
        yield inner
