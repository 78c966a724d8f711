"""What a replay may be asked for, what it may show, and how long it stays."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.ids import new_id
from modelkeep.contracts.snapshot import Recording
from modelkeep.control.replays.errors import InvalidReplay, RowsNotKept
from modelkeep.control.replays.rules import (
    Asked,
    Compared,
    File,
    check_rows_may_wait,
    compared_as,
    encode_rows,
    expiry,
    first_expiry,
    may_show,
    read_asked,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = "prd_01M7Z10Y8G1PNBFRTZJ2MPQQK5"


def test_one_thing_is_asked_for() -> None:
    assert read_asked([ID, ID], None, None) == Asked(predictions=(ID,))
    assert read_asked(None, 7, None) == Asked(last=7)
    assert read_asked(None, None, [[1]]) == Asked(rows=True)


@pytest.mark.parametrize(
    "asked", [(None, None, None), ([ID], 7, None), ([ID], None, [[1]]), (None, 7, [[1]]), ([], None, None), (None, 0, None)]
)
def test_nothing_or_several_things_are_refused(asked: tuple[object, object, object]) -> None:
    with pytest.raises(InvalidReplay):
        read_asked(*asked)  # type: ignore[arg-type]


def test_more_than_a_thousand_are_refused() -> None:
    assert len(read_asked([new_id("prd") for _ in range(1000)], None, None).predictions) == 1000
    for too_many in (([new_id("prd") for _ in range(1001)], None, None), (None, 1001, None)):
        with pytest.raises(InvalidReplay, match="1000"):
            read_asked(*too_many)


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "prd_",
        "x",
        "prd_' OR 1=1 --",
        ID.lower(),
        f"{ID}\0",
        f" {ID}",
        "ver_01M7Z10Y8G1PNBFRTZJ2MPQQK5",
        f"a_{ID}",
        "prd_" + "9" * 27,
        "../" + ID,
    ],
)
def test_what_can_be_no_id_is_named_by_its_place(hostile: str) -> None:
    with pytest.raises(InvalidReplay) as refused:
        read_asked([ID, hostile], None, None)
    (field,) = refused.value.fields
    assert (field.path, field.code) == ("predictions[1]", "not_an_id")
    assert "OR 1=1" not in refused.value.message


@given(st.lists(st.text(max_size=40), max_size=30))
def test_any_texts_are_ids_or_refused_as_such(texts: list[str]) -> None:
    try:
        asked = read_asked(texts, None, None)
    except InvalidReplay:
        return
    assert 1 <= len(asked.predictions) <= len(texts)


def test_a_form_is_held_to_the_rule_that_it_was_accepted_by() -> None:
    original = File("a", "onnx", "onnx")
    assert compared_as(original, original) is Compared.NUMBERS
    assert compared_as(File("a", "pickle", "sklearn"), File("b", "onnx", "onnx")) is Compared.NUMBERS
    assert compared_as(original, File("a", "onnx", "openvino")) is Compared.NUMBERS_BY_ROW
    for precision in ("bf16", "int8"):
        assert compared_as(original, File("b", "onnx", "onnx", precision)) is Compared.CLASSES


def test_rows_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(InvalidReplay):
        encode_rows([["\ud800"]])
    assert encode_rows([["a\0", None, 1.5]]) == '[["a\\u0000",null,1.5]]'


def test_rows_do_not_wait_where_no_inputs_are_kept() -> None:
    check_rows_may_wait(Recording())
    check_rows_may_wait(Recording(outputs="drop"))
    forbids = (
        Recording(enabled=False),
        Recording(inputs="hash"),
        Recording(inputs="drop"),
        Recording(fields={"x": "hash"}),
        Recording(sample=0.99),
    )
    for recording in forbids:
        with pytest.raises(RowsNotKept):
            check_rows_may_wait(recording)


def test_only_what_policy_keeps_is_shown() -> None:
    assert may_show("y", Recording())
    assert may_show("y", Recording(outputs="drop", fields={"y": "keep"}))
    for recording in (None, Recording(enabled=False), Recording(outputs="hash"), Recording(fields={"y": "drop"})):
        assert not may_show("y", recording)


@given(st.lists(st.tuples(st.floats(NOW.timestamp() - 90 * 86_400, NOW.timestamp()), st.integers(0, 365)), max_size=9))
def test_a_replay_never_outlives_what_it_shows_by_more_than_an_hour(shown: list[tuple[float, int]]) -> None:
    goes = expiry(NOW, NOW - timedelta(minutes=1), shown)
    assert NOW < goes <= first_expiry(NOW)
    for at, days in shown:
        midnight = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        assert goes <= max(midnight + timedelta(days=days), NOW + timedelta(hours=1))
