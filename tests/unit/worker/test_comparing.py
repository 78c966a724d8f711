"""Three answers to a row are counted as what they are, for any mix of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.work import calls_counted
from modelkeep.control.replays.rules import MOST_SHOWN, Compared, Pair
from modelkeep.sandbox.agreement import ABSOLUTE, RELATIVE, Differs, agreeing, largest_gap
from modelkeep.worker.comparing import LONGEST_SHOWN, Part, Tally
from modelkeep.worker.readings import Answered
from modelkeep.worker.recorded import Question

VALUES = st.sampled_from([0.0, 1.0, 1.00001, 1.5, -3.0, float("nan"), float("inf"), float("-inf")])


def question(rows: int, answered: Answered | None = None) -> Question:
    return Question({"x": np.zeros((rows, 1))}, answered or Answered(), "prd_1", "d", 0.0)


def take(tally: Tally, recorded: object, serving: object, original: object) -> None:
    answered = Answered() if recorded is None else Answered({"y": recorded})
    rows = len(original) if not isinstance(original, str) else 1
    sides = [one if isinstance(one, str) else {"y": np.array(one)} for one in (serving, original)]
    tally.take(Part(question(rows, answered), 0, rows, *sides))


def tally() -> Tally:
    return Tally("", lambda _deployment, _output: True)


def in_json(value: float) -> float | None:
    return value if np.isfinite(value) else None


def same(one: float, other: float) -> bool:
    return bool(np.isclose(one, other, RELATIVE, ABSOLUTE, equal_nan=True))


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=50), st.booleans())
def test_counts_are_those_of_each_row_by_itself(rows: list[tuple[float, float, float]], kept: bool) -> None:
    seen = tally()
    then, now, original = (list(column) for column in zip(*rows, strict=True))
    take(seen, [in_json(one) for one in then] if kept else None, now, original)
    finite = {one: float("nan") for one in (float("inf"), float("-inf"))}
    told = [tuple(finite.get(one, one) for one in row) for row in rows]
    apart = [not same(o, s) for _r, s, o in rows]
    wrong = [kept and not (same(r, s) and same(r, o)) for r, s, o in told]
    assert seen.rows == len(rows)
    assert seen.equal == sum(not (one or other) for one, other in zip(apart, wrong, strict=True))
    assert seen.pair(Pair.SERVING_ORIGINAL).differ == sum(apart)
    assert seen.pair(Pair.RECORDED_SERVING).rows == (len(rows) if kept else 0)
    assert seen.pair(Pair.RECORDED_SERVING).differ == sum(kept and not same(r, s) for r, s, _o in told)
    assert len(seen.shown) == min(MOST_SHOWN, seen.rows - seen.equal)
    for pair in Pair:
        assert np.isfinite(seen.pair(pair).largest_difference)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=30))
def test_numbers_of_another_library_are_allowed_a_share_of_the_largest_in_their_row(rows: list[tuple[float, ...]]) -> None:
    wanted, given_ = [np.array([row[at : at + 2] for row in rows]) * 1000 for at in (0, 2)]
    seen = Tally("", lambda _question, _output: True, Compared.NUMBERS_BY_ROW)
    other = np.array(["a"] * len(rows), dtype=object)
    seen.take(Part(question(len(rows)), 0, len(rows), {"y": given_, "z": other}, {"z": other, "y": wanted}))
    apart = 0
    for one, two in zip(wanted, given_, strict=True):
        try:
            agreeing({"y": one[None]}, {"y": two[None]})
        except Differs:
            apart += 1
    assert seen.rows - seen.equal == apart


@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=30))
def test_where_classes_are_compared_one_of_the_best_must_be_the_same(rows: list[tuple[float, ...]]) -> None:
    wanted, given_ = [np.array([row[at : at + 2] for row in rows]) for at in (0, 2)]
    seen = Tally("y", lambda _question, _output: True, Compared.CLASSES)
    seen.take(Part(question(len(rows)), 0, len(rows), {"y": given_, "z": given_}, {"z": given_ * 2, "y": wanted}))

    def best(row: np.ndarray) -> set[int]:
        there = {at: value for at, value in enumerate(row.tolist()) if not np.isnan(value)}
        return {at for at, value in there.items() if value == max(there.values())}

    apart = [
        bool((np.isfinite(one) != np.isfinite(two)).any()) or not (best(one) & best(two) or not (best(one) or best(two)))
        for one, two in zip(wanted, given_, strict=True)
    ]
    assert seen.rows - seen.equal == sum(apart)


def test_where_classes_are_compared_what_is_no_number_must_be_equal() -> None:
    seen = Tally("y", lambda _question, _output: True, Compared.CLASSES)
    scores = np.array([[0.1, 0.9], [0.9, 0.1]])
    labels = [np.array(["a", last], dtype=object) for last in ("b", "c")]
    seen.take(Part(question(2), 0, 2, {"y": scores, "t": labels[0]}, {"y": scores / 2, "t": labels[1]}))
    assert (seen.equal, [one.row for one in seen.shown]) == (1, [1])


def test_a_best_class_of_then_is_sought_among_all_classes_of_now() -> None:
    seen = Tally("y", lambda _question, _output: True, Compared.CLASSES)
    told = [[{"index": 1, "score": 0.4}, {"index": 0, "score": 0.3}]] * 2
    now = np.array([[0.2, 0.5, 0.3], [0.2, 0.3, 0.5]])
    seen.take(Part(question(2, Answered(top=told)), 0, 2, {"y": now}, {"y": now}))
    assert [one.row for one in seen.shown] == [1]
    assert seen.pair(Pair.RECORDED_ORIGINAL).differ == 1


def test_many_rows_that_differ_are_counted_together() -> None:
    """Row by row this took ten seconds, and millions of calls."""
    rows = 60_000
    seen = tally()
    now = np.arange(2.0 * rows).reshape(rows, 2)
    recorded = Answered({"y": (2 * now + 9).tolist()})
    with calls_counted() as calls:
        seen.take(Part(question(rows, recorded), 0, rows, {"y": -now - 2}, {"y": now + 3}))
    assert calls() < 20 * rows  # each recorded value is looked at once, and told from a list
    assert (seen.rows, seen.equal) == (rows, 0)
    assert [one.row for one in seen.shown] == list(range(MOST_SHOWN))
    assert seen.shown[19].original.outputs == {"y": [41.0, 42.0]}


def test_one_record_of_another_shape_differs_alone() -> None:
    seen = tally()
    now = np.arange(200.0).reshape(100, 2)
    told: list[object] = now.tolist()
    told[37], told[61] = [1.0], "?"
    seen.take(Part(question(100, Answered({"y": told})), 0, 100, {"y": now}, {"y": now}))
    assert [one.row for one in seen.shown] == [37, 61]
    assert seen.equal == 98


def test_what_a_file_refuses_is_an_answer_too() -> None:
    seen = tally()
    take(seen, [1.0], "predict_failed", [1.0])
    take(seen, None, "predict_failed", "predict_failed")
    take(seen, None, "memory_limit", "predict_failed")
    assert (seen.rows, seen.equal, seen.refused) == (3, 1, 3)
    assert [one.differs for one in seen.shown] == [(Pair.RECORDED_SERVING, Pair.SERVING_ORIGINAL), (Pair.SERVING_ORIGINAL,)]
    assert (seen.shown[0].serving.error, seen.shown[0].original.outputs) == ("predict_failed", {"y": 1.0})


@pytest.mark.parametrize("recorded", [["a"], [[1.0]], [[1.0, 2.0]], [True, 2], [{"a": 1}], ["NaN"]])
def test_a_record_of_another_shape_or_kind_differs_and_breaks_nothing(recorded: list[object]) -> None:
    seen = tally()
    answered = Answered({"y": recorded[:1], "gone": [1]})
    seen.take(Part(question(1, answered), 0, 1, {"y": np.array([7.0])}, {"y": np.array([7.0])}))
    assert (seen.rows, seen.equal) == (1, 0)
    assert seen.pair(Pair.SERVING_ORIGINAL).differ == 0


@pytest.mark.parametrize(
    "top", [[], [{"index": 9, "score": 1.0}], [{"index": "x", "score": 1.0}], [{"score": 1.0}], [{"index": 0}]]
)
def test_best_classes_that_the_model_does_not_have_differ_and_break_nothing(top: list[dict[str, object]]) -> None:
    seen = Tally("y", lambda _deployment, _output: True)
    now = {"y": np.array([[0.5, 0.5]])}
    seen.take(Part(question(1, Answered(top=[top])), 0, 1, now, now))
    assert seen.pair(Pair.RECORDED_SERVING).differ == 1


def test_best_classes_are_hidden_with_the_output_that_they_were_taken_from() -> None:
    seen = Tally("y", lambda _question, output: output != "y")
    answered = Answered(top=[[{"index": 0, "score": 0.5}]])
    seen.take(Part(question(1, answered), 0, 1, "predict_failed", "predict_failed"))
    (row,) = seen.shown
    assert row.hidden == ("y",)
    assert row.recorded is not None
    assert row.recorded.outputs == {}


def test_texts_are_compared_as_texts_and_bytes_as_json_has_them() -> None:
    seen = tally()
    now = np.array(["ham", b"eggs", b"\xff"], dtype=object)
    answered = Answered({"y": ["ham", "eggs", "/w=="]})
    seen.take(Part(question(3, answered), 0, 3, {"y": now}, {"y": now}))
    assert (seen.rows, seen.equal) == (3, 3)


def test_a_large_answer_is_not_written_down() -> None:
    seen = tally()
    wide = [[0.5] * LONGEST_SHOWN]
    take(seen, None, wide, [[0.25] * LONGEST_SHOWN])
    (row,) = seen.shown
    assert "too large to be shown" in row.original.outputs["y"]


def test_a_gap_is_finite_whatever_is_compared() -> None:
    nan, inf = float("nan"), float("inf")
    one, other = np.array([nan, nan, inf, 1.0, inf]), np.array([nan, 1.0, 1.0, 3.0, inf])
    assert largest_gap({"y": one, "z": one, "t": one}, {"y": other, "z": other[:2], "t": np.array(["a"] * 5)}) == 2.0
    assert largest_gap({"y": one[:2]}, {"y": other[1:3]}) == 0.0
