"""Child processes: real ones, that find their channel, see nothing else, and are known to have ended."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelkeep.app.children import Child, start
from modelkeep.sandbox import control
from modelkeep.sandbox.control import ChannelClosed, pack

OPENED = "import os, socket, sys; s = socket.socket(fileno=int(sys.argv[-1])); "
WAITS = OPENED + "s.recv(1)"
REPORTS = (
    OPENED
    + "import json; from pathlib import Path; "
    + "fds = sorted(int(p.name) for p in Path('/proc/self/fd').iterdir() if p.exists()); "
    + "said = {'env': dict(os.environ), 'args': sys.argv[1:], 'fds': fds, 'group': os.getpgrp(), 'pid': os.getpid(), "
    + "'stdin': os.readlink('/proc/self/fd/0')}; "
    + "from modelkeep.sandbox.control import pack, Configure; s.sendall(pack(Configure(json.dumps(said).encode()))); s.recv(1)"
)

Start = Callable[..., Child]


@pytest.fixture
async def run() -> AsyncIterator[Start]:
    """Start Python programs that end with the test."""
    children: list[Child] = []

    def begin(program: str, environment: dict[str, str] | None = None, fds: tuple[int, ...] = (), *more: str) -> Child:
        child = start("child", (sys.executable, "-c", program, *more), environment or {}, fds)
        children.append(child)
        return child

    yield begin
    for child in children:
        child.signal(signal.SIGKILL)
        await child.ended
        child.channel.close()


async def report(child: Child) -> dict:
    message, _fds = await asyncio.wait_for(child.channel.receive(), 20)
    assert isinstance(message, control.Configure)
    return json.loads(message.settings)


async def test_a_child_finds_its_channel_and_sees_only_what_it_is_given(run: Start, tmp_path: Path) -> None:
    with (tmp_path / "given").open("w") as given, (tmp_path / "kept").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)  # even so it does not pass
        child = run(REPORTS, {"ONLY": "this"}, (given.fileno(),), str(given.fileno()))
        said = await report(child)
        assert given.fileno() in said["fds"]
        assert kept.fileno() not in said["fds"]
    assert {name for name in said["env"] if name != "LC_CTYPE"} == {"ONLY"}  # Python sets LC_CTYPE itself
    assert said["pid"] == child.pid
    assert said["stdin"] == "/dev/null"
    assert int(said["args"][-1]) in said["fds"]


async def test_a_child_has_a_process_group_of_its_own(run: Start) -> None:
    child = run(REPORTS)
    assert (await report(child))["group"] == child.pid != os.getpgrp()


async def test_what_is_sent_reaches_the_child(run: Start) -> None:
    child = run(OPENED + "s.sendall(s.recv(1000))")
    child.channel.send(control.Kill("r1", control.Cause.DEADLINE))
    message, _fds = await asyncio.wait_for(child.channel.receive(), 20)
    assert pack(message) == pack(control.Kill("r1", control.Cause.DEADLINE))


@pytest.mark.parametrize("status", [0, 3])
async def test_the_end_of_a_child_is_known_by_its_status(run: Start, status: int) -> None:
    child = run(f"raise SystemExit({status})")
    assert await asyncio.wait_for(child.ended, 20) == status
    with pytest.raises(ChannelClosed):
        await child.channel.receive()


async def test_the_end_of_a_child_is_known_by_its_signal(run: Start) -> None:
    child = run(WAITS)
    child.signal(signal.SIGKILL)
    assert await asyncio.wait_for(child.ended, 20) == -signal.SIGKILL
    child.signal(signal.SIGKILL)  # which nobody else with that number is sent


async def test_finishing_waits_for_a_child_that_ends_in_time(run: Start) -> None:
    child = run(WAITS)
    child.channel.close()  # the child reads the end of the file, and ends
    assert await child.finish(20) == 0


async def test_finishing_brings_the_end_about_when_it_does_not_come(run: Start) -> None:
    child = run(OPENED + "import time, signal; signal.signal(15, signal.SIG_IGN); s.sendall(b'x'); time.sleep(1000)")
    assert await asyncio.wait_for(child.finish(0.05), 20) == -signal.SIGKILL


async def test_a_child_that_has_ended_leaves_no_descriptor_behind(run: Start) -> None:
    await run("").ended
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        child = run("")
        await asyncio.wait_for(child.ended, 20)
        child.channel.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from modelkeep.app.children import start\n"
        "async def main():\n"
        "    child = start('x', (sys.executable, '-c', 'import time; time.sleep(60)'), {})\n"
        "    Path(sys.argv[1]).write_text(str(child.pid))\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    told = tmp_path / "pid"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(told))
    await parent.wait()
    try:
        orphan = os.pidfd_open(int(told.read_text()))
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(orphan, gone.set)
    try:
        await asyncio.wait_for(gone.wait(), 5)
    finally:
        asyncio.get_running_loop().remove_reader(orphan)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(orphan, signal.SIGKILL)
        os.close(orphan)
