from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.client.desired import checked, merge_patch
from modelkeep.client.errors import Invalid

NAMES = st.sampled_from("abc")
PLAIN = st.integers(0, 3) | st.text("xy", max_size=2) | st.lists(st.integers(0, 2), max_size=2)
GROUPS = st.recursive(PLAIN, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)
DOCUMENTS = st.dictionaries(NAMES, GROUPS, max_size=3)


def merged(before: Any, patch: Any) -> Any:
    """RFC 7396, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    after = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = merged(after.get(name), value)
    return after


@given(DOCUMENTS, DOCUMENTS)
def test_a_patch_makes_the_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, merge_patch(before, after)) == after


@given(DOCUMENTS)
def test_what_is_the_same_needs_no_patch(document: dict[str, Any]) -> None:
    assert merge_patch(document, document) == {}


GOOD = {
    "modelkeep": 1,
    "models": {"m": {"description": "d", "aliases": {"champion": 1}}, "n": None},
    "deployments": {"m": {"model": "m", "version": 1, "settings": {}, "traffic": {}}, "n": None},
}


def test_a_document_may_leave_out_what_it_does_not_speak_of() -> None:
    assert checked(GOOD) == {"models": GOOD["models"], "deployments": GOOD["deployments"]}
    assert checked({"modelkeep": 1, "models": None}) == {"models": {}, "deployments": {}}


@pytest.mark.parametrize(
    ("document", "place", "code"),
    [
        (None, "", "wrong_type"),
        ([], "", "wrong_type"),
        ({}, "modelkeep", "wrong_format"),
        ({"modelkeep": 2}, "modelkeep", "wrong_format"),
        ({"modelkeep": 1, "deployment": {}}, "deployment", "unknown_name"),
        ({"modelkeep": 1, "models": []}, "models", "wrong_type"),
        ({"modelkeep": 1, "models": {"m": 1}}, "models.m", "wrong_type"),
        ({"modelkeep": 1, "models": {"m": {"alias": {}}}}, "models.m.alias", "unknown_name"),
        ({"modelkeep": 1, "models": {"m": {"description": 1}}}, "models.m.description", "wrong_type"),
        ({"modelkeep": 1, "models": {"m": {"aliases": {"a": "x"}}}}, "models.m.aliases.a", "wrong_type"),
        ({"modelkeep": 1, "models": {"m": {"aliases": {"a": True}}}}, "models.m.aliases.a", "wrong_type"),
        ({"modelkeep": 1, "deployments": {"m": {"version": 0}}}, "deployments.m.version", "wrong_type"),
        ({"modelkeep": 1, "deployments": {"m": {"traffic": [1]}}}, "deployments.m.traffic", "wrong_type"),
        ({"modelkeep": 1, "deployments": {"m": {"setings": {}}}}, "deployments.m.setings", "unknown_name"),
    ],
)
def test_each_fault_of_a_document_has_its_place(document: object, place: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked(document)
    assert [(one.path, one.code) for one in refused.value.fields] == [(place, code)]


def test_a_slip_in_a_name_is_guessed_and_all_faults_are_told_at_once() -> None:
    document = {"modelkeep": 1, "deploymets": {}, "models": {"m": {"alisases": {}}}}
    with pytest.raises(Invalid) as refused:
        checked(document)
    said = {one.path: one.message for one in refused.value.fields}
    assert "'deployments'" in said["deploymets"]
    assert "'aliases'" in said["models.m.alisases"]
