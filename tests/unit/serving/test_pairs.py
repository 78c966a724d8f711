"""Pairs of a step in the shadow: exactly what one of two versions alone did badly by itself."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import InvalidInput, ModelFailed, ModelkeepError, OutOfMemory, RunnerLost, Timeout
from modelkeep.contracts.traffic import Counted
from modelkeep.serving import pairs as module
from modelkeep.serving.calls import Run, Share
from modelkeep.serving.pairs import Pairs, Poor

Promoted = Literal["good", "poor", "failed", "kept"]
Shadow = Literal["good", "poor", "failed", "starved"]
STARVED: list[ModelkeepError] = [Timeout("late"), RunnerLost(), OutOfMemory(), InvalidInput("no")]


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
        body = str(at).encode()
        if shadow in {"failed", "starved"}:
            pairs.failed(body, share_of(promoted), ModelFailed() if shadow == "failed" else starved)
        else:
            pairs.answered(body, share_of(promoted), Poor(shadow == "poor", promoted == "poor"))
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
    for _ in range(3):
        pairs.failed(b"a", good, ModelFailed())
        pairs.answered(b"a", None, Poor(shadow=False, promoted=False))
    assert pairs.counts["errors"] == Counted(6, 1, 6, 1)
    for body in (b"b", b"b", b"c", b"a"):
        pairs.failed(body, good, ModelFailed())
    assert pairs.counts["errors"] == Counted(10, 4, 10, 1), "the first was forgotten by then"
