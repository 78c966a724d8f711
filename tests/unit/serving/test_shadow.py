"""A shadow is asked what the promoted version has answered, and nothing that it does reaches whoever asked."""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from modelkeep.contracts.shadow import ShadowSeen
from modelkeep.contracts.snapshot import DeploymentSettings, Memory, Recording
from modelkeep.contracts.traffic import Counted, Split, Traffic, Trial
from modelkeep.sandbox import control
from modelkeep.serving import shadow as shadows
from modelkeep.serving.codec import Tensors
from modelkeep.serving.shadow import Shadow, spare_id

SHADOW = spare_id("m-2")


def sums(inputs: Tensors) -> Tensors:
    (array,) = inputs.values()
    return {"sum": array.sum(axis=1), "echo": array}


def otherwise(inputs: Tensors) -> Tensors:
    (array,) = inputs.values()
    return {"sum": array.sum(axis=1) + (array[:, 0] > 5), "echo": array}


async def shadowed(
    house, compute: Callable[[Tensors], Tensors] | None = sums, *, share: float = 100.0, serve: bool = True
) -> Shadow:
    """Deploy m-1 as m with m-2 as its shadow, which computes that; None for one that has no runner yet."""
    if serve:
        await house.serve("m")
    beside = house.versions["m-1"]
    spec = msgspec.structs.replace(beside.spec, version_id="m-2")
    house.versions["m-2"] = msgspec.structs.replace(beside, id="m-2", number=2, spec=spec)
    house.traffic["m"] = Traffic(shadow=Split("m-2", share))
    house.publish()
    if compute is not None:
        await house.connect(SHADOW, compute)
    found = house.shadows.get("m")
    assert found is not None
    return found


async def ask(house, *rows: list[float]) -> list[float]:
    answer = await house.client.post("/v1/models/m:predict", json={"instances": list(rows)})
    assert answer.status_code == 200, answer.text
    return [one["sum"] for one in answer.json()["predictions"]]


async def settled(shadow: Shadow) -> None:
    """Wait until a shadow has nothing left to ask or to compare."""
    async with asyncio.timeout(10):
        while shadow._queue or shadow._underway or shadow._pairs or shadow._comparing:
            await asyncio.sleep(0.001)


def report(shadow: Shadow) -> ShadowSeen:
    telling = shadow.telling()
    assert telling is not None
    seen = telling()
    shadow.told()
    return seen


async def test_it_is_asked_the_same_rows_and_what_it_says_is_compared(house) -> None:
    shadow = await shadowed(house, otherwise)
    assert await ask(house, [1, 2], [9, 1]) == [3, 10]
    assert await ask(house, [4, 4]) == [8]
    await settled(shadow)
    seen = report(shadow)
    assert (seen.asked, seen.dropped, seen.failed) == (2, {}, {})
    assert (seen.compared.requests, seen.compared.requests_differ, seen.compared.rows, seen.compared.differ) == (2, 1, 3, 1)
    (worst,) = seen.compared.worst
    assert (worst.row, worst.primary, worst.shadow) == (1, {"sum": 10.0, "echo": [9.0, 1.0]}, {"sum": 11.0, "echo": [9.0, 1.0]})
    assert worst.inputs == {"a": 9.0, "b": 1.0}
    assert shadow.disagreement == Counted(2, 1, 2, 0)
    assert (seen.primary_id, seen.version_id, seen.share) == ("m-1", "m-2", 100.0)
    assert sum(seen.primary_s) == sum(seen.shadow_s) == 2


async def test_what_it_says_is_in_no_history_and_counts_as_no_prediction(house) -> None:
    shadow = await shadowed(house, otherwise)
    await ask(house, [9, 1])
    await settled(shadow)
    assert [record.version_id for record in house.records] == ["m-1"]
    page = house.metrics.text().decode()
    assert 'modelkeep_predictions_total{deployment="m",version="1",outcome="ok"} 1' in page
    assert 'modelkeep_shadow_requests_total{deployment="m",result="differed"} 1' in page
    assert 'version="2"' not in page


