"""The new tree of processes of an upgrade: it takes the place of the one that started it, or says why not.

old -> new   Given ... Offer            the addresses, the lock on the data, and which versions answer
new -> old   Warm                       the same versions answer here
old -> new   Frozen                     the courier has ended: the snapshot in the file is the last one
new -> old   Accepting                  callers are answered here, too
old -> new   Yours                      no caller comes to the old tree any more; its api and worker have ended
new -> old   Settled                    the database is up to date; api, courier and worker run here
             the end of the channel     the old tree's last callers have left

Until `Settled` the old tree can go back. When the old tree dies, at whatever point, the new one has all that it needs.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

import structlog

from modelkeep.app.estate import Estate
from modelkeep.app.supervisor import RoleEnded, Supervisor
from modelkeep.contracts.errors import Conflict, ModelkeepError
from modelkeep.sandbox import control, succeeding
from modelkeep.sandbox.control import Channel, ChannelClosed

log = structlog.get_logger(__name__)

FORM = 1
_LOOK_S = 0.05
_GONE_S = 5.0
_NEEDED = frozenset({"lock", "inner", "door-0"})

M = TypeVar("M", bound=control.Message)


class NotTakenOver(Conflict):
    """Nothing came of the upgrade: the server that was there goes on."""

    code = "upgrade_refused"


@contextlib.contextmanager
def telling(fd: int) -> Iterator[None]:
    """Tell the tree at the other end of this socket why nothing comes of it, where an error says so; -1: there is none."""
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(socket.socket(fileno=os.dup(fd))) if fd >= 0 else None
        try:
            yield
        except ModelkeepError as error:
            if told is not None:
                with contextlib.suppress(OSError):
                    told.sendall(control.pack(succeeding.Refused(error.message)))
            raise


async def inheritance(channel: Channel) -> tuple[dict[str, int], succeeding.Offer]:
    """Return the descriptors by name, and the rest of the offer. Raises `NotTakenOver` for what is none."""
    descriptors: dict[str, int] = {}
    wrong = ""
    while not wrong:
        try:
            message, fds = await channel.receive()
        except ChannelClosed:
            wrong = "The running server offers nothing."
            break
        if isinstance(message, succeeding.Given) and len(fds) == 1 and message.name not in descriptors:
            descriptors[message.name] = fds[0]
        elif isinstance(message, succeeding.Offer) and not fds:
            wrong = _unusable(message, descriptors)
            if not wrong:
                return descriptors, message
        else:
            _close(fds)
            wrong = "What the running server offers cannot be understood."
    _close(descriptors.values())
    raise NotTakenOver(wrong)


def _unusable(offer: succeeding.Offer, descriptors: Collection[str]) -> str:
    if offer.form != FORM or offer.generation not in {0, 1}:
        return "These two releases cannot follow each other without a stop: stop the server, and start it again."
    if not _NEEDED.issubset(descriptors):
        return "What the running server offers is not complete."
    return ""


def lacking(new: succeeding.Coverage, old: succeeding.Coverage) -> str:
    """Return what one server still lacks of another that it is to stand in for, "" for nothing.

    It has to know as much, and to answer by the same versions, or by those that are to answer next.
    """
    if new.snapshot < old.snapshot:
        return f"snapshot {old.snapshot} is not applied"
    for path, version_id in sorted(old.answering.items()):
        if path in new.targets and new.answering.get(path) not in {version_id, new.targets[path]}:
            return f"{path} does not answer"
    return ""


class Takeover:
    """Takes over from the tree at the other end of `channel`. `alone` is called when that has gone.

    `gone` is set when it has.
    """

    def __init__(self, channel: Channel, offer: succeeding.Offer, estate: Estate, *, alone: Callable[[], None]) -> None:
        self._channel = channel
        self._offer = offer
        self._estate = estate
        self._alone = alone
        self._said: asyncio.Queue[control.Message] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.lacks = ""

    async def run(self, supervisor: Supervisor) -> None:
        """Return when this tree has taken over. Raises `NotTakenOver`."""
        self._listening = asyncio.create_task(self._listen())
        working = asyncio.create_task(self._take_over(supervisor))
        either: set[asyncio.Future[Any]] = {self._refused, working}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
        if self._refused.done():
            raise NotTakenOver(self._refused.result())
        await working

    async def wait_until_alone(self, supervisor: Supervisor) -> None:
        """Return when the other tree has gone."""
        await self.gone.wait()
        self._channel.close()
        supervisor.alone()
        self._alone()
        log.info("the tree of before has ended")

    async def _take_over(self, supervisor: Supervisor) -> None:
        try:
            await self._match(supervisor, self._offer.coverages)
            self._channel.send(succeeding.Warm())
            frozen = await self._next(succeeding.Frozen)
            await self._match(supervisor, frozen.coverages)
            await supervisor.begin()
            self._channel.send(succeeding.Accepting())
            await self._next(succeeding.Yours)
        except ChannelClosed:
            await self._make_sure_that_it_died()
            log.warning("the running server died: this one takes over all the same")
            await supervisor.begin()
        await supervisor.start_roles("api", "courier", "worker")
        self._estate.own()
        if not self.gone.is_set():
            try:
                self._channel.send(succeeding.Settled())
            except ChannelClosed:
                self.gone.set()
        log.info("taken over")

    async def _match(self, supervisor: Supervisor, wanted: tuple[succeeding.Coverage, ...]) -> None:
        """Wait until each server stands as well as each of those. Raises `ChannelClosed` when there is nobody to match."""
        while True:
            if self.gone.is_set():
                raise ChannelClosed
            try:
                ours = await supervisor.coverages()
            except RoleEnded:
                self.lacks = "a server process has ended"
            else:
                self.lacks = next(filter(None, (lacking(new, old) for new in ours for old in wanted)), "")
                if not self.lacks:
                    return
            await asyncio.sleep(_LOOK_S)

    async def _listen(self) -> None:
        while True:
            try:
                message, fds = await self._channel.receive()
            except ChannelClosed:
                self.gone.set()
                return
            _close(fds)
            if isinstance(message, succeeding.Refused):
                if not self._refused.done():
                    self._refused.set_result(message.reason)
            else:
                self._said.put_nowait(message)

    async def _next(self, kind: type[M]) -> M:
        """Return the next message, which is of this kind. Raises `ChannelClosed`."""
        hearing, ending = asyncio.ensure_future(self._said.get()), asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait({hearing, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                raise ChannelClosed
            message = hearing.result()
        finally:
            hearing.cancel()
            ending.cancel()
        if not isinstance(message, kind):
            raise NotTakenOver("What the running server says cannot be understood.")
        return message

    async def _make_sure_that_it_died(self) -> None:
        """Raise `NotTakenOver` where it lives, and only the channel has broken: there must not be two."""
        until = asyncio.get_running_loop().time() + _GONE_S
        while os.getppid() == self._offer.process:
            if asyncio.get_running_loop().time() > until:
                raise NotTakenOver("The running server does not answer, but it lives.")
            await asyncio.sleep(_LOOK_S)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
