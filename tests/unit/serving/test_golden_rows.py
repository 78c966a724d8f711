"""Golden rows: asked of each fresh runner, and again and again; what becomes of one that answers otherwise."""

import hashlib
import os
import socket
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from fixtures.planes import LOADED, Far, Plane, settled
from modelkeep.contracts.snapshot import GoldenCheck
from modelkeep.sandbox import control, frames, golden
from modelkeep.sandbox.control import Cause
from modelkeep.serving.settings import ServingSettings


def golden_plane(make_plane: Callable[..., Plane], answer: float, check: GoldenCheck = "enforce") -> tuple[Plane, int]:
    """A plane whose version has a golden row, 3.0, answered with `answer` at validation; and the file of it."""
    plane = make_plane()
    fd = _golden_file(answer)
    data = os.pread(fd, 1 << 16, 0)
    version = msgspec.structs.replace(plane.served.version, id="v2")
    version = msgspec.structs.replace(
        version, spec=msgspec.structs.replace(version.spec, version_id="v2", golden=hashlib.sha256(data).hexdigest())
    )
    plane.pool.want([version], {}, {"v2": check})
    return plane, fd


def _golden_file(answer: float) -> int:
    fd = os.memfd_create("golden")
    os.write(fd, golden.pack({"x": np.array([[3.0]])}, {"y": np.array([[answer]])}))
    return fd


def connect_golden(plane: Plane, fd: int, name: str = "r1") -> Far:
    near, far = socket.socketpair()
    plane.pool.take(control.Connected(name, os.getpid(), "v2"), [near.detach(), fd])
    plane.runners.append(Far(far))
    return plane.runners[-1]


async def test_a_fresh_runner_answers_its_golden_rows_before_anyone(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 6.0)
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    assert (await runner.answer())["x"].tolist() == [[3.0]]  # doubled by the far side
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    assert served.ready
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


async def test_a_runner_that_answers_otherwise_never_answers_anyone(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 7.0)
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    await runner.answer()
    await settled(plane)
    assert plane.kills == [("r1", Cause.MISMATCH)]
    served = plane.pool.get("v2")
    assert served is not None
    assert not served.ready
    assert "otherwise than at validation" in served.failing


async def test_golden_rows_that_are_damaged_keep_nobody_from_answering(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 7.0)
    os.pwrite(fd, b"\0", 20)
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    assert (await runner.answer())["x"].tolist() == [[0.0]], "a made-up row"
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    assert served.ready


async def test_golden_rows_are_asked_again_when_it_is_time(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 6.0)
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    await runner.answer()
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    plane.pool.balance()
    assert not [one for one in plane.pool._openings if not one.done()], "it has just been asked"
    served.golden.asked_at -= ServingSettings().golden_check_s
    plane.pool.balance()
    message, tensors = await runner.receive()
    assert tensors["x"].tolist() == [[3.0]]
    await runner.send(frames.Result(message.id, 0.0), {"y": np.array([[6.5]])})  # type: ignore[union-attr]
    await settled(plane)
    assert plane.kills[0] == ("r1", Cause.MISMATCH)


async def test_a_runner_that_answers_otherwise_goes_on_where_that_is_only_told(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 7.0, "warn")
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    assert (await runner.answer())["x"].tolist() == [[3.0]]
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    assert served.ready
    assert (served.failing, plane.kills) == ("", [])
    assert "golden=warn" in served.golden.differs
    served.golden.asked_at -= ServingSettings().golden_check_s
    plane.pool.balance()
    message, _tensors = await runner.receive()
    await runner.send(frames.Result(message.id, 0.0), {"y": np.array([[7.0]])})  # type: ignore[union-attr]
    await settled(plane)
    assert (served.ready, served.golden.differs, plane.kills) == (True, "", [])


async def test_a_runner_is_not_asked_golden_rows_where_they_are_off(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 7.0, "off")
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    assert (await runner.answer())["x"].tolist() == [[0.0]], "a made-up row"
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    assert served.ready
    served.golden.asked_at -= ServingSettings().golden_check_s
    plane.pool.balance()
    assert not [one for one in plane.pool._openings if not one.done()], "nobody is asked"


async def test_a_check_that_is_set_anew_holds_from_the_next_answer(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 7.0, "warn")
    runner = connect_golden(plane, fd)
    await runner.send(LOADED)
    await runner.answer()
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    plane.pool.want([served.version], {}, {"v2": "off"})
    assert served.golden.differs == ""
    plane.pool.want([served.version], {}, {"v2": "enforce"})
    served.golden.asked_at -= ServingSettings().golden_check_s
    plane.pool.balance()
    await runner.answer()
    await settled(plane)
    assert plane.kills[0] == ("r1", Cause.MISMATCH)
    assert "golden=warn" in served.failing


async def test_what_a_runner_has_unpacked_is_told_and_counted(make_plane: Callable[..., Plane]) -> None:
    plane, fd = golden_plane(make_plane, 6.0)
    runner = connect_golden(plane, fd)
    await runner.send(msgspec.structs.replace(LOADED, placed=50 << 20))
    await runner.answer()
    await plane.until_changed()
    served = plane.pool.get("v2")
    assert served is not None
    assert control.Ready("r1", 50 << 20) in plane.sent
    assert served.memory_bytes() > 50 << 20
    held = served.memory_bytes()
    served.processes = dict.fromkeys(served.processes, 0)
    assert held - served.memory_bytes() > 40 << 20


async def test_when_many_are_due_they_are_asked_one_after_another(make_plane: Callable[..., Plane]) -> None:
    plane, _fd = golden_plane(make_plane, 6.0)
    (first,) = (one.version for one in plane.pool.all())
    others = [
        msgspec.structs.replace(first, id=name, spec=msgspec.structs.replace(first.spec, version_id=name))
        for name in ("v3", "v4")
    ]
    plane.pool.want([first, *others], {})
    for name in ("v2", "v3", "v4"):
        near, far = socket.socketpair()
        plane.pool.take(control.Connected(f"r-{name}", os.getpid(), name), [near.detach(), _golden_file(6.0)])
        plane.runners.append(Far(far))
        await plane.runners[-1].send(LOADED)
        await plane.runners[-1].answer()
        await plane.until_changed()
    for served in plane.pool.all():
        served.golden.asked_at -= ServingSettings().golden_check_s
    for asked in (1, 2, 3, 3):
        plane.pool.balance()
        assert len([one for one in plane.pool._openings if not one.done()]) == asked