async def test_it_is_asked_nothing_at_a_share_of_none_and_a_share_is_taken_up_at_once(house) -> None:
    shadow = await shadowed(house, share=0.0)
    await ask(house, [1, 2])
    house.traffic["m"] = Traffic(shadow=Split("m-2", 100.0))
    house.publish()
    assert house.shadows.get("m") is shadow, "what was counted goes on"
    await ask(house, [1, 2])
    await settled(shadow)
    assert report(shadow).asked == 1


async def test_a_share_is_a_share(house) -> None:
    shadow = await shadowed(house, share=30.0)
    for _ in range(400):
        await ask(house, [1, 2])
    assert 70 < report_asked(shadow) < 170  # six standard deviations to either side


def report_asked(shadow: Shadow) -> int:
    return shadow._asked


async def test_a_version_that_answers_by_an_alias_answers_nothing_as_a_shadow(house) -> None:
    shadow = await shadowed(house)
    await house.alias("m", "next", 2)
    answer = await house.client.post("/v1/models/m/versions/2:predict", json={"instances": [[1, 2]]})
    assert answer.status_code == 200
    assert shadow._asked == 0, "only what the promoted version answers is asked again"
    await ask(house, [1, 2])
    await settled(shadow)
    assert report(shadow).compared.requests == 1
    served = house.router.pool.get("m-2")
    assert served is not None and served.batcher.runs == 1, "its own runners had nothing to do with it"  # noqa: PT018


async def test_what_was_refused_or_failed_is_not_asked(house, refuse) -> None:
    def fails(inputs: Tensors) -> Tensors:
        raise refuse("failed", "no")

    await house.serve("n", compute=fails)
    beside = house.versions["n-1"]
    house.versions["n-2"] = msgspec.structs.replace(
        beside, id="n-2", number=2, spec=msgspec.structs.replace(beside.spec, version_id="n-2")
    )
    house.traffic["n"] = Traffic(shadow=Split("n-2", 100.0))
    house.publish()
    assert (await house.client.post("/v1/models/n:predict", json={"instances": [[1, 2]]})).status_code == 500
    assert (await house.client.post("/v1/models/n:predict", json={"instances": [["x", 2]]})).status_code == 400
    shadow = house.shadows.get("n")
    assert shadow is not None and shadow._asked == 0  # noqa: PT018


async def test_one_that_fails_is_counted_and_nobody_hears_of_it(house, refuse) -> None:
    def fails(inputs: Tensors) -> Tensors:
        raise refuse("failed", "no")

    shadow = await shadowed(house, fails)
    for _ in range(3):
        assert await ask(house, [1, 2]) == [3]
        await settled(shadow)
    seen = report(shadow)
    assert seen.failed == {"model_failed": 3}
    assert seen.compared.requests == 0
    assert shadow.disagreement == Counted(3, 3, 3, 0)


async def test_one_that_answers_garbage_disagrees(house) -> None:
    shadow = await shadowed(house, lambda inputs: {"sum": np.array([["x"]] * len(inputs["input"]), dtype=object)})
    assert await ask(house, [1, 2]) == [3]
    await settled(shadow)
    seen = report(shadow)
    assert (seen.compared.rows, seen.compared.differ, seen.failed) == (1, 1, {})


async def test_one_with_other_inputs_is_not_asked(house) -> None:
    shadow = await shadowed(house)
    other = house.versions["m-2"].signature
    inputs = (msgspec.structs.replace(other.inputs[0], columns=("b", "a")),)
    shadow.served.version = msgspec.structs.replace(
        shadow.served.version, signature=msgspec.structs.replace(other, inputs=inputs)
    )
    await ask(house, [1, 2])
    await settled(shadow)
    assert report(shadow).dropped == {"other_inputs": 1}


