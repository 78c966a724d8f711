"""Pairs of a step in the shadow: exactly what one of two versions alone did badly by itself."""

from typing import Literal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import InvalidInput, ModelFailed, ModelkeepError, OutOfMemory, RunnerLost, Timeout
from modelkeep.contracts.traffic import Counted
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
    for promoted, shadow, starved in story:
        if shadow in {"failed", "starved"}:
            pairs.failed(share_of(promoted), ModelFailed() if shadow == "failed" else starved)
        else:
            pairs.answered(share_of(promoted), Poor(shadow == "poor", promoted == "poor"))
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
