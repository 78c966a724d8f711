"""The pool: runners that load, fail to, die, or speak nonsense, at the far end of real sockets."""

import asyncio
import json
from collections.abc import Callable

import numpy as np
import pytest

from fixtures.calling import make_call
from fixtures.planes import LOADED, Plane, settled
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.control import Cause
from modelkeep.serving.calls import Call
from modelkeep.serving.pool import made_up_row


def submit(plane: Plane, value: float) -> Call:
    call = make_call({"x": np.array([[value]])})
    plane.served.batcher.submit(call)
    return call


async def test_a_runner_answers_only_after_it_has_loaded_and_run_one_made_up_row(plane: Plane) -> None:
    waiting = submit(plane, 5.0)
    runner = plane.connect()
    await runner.send(LOADED)
    assert (await runner.answer())["x"].tolist() == [[0.0]]
    await plane.until_changed()
    assert plane.served.ready
    assert (await runner.answer())["x"].tolist() == [[5.0]]
    assert json.loads((await waiting.answer).body) == [[10.0]]


async def test_a_runner_whose_made_up_row_fails_answers_all_the_same(plane: Plane) -> None:
    runner = plane.connect()
    await runner.send(LOADED)
    message, _tensors = await runner.receive()
    await runner.send(frames.RunFailed(message.id, "refused", "zeros will not do"))  # type: ignore[union-attr]
    await plane.until_changed()
    assert plane.served.ready


async def test_a_model_that_cannot_be_loaded_says_why(plane: Plane) -> None:
    runner = plane.connect()
    await runner.send(frames.LoadFailed(Reason.CORRUPT, "x" * 5000))
    await settled(plane)
    assert not plane.served.ready
    assert plane.served.failing.startswith("artifact_corrupt: xxx")
    assert len(plane.served.failing) < 1000


