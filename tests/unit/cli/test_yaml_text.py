import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.app.cli.yaml_text import dump, load

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(categories=["L", "N"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read_the_same(value: object) -> None:
    assert load(dump(value)) == value


@given(VALUES)
def test_json_is_read_as_what_it_is(value: object) -> None:
    assert load(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mode: off", {"mode": "off"}),
        ("mode: no", {"mode": "no"}),
        ("keep: yes", {"keep": "yes"}),
        ("at: 1:30", {"at": "1:30"}),
        ("day: 2026-11-23", {"day": "2026-11-23"}),
        ("split: {4: 5, 5: 2.5}", {"split": {"4": 5, "5": 2.5}}),
        ("n: 010", {"n": "010"}),
        ("n: 1_000", {"n": "1_000"}),
        ("n: 1e3", {"n": 1000.0}),
        ("n: ~", {"n": None}),
        ("n:", {"n": None}),
        ("", None),
    ],
)
def test_settings_mean_what_people_write(text: str, value: object) -> None:
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "'a' is said twice at line 2, column 1"),
        ("a: &x 1\nb: *x", "a reference, which is not taken here at line 2, column 4"),
        ("a: [1", "line"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "special characters"),
        ("[" * 20_000, "nested too deeply"),
        ("{a: 1}: 2", "line 1"),
        ("--- 1\n--- 2", "line 2"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        load(text)


def test_a_number_that_is_none_is_a_text() -> None:
    assert load("n: .nan") == {"n": ".nan"}
    assert not isinstance(load("n: .inf")["n"], float)
    assert math.isfinite(load("n: 1.5")["n"])