async def test_no_more_calls_wait_than_there_is_room_for(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MOST_WAITING", 3)
    shadow = await shadowed(house)
    house.gates[SHADOW] = asyncio.Event()
    await ask(house, [0, 0])
    async with asyncio.timeout(10):
        while not shadow._underway:
            await asyncio.sleep(0.001)
    for number in range(5):
        assert await ask(house, [number, 0]) == [number]
    assert len(shadow._queue) == 3
    house.gates[SHADOW].set()
    await settled(shadow)
    seen = report(shadow)
    assert (seen.asked, seen.dropped, seen.compared.requests) == (6, {"full": 2}, 4)
    assert shadow._bytes == 0


async def test_no_more_bytes_wait_than_there_is_room_for(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MOST_BYTES", 100)
    shadow = await shadowed(house)
    await ask(house, *[[1, 2]] * 50)
    assert shadow._dropped == {"full": 1}


async def test_it_waits_for_capacity_to_spare_and_gives_up_in_time(house, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = await shadowed(house)
    house.shadows._around.room = lambda: False
    await ask(house, [1, 2])
    async with asyncio.timeout(10):
        while shadow._timer is None:
            await asyncio.sleep(0.001)
    assert shadow.served.batcher.runs == 0
    house.shadows._around.room = lambda: True
    await settled(shadow)
    assert report(shadow).compared.requests == 1
    house.shadows._around.room = lambda: False
    monkeypatch.setattr(shadows, "PATIENCE_S", 0.0)
    await ask(house, [1, 2])
    await settled(shadow)
    assert report(shadow).dropped == {"busy": 1}


async def test_while_the_promoted_version_has_something_waiting_its_shadow_is_not_asked(house) -> None:
    shadow = await shadowed(house)
    primary = house.router.pool.get("m-1")
    assert primary is not None
    await ask(house, [1, 2])
    house.gates["m-1"] = asyncio.Event()
    asking = [asyncio.create_task(ask(house, [number, 0])) for number in range(3)]
    async with asyncio.timeout(10):
        while not primary.batcher.waiting:
            await asyncio.sleep(0)
    looked = shadow._look
    looked()
    assert shadow.served.batcher.runs == 0
    house.gates["m-1"].set()
    await asyncio.gather(*asking)
    await settled(shadow)
    assert report(shadow).compared.requests == 4


async def test_the_runs_of_others_fill_the_machine_and_those_of_shadows_do_not(house) -> None:
    shadow = await shadowed(house)
    house.gates[SHADOW] = asyncio.Event()
    await ask(house, [1, 2])
    async with asyncio.timeout(10):
        while not shadow.served.batcher.busy:
            await asyncio.sleep(0.001)
    assert house.router.pool.running() == 0
    house.gates["m-1"] = asyncio.Event()
    asking = asyncio.create_task(ask(house, [1, 2]))
    async with asyncio.timeout(10):
        while not house.router.pool.running():
            await asyncio.sleep(0.001)
    assert house.router.pool.running() == 1
    for gate in house.gates.values():
        gate.set()
    await asking
    await settled(shadow)


async def test_one_that_is_not_loaded_is_roused_and_asked_when_it_is(house) -> None:
    shadow = await shadowed(house, None)
    house.router.pool.take(control.Asleep(SHADOW), [])
    await ask(house, [1, 2])
    async with asyncio.timeout(10):
        while control.Wake(SHADOW) not in house.sent:
            await asyncio.sleep(0.001)
    await house.connect(SHADOW, sums)
    await settled(shadow)
    assert report(shadow).compared.requests == 1


async def test_one_that_is_never_loaded_is_not_waited_for(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "PATIENCE_S", 0.0)
    shadow = await shadowed(house, None)
    await ask(house, [1, 2])
    await settled(shadow)
    assert report(shadow).dropped == {"not_loaded": 1}


async def test_it_has_runners_of_its_own_on_spare_capacity_and_one_at_most(house) -> None:
    await shadowed(house)
    wants = [message for message in house.sent if isinstance(message, control.Want)][-1]
    wanted = {one.spec.version_id: one for one in wants.specs}
    assert wanted.keys() == {"m-1", SHADOW}
    assert wanted[SHADOW].spec.spare and not wanted["m-1"].spec.spare  # noqa: PT018
    assert (wanted[SHADOW].replicas, wanted[SHADOW].memory, wanted[SHADOW].lazy) == (1, Memory("on_demand"), True)


async def test_one_that_cannot_be_served_is_no_failing_version(house) -> None:
    shadow = await shadowed(house, None)
    house.router.pool.take(control.Held(SHADOW, 60.0, "it dies"), [])
    await ask(house, [1, 2])
    beat = house.router.heartbeat("here", 0.0)
    assert beat.failing == {}
    assert beat.serving == {"m": "m-1"}
    shadow.end()


@pytest.mark.parametrize("recording", [Recording(enabled=False), Recording(sample=0.0)])
async def test_of_predictions_that_are_not_in_the_history_nothing_is_shown(house, recording: Recording) -> None:
    house.settings["m"] = DeploymentSettings(recording=recording)
    shadow = await shadowed(house, otherwise)
    await ask(house, [9, 1])
    await settled(shadow)
    compared = report(shadow).compared
    assert (compared.differ, compared.worst, compared.slices) == (1, (), ())


async def test_what_policy_does_not_keep_is_not_shown(house) -> None:
    house.settings["m"] = DeploymentSettings(recording=Recording(fields={"a": "hash", "sum": "drop"}))
    shadow = await shadowed(house, otherwise)
    await ask(house, [9, 1])
    await settled(shadow)
    compared = report(shadow).compared
    (worst,) = compared.worst
    assert (worst.inputs, worst.primary, worst.shadow) == ({"b": 1.0}, {"echo": [9.0, 1.0]}, {"echo": [9.0, 1.0]})
    assert {one.column for one in compared.slices} == {"b"}


async def test_another_policy_begins_another_report(house) -> None:
    shadow = await shadowed(house, otherwise)
    house.settings["m"] = DeploymentSettings(recording=Recording(inputs="drop"))
    house.publish()
    other = house.shadows.get("m")
    assert other is not shadow
    await ask(house, [9, 1])
    await settled(other)
    assert (shadow._asked, report(other).compared.worst[0].inputs) == (0, {})


async def test_one_that_is_promoted_shadows_nobody(house) -> None:
    shadow = await shadowed(house)
    house.deployments["m"] = "m-2"
    house.publish()
    await house.connect("m-2")
    assert house.shadows.get("m") is None
    await ask(house, [1, 2])
    assert shadow._asked == 0
    assert {one.version.id for one in house.router.pool.all()} == {"m-1", "m-2"}, "what answered before stays for a while"


async def test_when_it_ends_what_waits_is_dropped(house) -> None:
    shadow = await shadowed(house, None)
    await ask(house, [1, 2])
    house.traffic["m"] = Traffic()
    house.publish()
    assert house.shadows.get("m") is None
    assert shadow._dropped == {"ended": 1}
    assert (await ask(house, [1, 2]), shadow._asked) == ([3], 1)


async def test_its_disagreements_are_counted_for_a_trial_of_the_same_version(house) -> None:
    house.trials["m"] = Trial("rol_1", 2, "m-2", 0.1)
    shadow = await shadowed(house, otherwise)
    await ask(house, [9, 1])
    await settled(shadow)
    assert house.router.heartbeat("here", 0.0).trials["rol_1:2"].counts["disagreement"] == Counted(1, 1, 1, 0)
    house.trials["m"] = Trial("rol_2", 1, "m-3", 0.1)
    house.publish()
    assert "disagreement" not in house.router.heartbeat("here", 0.0).trials["rol_2:1"].counts


def in_trial(house, rollout: str = "rol_1") -> None:
    """Have servers count a rollout's step in the shadow."""
    house.trials["m"] = Trial(rollout, 0, "m-2", 0.5, shadow=True)


def paired(house, signal: str, rollout: str = "rol_1") -> Counted:
    return house.router.heartbeat("here", 0.0).trials[f"{rollout}:0"].counts[signal]


async def test_in_a_trial_it_is_also_asked_what_the_promoted_version_failed_and_pairs_are_counted(house, refuse) -> None:
    def fails_above(bound: float) -> Callable[[Tensors], Tensors]:
        def compute(inputs: Tensors) -> Tensors:
            (array,) = inputs.values()
            if array[0, 0] > bound:
                raise refuse("failed", "no")
            return otherwise(inputs)

        return compute

    in_trial(house)
    await house.serve("m", compute=fails_above(5.0))
    shadow = await shadowed(house, fails_above(8.0), serve=False)
    told = []
    for first in (1.0, 1.0, 6.0, 9.0, 9.5):
        answer = await house.client.post("/v1/models/m:predict", json={"instances": [[first, 1]]})
        told.append(answer.status_code)
        await settled(shadow)
    assert told == [200, 200, 500, 500, 500], "what the shadow says of it, nobody hears"
    assert paired(house, "errors") == Counted(5, 0, 5, 1), "both failed two of them"
    assert paired(house, "poor") == Counted(2, 0, 2, 0)
    assert paired(house, "disagreement") == Counted(2, 0, 2, 0)
    seen = report(shadow)
    assert (seen.asked, seen.dropped, seen.failed, seen.compared.requests) == (2, {}, {}, 2), "the report is of answers alone"
    assert sum(seen.primary_s) == sum(seen.shadow_s) == 2


async def test_in_a_trial_numbers_that_are_none_are_paired_and_failures_of_its_own_are_not_those_of_the_machine(
    house, refuse
) -> None:
    said = ["good"]

    def compute(inputs: Tensors) -> Tensors:
        (array,) = inputs.values()
        if said[0] in {"memory", "failed"}:
            raise refuse(said[0], "no")
        return {"sum": array.sum(axis=1) + (np.nan if said[0] == "poor" else 0.0), "echo": array}

    in_trial(house)
    shadow = await shadowed(house, compute)
    for what in ("good", "poor", "failed", "memory"):
        said[:] = [what]
        assert await ask(house, [1, 2]) == [3]
        await settled(shadow)
    assert paired(house, "errors") == Counted(3, 1, 3, 0)
    assert paired(house, "poor") == Counted(2, 1, 2, 0)
    assert paired(house, "disagreement") == Counted(3, 2, 3, 0)


async def test_another_trial_counts_from_nothing_and_what_answers_of_it_is_not_mixed_with_shares(house) -> None:
    in_trial(house)
    shadow = await shadowed(house, otherwise)
    await ask(house, [9, 1])
    await settled(shadow)
    assert paired(house, "disagreement") == Counted(1, 1, 1, 0)
    in_trial(house, "rol_2")
    house.publish()
    assert house.shadows.get("m") is shadow
    assert paired(house, "disagreement", "rol_2") == Counted()
    house.trials["m"] = Trial("rol_3", 0, "m-2", 0.5)
    house.publish()
    await ask(house, [9, 1])
    await settled(shadow)
    assert shadow.pairs is None
    assert paired(house, "errors", "rol_3") == Counted(), "there it is counted by the shares alone"


async def test_what_was_seen_is_left_for_the_courier_whole(house, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = await shadowed(house, otherwise)
    await ask(house, [9, 1])
    await settled(shadow)
    house.shadows.tend()
    async with asyncio.timeout(10):
        while shadow.changed or shadow._comparing:
            await asyncio.sleep(0.001)
    (file,) = (tmp_path / "shadows").iterdir()
    seen = msgspec.msgpack.decode(file.read_bytes(), type=ShadowSeen)
    assert (file.name, seen.compared.differ, seen.server) == (f"{seen.id}.shadow", 1, "here")
    await ask(house, [9, 1])
    await settled(shadow)
    house.shadows.close()
    assert msgspec.msgpack.decode(file.read_bytes(), type=ShadowSeen).compared.differ == 2


async def test_large_answers_are_compared_in_a_thread(house) -> None:
    shadow = await shadowed(house, otherwise)
    aside: list[object] = []
    real = house.shadows._around.aside
    house.shadows._around.aside = lambda work, then: (aside.append(work), real(work, then))[1]
    await ask(house, *[[9, 1]] * 20_000)
    await settled(shadow)
    assert len(aside) == 1
    assert report(shadow).compared.differ == 20_000
    with contextlib.suppress(KeyError):
        del house.gates["m-1"]