async def test_a_load_past_its_limit_ends_the_runner(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(load_timeout_s=0.02)
    plane.connect()
    await settled(plane)
    assert plane.kills == [("r1", Cause.DEADLINE)]
    assert "0.02 s" in plane.served.failing


async def test_a_runner_that_dies_while_it_loads_is_left_to_the_supervisor(plane: Plane) -> None:
    plane.connect().sock.close()
    await settled(plane)
    assert not plane.served.ready
    plane.pool.take(control.Gone("r1", "v1", Cause.SIGNAL, "it was ended by SIGSEGV"), [])
    assert plane.served.failing == "signal: it was ended by SIGSEGV"


async def test_nonsense_while_loading_ends_the_runner(plane: Plane) -> None:
    runner = plane.connect()
    await asyncio.get_running_loop().sock_sendall(runner.sock, b"\xff\xff\xff\xff")
    await settled(plane)
    assert ("r1", Cause.PROTOCOL) in plane.kills


async def test_nonsense_later_ends_the_runner_too(plane: Plane) -> None:
    runner = await plane.warm()
    await asyncio.get_running_loop().sock_sendall(runner.sock, b"\xff\xff\xff\xff")
    await plane.until_changed()
    assert ("r1", Cause.PROTOCOL) in plane.kills
    assert not plane.served.ready


async def test_a_runner_that_closes_its_socket_is_ended(plane: Plane) -> None:
    runner = await plane.warm()
    runner.sock.close()
    await plane.until_changed()
    assert ("r1", Cause.EXIT) in plane.kills
    assert not plane.served.ready


async def test_a_request_survives_the_death_of_its_runner(plane: Plane) -> None:
    first = await plane.warm("r1")
    answer = submit(plane, 7.0)
    await first.receive()
    first.sock.close()
    await plane.until_changed()
    second = await plane.warm("r2")
    assert (await second.answer())["x"].tolist() == [[7.0]]
    assert json.loads((await answer.answer).body) == [[14.0]]
    assert plane.served.ready
    assert not plane.served.failing


async def test_a_runner_that_is_gone_is_let_go_even_if_its_socket_is_still_held(plane: Plane) -> None:
    await plane.warm()
    plane.pool.take(control.Gone("r1", "v1", Cause.EXIT, "it ended with status 0"), [])
    await plane.until_changed()  # though the far end is open
    assert not plane.served.ready


async def test_memory_is_that_of_the_runners_that_are_there(plane: Plane) -> None:
    assert plane.served.memory_bytes() == 0
    runner = await plane.warm()
    assert plane.served.memory_bytes() > 0
    runner.sock.close()
    await plane.until_changed()
    assert plane.served.memory_bytes() == 0


async def test_the_end_of_a_stopped_runner_is_no_failure(plane: Plane) -> None:
    plane.pool.take(control.Gone("r1", "v1", Cause.STOPPED), [])
    assert not plane.served.failing


async def test_a_new_runner_clears_what_the_last_one_failed_of(plane: Plane) -> None:
    plane.pool.take(control.Gone("r1", "v1", Cause.MEMORY, "too much"), [])
    assert plane.served.failing
    await plane.warm("r2")
    assert not plane.served.failing


async def test_a_runner_of_a_version_that_is_not_wanted_any_more_is_hung_up_on(plane: Plane) -> None:
    runner = plane.connect("r9", "v9")
    with pytest.raises(EOFError):
        await asyncio.wait_for(runner.receive(), 10)
    for message in (control.Gone("r9", "v9", Cause.EXIT), control.Held("v9", 60)):
        plane.pool.take(message, [])


async def test_nothing_is_kept_of_runners_that_are_gone(plane: Plane) -> None:
    for number in range(5):
        name = f"r{number}"
        plane.connect(name).sock.close()
        plane.pool.take(control.Gone(name, "v1", Cause.EXIT), [])  # before the pool has got round to it
        await settled(plane)
    await asyncio.sleep(0)
    assert not plane.pool._connections


async def test_a_version_that_is_asleep_is_woken_by_its_first_request_alone(plane: Plane) -> None:
    plane.pool.take(control.Asleep("v1"), [])
    assert plane.served.asleep
    assert plane.served.answers
    for value in (1.0, 2.0):
        submit(plane, value)
    assert [one for one in plane.sent if isinstance(one, control.Wake)] == [control.Wake("v1")]
    assert not plane.served.asleep
    await plane.until_changed()
    await plane.warm()
    assert control.Ready("r1") in plane.sent


async def test_a_request_that_waits_when_its_version_goes_to_sleep_wakes_it_again(plane: Plane) -> None:
    submit(plane, 1.0)
    assert not [one for one in plane.sent if isinstance(one, control.Wake)], "it is being started"
    plane.pool.take(control.Asleep("v1"), [])
    assert [one for one in plane.sent if isinstance(one, control.Wake)] == [control.Wake("v1")]


async def test_a_version_that_falls_asleep_while_it_is_held_back_wakes_when_it_is_asked(plane: Plane) -> None:
    plane.pool.take(control.Held("v1", 60, "it died"), [])
    plane.pool.take(control.Asleep("v1"), [])
    submit(plane, 1.0)
    assert control.Wake("v1") in plane.sent


async def test_a_runner_that_is_to_go_as_it_comes_is_let_go(plane: Plane) -> None:
    runner = plane.connect()
    plane.pool.take(control.Leave("r1"), [])
    plane.pool.take(control.Asleep("v1"), [])
    await settled(plane)
    with pytest.raises((EOFError, ConnectionError)):
        await runner.receive()
    assert plane.served.asleep
    assert not plane.served.ready
    submit(plane, 1.0)
    assert control.Wake("v1") in plane.sent


async def test_a_runner_that_is_ready_ends_the_sleep(plane: Plane) -> None:
    plane.pool.take(control.Asleep("v1"), [])
    await plane.until_changed()
    await plane.warm()
    assert not plane.served.asleep


async def test_what_has_run_or_runs_is_told_and_nothing_else(plane: Plane) -> None:
    def told() -> list[control.Message]:
        plane.sent.clear()
        plane.pool.balance()
        return [one for one in plane.sent if isinstance(one, control.Used)]

    runner = await plane.warm()
    assert told() == []
    waiting = submit(plane, 5.0)
    assert told() == [control.Used(("v1",))]
    assert told() == [control.Used(("v1",))], "it still runs"
    await runner.answer()
    await waiting.answer
    assert told() == []


async def test_news_of_sleep_for_a_version_that_is_not_wanted_changes_nothing(plane: Plane) -> None:
    plane.pool.take(control.Asleep("v2"), [])
    assert plane.served.answers is False


async def test_a_message_that_is_not_for_it_is_passed_over(plane: Plane) -> None:
    plane.pool.take(control.Started(), [])
    assert plane.pool.all() == [plane.served]


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (Signature((TensorSpec("x", Dtype.FP32, (-1, 3)),)), [[0.0, 0.0, 0.0]]),
        (Signature((TensorSpec("x", Dtype.INT64, (-1, -1, 2)),)), [[[0, 0]]]),
        (Signature((TensorSpec("x", Dtype.BYTES, (-1,)), TensorSpec("y", Dtype.BOOL, (-1,)))), [""]),
    ],
)
def test_a_made_up_row_fits_its_signature(signature: Signature, expected: object) -> None:
    row = made_up_row(signature)
    assert row["x"].tolist() == expected
    assert row["x"].dtype == np.dtype(signature.inputs[0].dtype.numpy)


def test_a_made_up_picture_is_a_picture() -> None:
    signature = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True)
    assert made_up_row(signature)["image"][0].startswith(b"\x89PNG\r\n")
