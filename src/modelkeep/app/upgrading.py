"""Asking the server that runs on a data directory to have a new one take over, and following how that goes."""

import os
import socket
from collections.abc import Callable

import msgspec

from modelkeep.app.places import Places
from modelkeep.app.succession import SOCKET, Asked, Said
from modelkeep.contracts.errors import Conflict, ModelkeepError, NotFound


class NotRunning(NotFound):
    """No server of this user runs on this data directory, or it is just beginning."""

    code = "server_not_running"


class UpgradeFailed(Conflict):
    """The server did not upgrade; the one that was there goes on."""

    code = "upgrade_failed"


class UpgradeUnknown(ModelkeepError):
    """The server ended while it upgraded: whether another has taken over, its log says."""

    code = "upgrade_unknown"


def ask(places: Places, patience_s: float, news: Callable[[str], None]) -> None:
    """Have a new server take over; `news` is told how that goes. Raises `NotRunning`, `UpgradeFailed` and `UpgradeUnknown`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        try:
            folder = os.open(places.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                door.connect(f"/proc/self/fd/{folder}/{SOCKET}")
            finally:
                os.close(folder)
        except OSError as error:
            raise NotRunning from error
        try:
            door.sendall(msgspec.json.encode(Asked(patience_s)) + b"\n")
            with door.makefile("rb") as lines:
                for line in lines:
                    said = msgspec.json.decode(line, type=Said)
                    if said.failed:
                        raise UpgradeFailed(said.text)
                    if said.ended:
                        return
                    news(said.text)
        except (OSError, msgspec.DecodeError) as error:
            raise UpgradeUnknown from error
    raise UpgradeUnknown
