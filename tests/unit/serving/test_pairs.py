"""Pairs of a step in the shadow: exactly what one of two versions alone did badly by itself."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.calling import make_request, make_route, rows
from modelkeep.contracts.errors import InvalidInput, ModelFailed, ModelkeepError, OutOfMemory, RunnerLost, Timeout
from modelkeep.contracts.traffic import Counted
from modelkeep.serving import pairs as module
from modelkeep.serving.calls import Call, Run, Share
from modelkeep.serving.pairs import Pairs, Poor

Promoted = Literal["good", "poor", "failed", "kept"]
Shadow = Literal["good", "poor", "failed", "starved"]
STARVED: list[ModelkeepError] = [Timeout("late"), RunnerLost(), OutOfMemory(), InvalidInput("no")]


def asked(row: int, body: bytes = b"{}") -> Call:
    """A question about this row, however it was written."""
    call = Call(make_route(), make_request(), "native", body, 0.0)
    call.payload = rows(row)
    return call


def share_of(promoted: Promoted) -> Share | None:
    if promoted == "failed":
        return None
    run = Run({"y": np.array([1.0])}, 0.1)
    run.age_s = 3.0 if promoted == "kept" else None
    return Share(run, 0, 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["good", "poor", "failed", "kept"]),
            st.sampled_from(["good", "poor", "failed", "starved"]),
            st.sampled_from(STARVED),
        )
    )
)
def test_whatever_happens_each_pair_is_for_whom_it_was_bad_alone(
    story: list[tuple[Promoted, Shadow, ModelkeepError]],
) -> None:
    pairs = Pairs("rol_1:0")
    for at, (promoted, shadow, starved) in enumerate(story):
        call = asked(at)
        if shadow in {"failed", "starved"}:
            pairs.failed(call, share_of(promoted), ModelFailed() if shadow == "failed" else starved, heard=True)
        else:
            pairs.answered(call, share_of(promoted), Poor(shadow == "poor", promoted == "poor"))
    ended = [(ours, theirs) for ours, theirs, _error in story if ours != "kept" and theirs != "starved"]
    both = [one for one in ended if "failed" not in one]
    assert pairs.counts["errors"] == Counted(
        len(ended),
        sum(theirs == "failed" != ours for ours, theirs in ended),
        len(ended),
        sum(ours == "failed" != theirs for ours, theirs in ended),
    )
    assert pairs.counts["poor"] == Counted(
        len(both),
        sum(theirs == "poor" != ours for ours, theirs in both),
        len(both),
        sum(ours == "poor" != theirs for ours, theirs in both),
    )


def test_the_promoted_version_is_what_answers_are_compared_with() -> None:
    pairs = Pairs("rol_1:0")
    for otherwise in (True, False, True):
        pairs.compared(otherwise=otherwise)
    assert pairs.counts["disagreement"] == Counted(3, 2, 3, 0)


def test_equal_requests_are_bad_once_for_each_and_no_more_of_them_are_known_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_KNOWN", 2)
    pairs, good = Pairs("rol_1:0"), share_of("good")
    for written in (b"1", b" 1", b'{"id": "another", "inputs": 1}'):
        pairs.failed(asked(1, written), good, ModelFailed(), heard=True)
        pairs.answered(asked(1, written), None, Poor(shadow=False, promoted=False))
    assert pairs.counts["errors"] == Counted(6, 1, 6, 1)
    for row in (2, 2, 3, 1):
        pairs.failed(asked(row), good, ModelFailed(), heard=True)
    assert pairs.counts["errors"] == Counted(10, 4, 10, 1), "the first was forgotten by then"


def test_a_lost_run_is_one_answer_otherwise_and_want_of_time_or_memory_is_none() -> None:
    pairs, good = Pairs("rol_1:0"), share_of("good")
    for at, error in enumerate([RunnerLost.of(1.5), RunnerLost.of(1.5), RunnerLost.of(2.5), *STARVED[:1], *STARVED[2:]]):
        pairs.failed(asked(at), good, error, heard=True)
    pairs.failed(asked(9), None, RunnerLost.of(3.5), heard=False)
    assert pairs.counts["disagreement"] == Counted(2, 2, 2, 0)
    assert pairs.counts["errors"] == Counted()
