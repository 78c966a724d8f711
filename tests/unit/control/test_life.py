"""The life of models and versions as values."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import Invalid
from modelkeep.control.models.life import (
    LARGEST_TRAINING,
    Data,
    Deprecation,
    Life,
    Training,
    check_reason,
    deprecation,
    life_of,
    read_training,
)

NOW = datetime(2026, 3, 14, tzinfo=UTC)
SAID = Deprecation(NOW)
moments = st.none() | st.just(NOW)


@given(said=st.none() | st.just(SAID), archived=moments, trashed=moments, purging=moments, purged=moments)
def test_what_was_noted_last_in_a_life_decides_where_it_stands(said, archived, trashed, purging, purged):
    life = life_of(deprecation=said, archived_at=archived, trashed_at=trashed, purging_at=purging, purged_at=purged)
    noted = [one is not None for one in (said, archived, trashed, purging, purged)]
    order = list(Life)
    assert order.index(life) == max((place + 1 for place, there in enumerate(noted) if there), default=0)


def test_a_deprecation_is_from_now_unless_it_says_since_when_and_in_utc():
    east = timezone(timedelta(hours=2))
    assert deprecation(NOW, since=None, sunset=None, note=" ", successor=None) == SAID
    told = deprecation(NOW, since=NOW.astimezone(east), sunset=NOW + timedelta(days=1), note="x", successor=4)
    assert told == Deprecation(NOW, NOW + timedelta(days=1), "x", 4)
    assert told.since.utcoffset() == timedelta(0)


@pytest.mark.parametrize("bad", [{"sunset": NOW - timedelta(seconds=1)}, {"since": datetime(2026, 1, 1)}])  # noqa: DTZ001 - it is bad
def test_a_sunset_is_not_before_the_deprecation_and_moments_have_a_zone(bad: dict[str, datetime]):
    with pytest.raises(Invalid):
        deprecation(NOW, **{"since": None, "sunset": None, "note": "", "successor": None, **bad})


def test_a_reason_has_an_end_and_is_there_where_it_is_needed():
    assert check_reason(" because ") == "because"
    assert check_reason("") == ""
    for text, needed in (("x" * 1001, False), ("a\0b", False), ("  ", True)):
        with pytest.raises(Invalid):
            check_reason(text, needed=needed)


texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
training = st.builds(
    Training, texts, texts, texts, texts, st.lists(st.builds(Data, texts, texts, texts), max_size=5).map(tuple)
)


@given(training)
def test_any_training_is_read_as_it_was_written(said: Training):
    assert read_training(msgspec.json.encode(said).decode()) == said


@given(st.text())
def test_any_text_at_all_is_a_training_or_refused(text: str):
    try:
        found = read_training(text)
    except Invalid:
        return
    assert found is None or isinstance(found, Training)


@pytest.mark.parametrize(
    "text",
    [
        '{"who": "ada"}',
        '{"data": [{"uri": "no name"}]}',
        '{"by": 7}',
        "[1]",
        '{"by": "a\\u0000b"}',
        '{"by": "%s"}' % ("x" * 1001),
        '{"data": [' + ",".join(['{"name": "d"}'] * 201) + "]}",
        " " * 9 + '{"by": "' + "x" * LARGEST_TRAINING + '"}',
        "[" * 20_000,
    ],
)
def test_a_training_of_another_form_or_size_is_refused(text: str):
    with pytest.raises(Invalid):
        read_training(text)


def test_no_training_is_none():
    assert read_training(" ") is None
