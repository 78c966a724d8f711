"""How settings of a deployment are written on the command line."""

import pytest

from modelkeep.app.cli.deployments import patch_of
from modelkeep.app.cli.problems import WrongUse


def test_dots_are_groups_and_values_are_numbers_truths_or_words():
    assert patch_of(["batching.mode=off", "batching.max_rows=8", "deadline_s=0.5", "recording.enabled=false"]) == {
        "batching": {"mode": "off", "max_rows": 8},
        "deadline_s": 0.5,
        "recording": {"enabled": False},
    }


def test_default_brings_a_default_back():
    assert patch_of(["batching=default", "deadline_s=default"]) == {"batching": None, "deadline_s": None}


def test_the_name_of_a_field_may_have_dots():
    patch = patch_of(["recording.fields.sepal.length=hash", "recording.fields.age=drop"])
    assert patch == {"recording": {"fields": {"sepal.length": "hash", "age": "drop"}}}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "[1]", '{"a": 1}', "null"])
def test_what_is_no_value_is_left_for_the_server_to_refuse(text: str):
    assert patch_of([f"concurrency={text}"]) == {"concurrency": text}


@pytest.mark.parametrize("change", ["batching.mode", "=off", ""])
def test_a_change_without_a_name_or_a_value_is_wrong_use(change: str):
    with pytest.raises(WrongUse) as wrong:
        patch_of([change])
    assert "NAME=VALUE" in wrong.value.advice


def test_a_group_and_its_parts_are_not_set_at_once():
    with pytest.raises(WrongUse, match="beside batching itself"):
        patch_of(["batching=1", "batching.mode=off"])
