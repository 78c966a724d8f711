"""Which ways are tried, and which candidate is chosen: pure decisions."""

import os

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.report import Candidate
from modelkeep.worker.optimisation import WAYS, WORTH_IT, Goal, choice, objection, ways
from modelkeep.worker.processor import Processor
from modelkeep.worker.trial import per_row, speed_of

ALL = frozenset({"onnx", "openvino"})
CORES = len(os.sched_getaffinity(0))
ROWS = {"x": np.zeros((40, 1))}
OLD, NEW = Processor(bfloat16=False, narrow=True), Processor(bfloat16=True, narrow=False)
OPENVINO, BF16, INT8, INT8_OPENVINO = WAYS

CANDIDATES = st.builds(
    Candidate,
    st.sampled_from(["openvino", "int8"]),
    st.sampled_from(["onnx", "openvino"]),
    st.sampled_from(["f32", "int8"]),
    reason=st.sampled_from(["", "no"]),
    latency_ms=st.fixed_dictionaries({"1": st.floats(0.01, 100), "64": st.floats(0.01, 100)}),
    speed=st.floats(0.1, 10),
)


@given(st.lists(CANDIDATES, max_size=6).map(tuple), st.sampled_from(["auto", "int8", "openvino", "threads"]))
def test_the_fastest_of_those_that_nothing_speaks_against_is_chosen(candidates, asked):
    able = [one for one in candidates if not one.reason and (asked in {"int8", "openvino"} or one.speed >= WORTH_IT)]
    chosen = choice(candidates, asked)
    if chosen is None:
        assert not able
    else:
        assert candidates[chosen] in able
        assert per_row(candidates[chosen].latency_ms) == min(per_row(one.latency_ms) for one in able)


def test_time_is_counted_by_the_row():
    assert per_row({"1": 2.0, "64": 64.0}) == 1.5
    assert per_row({}) == float("inf")
    assert speed_of({"1": 0.5, "64": 16.0}, before_ms={"1": 2.0, "64": 64.0}) == 4.0


@pytest.mark.parametrize(
    ("way", "goal", "processor", "installed", "words"),
    [
        (OPENVINO, Goal(), OLD, ALL, ""),
        (OPENVINO, Goal(), OLD, frozenset({"onnx"}), "not installed"),
        (BF16, Goal("bf16", 0.1, ROWS), OLD, ALL, "bfloat16"),
        (BF16, Goal("bf16", 0.1, ROWS), NEW, ALL, ""),
        (BF16, Goal("bf16", 0.0, ROWS), NEW, ALL, "budget"),
        (BF16, Goal(), NEW, ALL, "rows"),
        (INT8, Goal(), NEW, ALL, "rows"),
        (INT8, Goal("auto", 0.0, ROWS), NEW, ALL, "budget"),
        (INT8, Goal("auto", 0.1, ROWS), NEW, ALL, ""),
        (INT8, Goal("int8", 0.0, ROWS), NEW, ALL, ""),
        (INT8_OPENVINO, Goal("int8", 0.0, ROWS), NEW, frozenset({"onnx"}), "not installed"),
    ],
)
def test_a_way_is_tried_where_it_can_be_had_and_judged(way, goal, processor, installed, words):
    found = objection(way, goal, processor, installed)
    assert words in found
    assert bool(found) is bool(words)


@pytest.mark.parametrize(
    ("cores", "threads", "tried"),
    [(1, 1, []), (2, 1, [2]), (2, 2, [1]), (4, 1, [2, 4]), (6, 1, [2, 3, 4, 6]), (12, 4, [1, 2, 6, 8, 12])],
)
def test_threads_are_tried_in_numbers_that_the_machine_has_cores_for(cores, threads, tried):
    found = ways("threads", msgspec.structs.replace(NEW, cores=cores), threads)
    assert [way.title for way in found] == [f"threads-{number}" for number in tried]
    assert {way.name for way in found} <= {"threads"}
    assert not any(objection(way, Goal("threads"), OLD, ALL) for way in found)


def test_threads_are_tried_only_where_they_are_asked_for():
    assert ways("auto", msgspec.structs.replace(NEW, cores=8), 1) == list(WAYS)
    assert ways("openvino", msgspec.structs.replace(NEW, cores=8), 1) == [OPENVINO]
    assert [way.title for way in ways("int8", NEW, 1)] == ["int8", "int8"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx2 fma", OLD),
        ("flags : avx512_vnni avx512_bf16", NEW),
        ("flags : avx_vnni", Processor(bfloat16=False, narrow=False)),
        ("Features : fp asimd asimddp bf16", NEW),
        ("model name : avx512_vnni amx_bf16", OLD),
        ("", OLD),
    ],
)
def test_a_processor_is_known_by_what_the_kernel_tells(flags, expected, tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor : 0\n{flags}\n")
    assert Processor.here(told) == msgspec.structs.replace(expected, cores=CORES)


def test_nothing_is_taken_for_granted_where_the_kernel_tells_nothing(tmp_path):
    assert Processor.here(tmp_path / "none") == msgspec.structs.replace(OLD, cores=CORES)
