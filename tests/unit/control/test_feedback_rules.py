"""What may be said of predictions, and which of several tellings holds: for every item, and in every order."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from modelkeep.api.schemas.feedback import ToldAnswer
from modelkeep.control.feedback.rules import Refused, Said, again_in, digest_of, read, telling, winners

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
ID = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4"
TEXT = st.text(st.characters(exclude_categories=()))  # halves of characters, which JSON can escape, are among them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def nested(levels: int, inside: object, *, named: bool = False) -> object:
    """JSON in so many levels, lists or objects."""
    for _ in range(levels):
        inside = {"a": inside} if named else [inside]
    return inside


DEEP = st.builds(nested, st.integers(0, 1000), JSON, named=st.booleans())


def test_an_item_is_read_with_all_that_it_says():
    raw = {"prediction": ID, "verdict": "wrong", "truth": {"b": 1, "a": [None]}, "at": "2026-03-14T12:00:00+02:00", "note": "n"}
    assert read(raw, NOW) == Said(ID, "wrong", '{"a":[null],"b":1}', NOW - timedelta(hours=2), "n")
    assert read({"prediction": ID, "verdict": "right", "truth": None, "at": None, "note": None}, NOW) == Said(ID, "right")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"prediction": None}, "prediction"),
        ({"prediction": "prd_short"}, "prediction"),
        ({"prediction": ID.replace("prd", "req")}, "prediction"),
        ({"prediction": ID.replace("prd_", "prd_\0_")}, "prediction"),
        ({"prediction": ID.replace("prd_", "prd_\ud800_")}, "prediction"),
        ({"verdict": "Right"}, "verdict"),
        ({"verdict": ["right"]}, "verdict"),
        ({"truth": "x" * 4095}, "truth"),
        ({"truth": float("nan")}, "truth"),
        ({"truth": ["a\ud800"]}, "truth"),
        ({"truth": {"\udfff": 1}}, "truth"),
        ({"truth": nested(65, 1)}, "truth"),
        ({"truth": nested(65, 1, named=True)}, "truth"),
        ({"truth": nested(100_000, 1)}, "truth"),
        ({"truth": "\u20ac" * 1365}, "truth"),
        ({"note": 1}, "note"),
        ({"note": 0}, "note"),
        ({"note": False}, "note"),
        ({"note": []}, "note"),
        ({"note": "x" * 1001}, "note"),
        ({"note": "a\0b"}, "note"),
        ({"note": "\ud800"}, "note"),
        ({"at": "2026-03-14T12:00:00"}, "zone"),
        ({"at": "soon"}, "zone"),
        ({"at": 5}, "zone"),
        ({"at": "2026-03-14T12:06:00Z"}, "ahead"),
        ({"at": "1999-12-31T23:59:59Z"}, "2000"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "2000"),
        ({"why": 1}, "other fields"),
    ],
)
def test_what_is_none_is_refused_with_what_is_wrong(changed, word):
    found = read({"prediction": ID, "verdict": "wrong", **changed}, NOW)
    assert isinstance(found, Refused)
    assert word in found.reason


@pytest.mark.parametrize("truth", ["x" * 4094, "\u20ac" * 1364, nested(64, 1), nested(64, "a", named=True), 10**4000])
def test_a_truth_may_be_as_large_and_as_deep_as_it_may_and_is_kept_in_no_more_bytes(truth):
    found = read({"prediction": ID, "verdict": "wrong", "truth": truth}, NOW)
    assert isinstance(found, Said)
    assert found.truth is not None
    assert len(found.truth.encode()) <= 4096
    assert answered(found)["truth"] == truth


def answered(said: Said) -> dict[str, Any]:
    """What a reader gets of something that was told, written as a route writes it."""
    told = ToldAnswer.of(telling(said, NOW, by="ada", user="usr_1"))
    found: dict[str, Any] = json.loads(TypeAdapter(ToldAnswer).dump_json(told))
    return found


@given(
    JSON
    | st.dictionaries(st.sampled_from(["prediction", "verdict", "truth", "at", "note"]), JSON | st.just(ID))
    | st.builds(lambda truth: {"prediction": ID, "verdict": "wrong", "truth": truth}, JSON | DEEP)
)
def test_whatever_is_sent_is_refused_or_can_be_read_by_everybody(raw):
    found = read(raw, NOW)
    assert isinstance(found, Said | Refused)
    if isinstance(found, Said):
        assert answered(found)["truth"] == raw.get("truth")


SAYING = st.builds(
    Said,
    st.sampled_from([ID, ID[:-1] + "5"]),
    st.sampled_from(["right", "wrong"]),
    st.none() | st.sampled_from(["1", '"x"']),
    st.sampled_from([NOW - timedelta(days=days) for days in range(3)]),
    st.sampled_from(["", "n"]),
)


@given(st.lists(SAYING), st.randoms(use_true_random=False))
def test_in_whatever_order_and_however_often_the_same_holds(said, dice):
    told = [telling(one, NOW, by="ada", user="usr_1") for one in said]
    again = told + dice.sample(told, len(told) * 3 // 10)
    dice.shuffle(again)
    assert winners(again) == winners(told)
    for key, one in winners(told).items():
        assert one.at == max(other.at for other in told if other.prediction_id == key)


def test_of_one_moment_wrong_holds():
    wrong, right = (telling(Said(ID, verdict, None, NOW), NOW, by="a", user="u") for verdict in ("wrong", "right"))
    assert winners([wrong, right]) == winners([right, wrong]) == {ID: wrong}


@given(SAYING, SAYING)
def test_two_things_said_are_told_apart_by_all_that_they_say(one, other):
    same = (one.verdict, one.truth, one.at, one.note) == (other.verdict, other.truth, other.at, other.note)
    assert (digest_of(one, one.at) == digest_of(other, other.at)) == same


def test_what_is_not_there_is_looked_for_after_a_second_then_less_and_less_up_to_ten_minutes():
    waits = [again_in(tries).total_seconds() for tries in range(40)]
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == waits[-1] == 600
